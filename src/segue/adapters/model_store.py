"""The model store: bundles in BentoML's model store, as plain files."""

import os
import shutil
from pathlib import Path
from typing import Any

from segue.errors import BundleError
from segue.inference.bundle import Bundle

# BentoML reports usage over the network unless told not to before it is imported.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
from bentoml._internal.models.model import ModelStore as BentoModelStore
from bentoml.exceptions import BentoMLException


class ModelStore:
    """Bundles under `root`, a BentoML home: what BENTOML_HOME names for BentoML's own commands."""

    def __init__(self, root: Path) -> None:
        models = root / "models"
        models.mkdir(parents=True, exist_ok=True)
        self._store: Any = BentoModelStore(models)

    def save(self, directory: Path, name: str) -> str:
        """Copy the bundle in `directory` into the store under `name` and a new version; returns its tag.

        Raises:
            BundleError: the directory does not hold a whole bundle, or the name is not one a model may have.
        """
        Bundle.read(directory, str(directory))
        try:
            with bentoml.models.create(name, labels={"owner": "segue"}, _model_store=self._store) as model:
                shutil.copytree(directory, model.path, dirs_exist_ok=True)
        except (BentoMLException, ValueError) as error:
            raise BundleError(f"bundle {name!r} cannot be stored: {error}") from error
        return str(model.tag)

    def get(self, tag: str) -> Bundle:
        """The bundle with `tag`, `name:version`, or the newest of a bare `name`, verified.

        Raises:
            BundleError: there is none, or it is not whole.
        """
        try:
            model = bentoml.models.get(tag, _model_store=self._store)
        except (BentoMLException, ValueError) as error:
            raise BundleError(f"bundle {tag!r} is not in the model store: {error}") from error
        return Bundle.read(Path(model.path), str(model.tag))

    def tags(self) -> list[str]:
        """Every tag in the store, newest first."""
        models = sorted(
            bentoml.models.list(_model_store=self._store), key=lambda each: each.creation_time, reverse=True
        )
        return [str(each.tag) for each in models]
