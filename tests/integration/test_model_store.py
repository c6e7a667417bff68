"""Bundles in BentoML's model store: whole ones go in, the same ones come out."""

from dataclasses import replace

import bentoml
import pytest

from segue.adapters.model_store import ModelStore
from segue.errors import BundleError
from segue.inference import bundle
from segue.inference.bundle import Bundle
from tests.bundles import MANIFEST


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "bentoml")


def made(directory, weights, name="purchase_7d"):
    directory.mkdir()
    (directory / "model.ubj").write_bytes(weights)
    bundle.write(directory, replace(MANIFEST, name=name))
    return directory


def test_a_bundle_comes_out_as_it_went_in(store, tmp_path):
    directory = made(tmp_path / "made", b"weights")
    tag = store.save(directory, "purchase_7d")
    found = store.get(tag)
    assert found.version == tag
    assert found.manifest == Bundle.read(directory, "any").manifest
    assert found.file("model.ubj").read_bytes() == b"weights"
    assert directory not in found.path.parents


def test_a_bare_name_is_its_newest_bundle(store, tmp_path):
    old = store.save(made(tmp_path / "old", b"old"), "purchase_7d")
    new = store.save(made(tmp_path / "new", b"new"), "purchase_7d")
    other = store.save(made(tmp_path / "other", b"other", "churn_30d"), "churn_30d")
    assert store.get("purchase_7d").version == store.get("purchase_7d:latest").version == new != old
    assert store.get("purchase_7d").file("model.ubj").read_bytes() == b"new"
    assert store.get(old).file("model.ubj").read_bytes() == b"old"
    assert store.tags() == [other, new, old]


def test_another_process_finds_what_was_saved(store, tmp_path):
    tag = store.save(made(tmp_path / "made", b"weights"), "purchase_7d")
    assert ModelStore(tmp_path / "bentoml").get("purchase_7d").version == tag


def test_bentoml_itself_finds_it(store, tmp_path, monkeypatch):
    from bentoml._internal.models.model import ModelStore as BentoModelStore

    tag = store.save(made(tmp_path / "made", b"weights"), "purchase_7d")
    model = bentoml.models.get(tag, _model_store=BentoModelStore(tmp_path / "bentoml" / "models"))
    assert (str(model.tag), model.info.labels) == (tag, {"owner": "segue"})


@pytest.mark.parametrize("tag", ["purchase_7d", "purchase_7d:absent", "no such:tag", "", ":", "../../etc"])
def test_what_is_not_there_is_named(store, tag):
    with pytest.raises(BundleError, match="is not in the model store"):
        store.get(tag)


def test_an_empty_store_has_no_tags(store):
    assert store.tags() == []


def test_a_bundle_that_is_not_whole_does_not_get_in(store, tmp_path):
    directory = made(tmp_path / "made", b"weights")
    (directory / "model.ubj").write_bytes(b"other")
    with pytest.raises(BundleError, match="is not the file the manifest was written for"):
        store.save(directory, "purchase_7d")
    assert store.tags() == []


@pytest.mark.parametrize("name", ["", "no such name", "a/b", "../escape", "UPPER:1:2"])
def test_a_name_no_model_may_have_is_refused(store, tmp_path, name):
    with pytest.raises(BundleError, match="cannot be stored"):
        store.save(made(tmp_path / "made", b"weights"), name)
    assert store.tags() == []
    assert not (tmp_path / "escape").exists()


def test_a_bundle_altered_in_the_store_does_not_come_out(store, tmp_path):
    tag = store.save(made(tmp_path / "made", b"weights"), "purchase_7d")
    store.get(tag).file("model.ubj").write_bytes(b"other")
    with pytest.raises(BundleError, match=f"bundle {tag}: model.ubj is not the file"):
        store.get(tag)
