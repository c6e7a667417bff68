"""Embeddings name their encoder and their time, and refuse to be used beyond either."""

from dataclasses import replace

import numpy as np
import pytest

from segue.errors import BundleError, EncoderMismatch, InvalidInput
from segue.inference.answers import Status
from segue.inference.bundle import Bundle
from segue.inference.embedding import VIEW, Embeddings, Encoder, EncoderVersion, concat, cosine
from tests.bundles import MANIFEST

DAY = 86_400_000
VERSION = EncoderVersion("next_item:a", "0" * 64, data_cut_ms=5 * DAY)
PRESENT, EXPIRED, MISSING = Status.PRESENT, Status.EXPIRED, Status.MISSING


def embeddings(rows, as_of_days=0, version=VERSION):
    matrix = np.array([[np.nan, np.nan] if row is None else row for row in rows], np.float32).reshape(-1, 2)
    as_of_ms = np.zeros(len(rows), np.int64) + np.array(as_of_days, np.int64) * DAY
    status = tuple(MISSING if row is None else PRESENT for row in rows)
    return Embeddings(matrix, status, as_of_ms, as_of_ms + 7 * DAY, version)


def times(*days):
    return (np.array(days) * DAY).astype(np.int64)


@pytest.mark.parametrize(
    "other",
    [
        replace(VERSION, tag="next_item:b"),
        replace(VERSION, sha256="1" * 64),
        replace(VERSION, data_cut_ms=0),
    ],
)
def test_embeddings_of_two_versions_do_not_meet(other):
    ours, theirs = embeddings([[1, 0]]), embeddings([[1, 0]], version=other)
    for meet in (lambda: concat([ours, theirs]), lambda: cosine(ours, theirs), lambda: VERSION.check(other)):
        with pytest.raises(EncoderMismatch):
            meet()


def test_a_pin_survives_json_and_accepts_its_own_version_only():
    pinned = EncoderVersion.from_json(VERSION.to_json())
    pinned.check(embeddings([[1, 0]]).version)
    with pytest.raises(EncoderMismatch, match="next_item:b"):
        pinned.check(replace(VERSION, tag="next_item:b"))


@pytest.mark.parametrize(
    "content",
    [{}, {"tag": "a"}, VERSION.to_json() | {"width": 3}, VERSION.to_json() | {"tag": 3}],
)
def test_a_malformed_pin_is_refused(content):
    with pytest.raises(BundleError, match="malformed"):
        EncoderVersion.from_json(content)


def bundle(tmp_path, **files):
    hashes = {"model.onnx": "a", "items.npy": "b", "card.md": "c"} | files
    return Bundle(tmp_path, replace(MANIFEST, family="sequence", files=hashes), "next_item:a")


def test_the_version_is_of_what_the_vector_is_made_by(tmp_path):
    version = EncoderVersion.of(bundle(tmp_path))
    assert (version.tag, version.data_cut_ms) == ("next_item:a", MANIFEST.data_cut_ms)
    assert EncoderVersion.of(bundle(tmp_path, **{"card.md": "other"})) == version
    for changed in ({"model.onnx": "other"}, {"items.npy": "other"}, {"model.onnx.data": "weights"}):
        assert EncoderVersion.of(bundle(tmp_path, **changed)).sha256 != version.sha256


def test_what_has_expired_or_was_not_yet_known_counts_as_missing():
    made = embeddings([[1, 0], [2, 0], [3, 0], None, [4, 0]], [0, 0, 9, 0, 3])
    found = made.at(np.array([7 * DAY, 7 * DAY + 1, 8 * DAY, 9 * DAY, 3 * DAY]))
    assert found.status == (PRESENT, EXPIRED, MISSING, MISSING, PRESENT)
    assert np.isnan(found.matrix).all(axis=1).tolist() == [False, True, True, True, False]
    assert found.present.tolist() == [True, False, False, False, True]
    assert made.status == (PRESENT, PRESENT, PRESENT, MISSING, PRESENT)
    later = found.at(times(20, 20, 20, 20, 3))
    assert later.status == (EXPIRED, EXPIRED, MISSING, MISSING, PRESENT)


def test_an_answer_tells_of_embeddings_as_of_any_other_part():
    part = embeddings([[1, 0], [2, 0], None]).part(times(2, 8, 2))
    assert (part.view, part.status) == (VIEW, (PRESENT, EXPIRED, MISSING))
    np.testing.assert_array_equal(part.age_ms, [2 * DAY, 8 * DAY, np.nan])
    assert not part.truncated.any()


def test_rows_from_before_the_data_cut_are_marked():
    assert embeddings([[1, 0]] * 3, [4, 5, 6]).before_cut.tolist() == [True, False, False]


def test_rows_are_taken_and_put_together():
    made = embeddings([[1, 0], None, [3, 4]], [0, 1, 2])
    again = concat([made.take(np.array([2, 0])), made.take(np.array([False, True, False]))])
    assert again.status == (PRESENT, PRESENT, MISSING)
    assert again.as_of_ms.tolist() == times(2, 0, 1).tolist()
    assert again.expires_ms.tolist() == times(9, 7, 8).tolist()
    np.testing.assert_array_equal(again.matrix, [[3, 4], [1, 0], [np.nan] * 2])
    assert again.columns == ("customer_embedding_0", "customer_embedding_1")


def test_cosine_is_by_row_and_nan_where_one_is_missing():
    left, right = embeddings([[1, 0], [1, 1], [2, 0], None]), embeddings([[0, 3], [2, 2], [-1, 0], [1, 0]])
    np.testing.assert_allclose(cosine(left, right), [0, 1, -1, np.nan], atol=1e-6)


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("parts", lambda made, _: concat([])),
        ("right", lambda made, _: cosine(made, made.take(np.array([0])))),
        ("now_ms", lambda made, _: made.at(times(1))),
        ("ttl_ms", lambda _, path: Encoder.load(bundle(path), ttl_ms=0)),
        ("ttl_ms", lambda _, path: Encoder.load(bundle(path), ttl_ms=400 * DAY)),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, field, call):
    with pytest.raises(InvalidInput) as error:
        call(embeddings([[1, 0], [0, 1]]), tmp_path)
    assert error.value.violations[0].field == field


def test_a_bundle_of_another_family_is_no_encoder(tmp_path):
    with pytest.raises(BundleError, match="propensity"):
        Encoder.load(replace(bundle(tmp_path), manifest=MANIFEST))
