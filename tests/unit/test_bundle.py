"""Bundles: read whole, or refused with the reason."""

import json
import shutil

import pytest

from segue.errors import BundleError
from segue.inference import bundle
from segue.inference.bundle import Bundle
from tests.bundles import MANIFEST


@pytest.fixture
def directory(tmp_path):
    """A bundle of three files, one in a folder, one empty."""
    whole = tmp_path / "whole"
    (whole / "extra").mkdir(parents=True)
    (whole / "model.ubj").write_bytes(bytes(range(256)) * 50)
    (whole / "extra" / "card.md").write_text("# card\n")
    (whole / "empty").touch()
    bundle.write(whole, MANIFEST)
    return whole


def change(directory, **changes):
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(directory):
    with pytest.raises(BundleError) as caught:
        Bundle.read(directory, "purchase_7d:1")
    assert str(caught.value).startswith("bundle purchase_7d:1: ")
    return str(caught.value).removeprefix("bundle purchase_7d:1: ")


def test_a_bundle_is_read_back_as_it_was_written(directory):
    read = Bundle.read(directory, "purchase_7d:1")
    assert read.version == "purchase_7d:1"
    assert set(read.manifest.files) == {"model.ubj", "extra/card.md", "empty"}
    for name in ("family", "name", "feature_service", "plan_hash", "columns", "dtypes", "metrics", "config", "git_sha"):
        assert getattr(read.manifest, name) == getattr(MANIFEST, name)
    assert read.file("extra/card.md").read_text() == "# card\n"


def test_a_bundle_may_be_copied(directory, tmp_path):
    shutil.copytree(directory, tmp_path / "copy")
    assert Bundle.read(tmp_path / "copy", "any").manifest == Bundle.read(directory, "any").manifest


def test_the_model_stores_own_record_is_no_part_of_it(directory):
    (directory / "model.yaml").write_text("name: purchase_7d\n")
    assert "model.yaml" not in Bundle.read(directory, "any").manifest.files


@pytest.mark.parametrize("name", ["absent", "../whole/model.ubj", "manifest.json", "model.yaml", ""])
def test_only_files_of_the_manifest_are_handed_out(directory, name):
    with pytest.raises(BundleError, match="bundle any: has no file"):
        Bundle.read(directory, "any").file(name)


def test_an_altered_file_is_refused(directory):
    content = bytearray((directory / "model.ubj").read_bytes())
    content[1000] ^= 1
    (directory / "model.ubj").write_bytes(content)
    assert refused(directory) == "model.ubj is not the file the manifest was written for"


def test_a_file_cut_short_is_refused(directory):
    with (directory / "model.ubj").open("r+b") as file:
        file.truncate(12_799)
    assert refused(directory) == "model.ubj is not the file the manifest was written for"


def test_files_that_changed_places_are_refused(directory):
    (directory / "empty").write_bytes((directory / "model.ubj").read_bytes())
    assert refused(directory) == "empty is not the file the manifest was written for"


@pytest.mark.parametrize("name", ["model.ubj", "extra/card.md"])
def test_a_missing_file_is_refused(directory, name):
    (directory / name).unlink()
    assert refused(directory) == f"lacks ['{name}']"


@pytest.mark.parametrize("name", ["more.bin", "extra/more.bin", "extra/model.yaml", "extra/manifest.json"])
def test_a_file_too_many_is_refused(directory, name):
    (directory / name).write_text("{}")
    assert refused(directory) == f"holds files its manifest does not list: ['{name}']"


def test_a_manifest_that_reaches_outside_is_refused(directory, tmp_path):
    (tmp_path / "outside").touch()
    files = json.loads((directory / "manifest.json").read_text())["files"]
    change(directory, files=files | {"../outside": files["empty"]})
    assert refused(directory) == "lacks ['../outside']"


def test_another_format_is_refused_whatever_it_holds(directory):
    change(directory, format=2, colour="red")
    assert refused(directory) == "has format 2, this program reads 1"


def test_a_manifest_that_lacks_or_adds_a_field_is_refused_by_its_name(directory):
    content = json.loads((directory / "manifest.json").read_text())
    del content["plan_hash"]
    (directory / "manifest.json").write_text(json.dumps(content | {"colour": "red"}))
    assert refused(directory) == "manifest.json lacks ['plan_hash'], adds ['colour']"


@pytest.mark.parametrize("files", [[], ["model.ubj"], "model.ubj", None, 5])
def test_files_without_hashes_are_refused(directory, files):
    change(directory, files=files)
    assert refused(directory) == "manifest.json does not map files to hashes"


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[1, 2]", b"null"])
def test_a_malformed_manifest_is_refused(directory, text):
    (directory / "manifest.json").write_bytes(text)
    assert refused(directory).startswith("manifest.json ")


def test_a_directory_without_a_manifest_is_refused(directory):
    (directory / "manifest.json").unlink()
    assert refused(directory).startswith("manifest.json cannot be read: ")
    assert refused(directory / "absent").startswith("manifest.json cannot be read: ")
