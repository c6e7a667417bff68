"""Key rings and write keys: read from files, rotated, never shown."""

import stat

import pytest

from segue.errors import InvalidSettings
from segue.events import pseudonym
from services.collector.__main__ import main
from services.collector.identity import Identity
from services.collector.keys import KeyRing, WriteKeys, new

OLD, NEW = "0f" * 32, "5e" * 32


@pytest.fixture
def file(tmp_path):
    def write(text):
        (tmp_path / "keys").write_text(text)
        return tmp_path / "keys"

    return write


def test_a_known_user_s_pseudonym_is_the_domain_s(file):
    ring = KeyRing.read(file(f"# comment\n\na:{NEW}\nb:{OLD}\n"), field="KEYS")
    assert ring.user("u") == pseudonym("u", bytes.fromhex(NEW))
    assert ring.former_user("u") == [pseudonym("u", bytes.fromhex(OLD))]
    assert ring.visitor("u") not in {ring.user("u"), *ring.former_user("u"), *ring.former_visitor("u")}


def test_rotation_links_former_pseudonyms_to_the_current(file):
    before = KeyRing.read(file(f"b:{OLD}"), field="KEYS")
    after = KeyRing.read(file(f"a:{NEW}\nb:{OLD}"), field="KEYS")
    identity = Identity("u", "v")
    assert set(identity.resolved(after)[1]) == {
        (before.user("u"), after.user("u")),
        (before.visitor("v"), after.visitor("v")),
        (after.visitor("v"), after.user("u")),
    }
    assert identity.customers(after)[0] == identity.customer(after) == after.user("u")
    assert set(identity.customers(before)) < set(identity.customers(after))


@pytest.mark.parametrize(
    "text", ["", "# nothing", "a", "a:", f"a:{NEW[:-2]}", "a:xyz", f"a:{NEW}\na:{OLD}", f"{NEW}", f"a b:{NEW}"]
)
def test_a_ring_that_is_none_is_refused_without_showing_it(file, text):
    with pytest.raises(InvalidSettings, match="SEGUE_KEYS") as caught:
        KeyRing.read(file(text), field="SEGUE_KEYS")
    assert NEW[:-2] not in str(caught.value)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(InvalidSettings, match="--help"):
        KeyRing.read(tmp_path / "none", field="SEGUE_KEYS")


def test_keys_are_not_shown(file):
    ring = KeyRing.read(file(f"a:{NEW}"), field="KEYS")
    known = WriteKeys.read(file("a:a-plain-write-key"), field="KEYS")
    shown = repr(ring) + repr(known) + repr(Identity("raw-user"))
    assert not any(secret in shown for secret in (NEW, repr(bytes.fromhex(NEW)), "a-plain-write-key", "raw-user"))


def test_write_keys(file, capsys, tmp_path):
    main(["--new-write-key", str(tmp_path / "made")])
    made = capsys.readouterr().out.strip()
    known = WriteKeys.read(file("a:a-plain-write-key\n" + (tmp_path / "made").read_text()), field="KEYS")
    assert made not in (tmp_path / "made").read_text()
    assert known.knows(made)
    assert known.knows("a-plain-write-key")
    assert not any(known.knows(other) for other in ("", "a", "a-plain-write-ke", "sha256:", "\ud800", "x" * 10_000))


@pytest.mark.parametrize("text", ["", "a:short", "a:sha256:beef", "justakey-without-a-name"])
def test_write_keys_that_are_none_are_refused(file, text):
    with pytest.raises(InvalidSettings, match="WRITE"):
        WriteKeys.read(file(text), field="WRITE")


def test_a_new_key_goes_first_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "further" / "keys"
    new(path, f"b:{OLD}")
    main(["--new-key", str(path)])
    first, second = path.read_text().splitlines()
    assert second == f"b:{OLD}"
    assert first != second
    assert len(KeyRing.read(path, field="KEYS").users) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
