"""Bundles: a trained model as a directory of plain files and the manifest that vouches for them.

A bundle is read by machines that did not make it. Its manifest names every file with its SHA-256, the feature service
it was trained on and the exact columns, in order; nothing in it is executed, and a file that was altered, cut short or
added is refused.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segue.errors import BundleError

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself.

    `columns` are the feature service's columns that the model reads, in the model's order; `plan_hash` is the hash of
    the serving plan they were read by. `files` maps each other file of the bundle to its SHA-256.
    """

    family: str
    """propensity or sequence."""
    name: str
    """What the model answers, e.g. `purchase_7d`."""
    feature_service: str
    plan_hash: str
    columns: Sequence[str]
    dtypes: Sequence[str]
    data_cut_ms: int
    """No event after this time was used in training."""
    metrics: Mapping[str, float]
    config: Mapping[str, Any]
    """The resolved training configuration."""
    git_sha: str
    created_ms: int
    files: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and found whole; `version` is its tag in the model store."""

    path: Path
    manifest: Manifest
    version: str

    def file(self, name: str) -> Path:
        """The path of one of the manifest's files.

        Raises:
            BundleError: the manifest does not list it.
        """
        if name not in self.manifest.files:
            raise BundleError(f"bundle {self.version}: has no file {name!r}")
        return self.path / name

    @classmethod
    def read(cls, path: Path, version: str) -> Self:
        """Read and verify the bundle in directory `path`.

        Raises:
            BundleError: the manifest is missing, malformed or of another format, or a file is altered or amiss.
        """
        try:
            content = json.loads((path / MANIFEST).read_bytes())
        except (OSError, ValueError) as error:
            raise BundleError(f"bundle {version}: {MANIFEST} cannot be read: {error}") from error
        given = content if isinstance(content, dict) else {}
        if (of := given.get("format", FORMAT)) != FORMAT:
            raise BundleError(f"bundle {version}: has format {of}, this program reads {FORMAT}")
        names = {each.name for each in fields(Manifest)}
        if set(given) != names:
            lacks, adds = sorted(names - set(given)), sorted(set(given) - names)
            raise BundleError(f"bundle {version}: {MANIFEST} lacks {lacks}, adds {adds}")
        manifest = Manifest(**given)
        _verify(path, manifest, version)
        return cls(path, manifest, version)


def read_arrays(path: Path, names: Sequence[str], problem: str) -> list[NDArray]:
    """The arrays of these names in the .npz file at `path`, in that order.

    Raises:
        BundleError: with `problem`; the file does not hold them.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[name] for name in names]
    except Exception as error:  # numpy and zipfile have one for each way to be no such file
        raise BundleError(f"{path.name}: {problem}: {error}") from error


def write(path: Path, manifest: Manifest) -> None:
    """Add the manifest to the model's files in directory `path`, with the hash of each of them."""
    hashes = {name: _sha256(path / name) for name in _files(path)}
    content = asdict(manifest) | {"files": hashes}
    (path / MANIFEST).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _verify(path: Path, manifest: Manifest, version: str) -> None:
    if not isinstance(manifest.files, dict):
        raise BundleError(f"bundle {version}: {MANIFEST} does not map files to hashes")
    present = _files(path)
    if missing := sorted(set(manifest.files) - present):
        raise BundleError(f"bundle {version}: lacks {missing}")
    if extra := sorted(present - set(manifest.files)):
        raise BundleError(f"bundle {version}: holds files its manifest does not list: {extra}")
    for name, digest in manifest.files.items():
        if _sha256(path / name) != digest:
            raise BundleError(f"bundle {version}: {name} is not the file the manifest was written for")


def _files(path: Path) -> set[str]:
    names = {str(each.relative_to(path)) for each in path.rglob("*") if each.is_file()}
    # model.yaml is the model store's own record of the directory.
    return names - {MANIFEST, "model.yaml"}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
