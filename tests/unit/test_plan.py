"""Serving plans: data that is read back as it was written, or refused."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from segue.errors import BundleError
from segue.inference.plan import Column, HashField, HashPart, HistoryPart, Plan
from tests.conftest import ROOT

HASH = HashPart(
    view="lifetime",
    entity="customer",
    key_type="string",
    key_prefix_hex="0100",
    key_suffix_hex="73",
    timestamp_field="_ts:lifetime",
    ttl_seconds=60,
    fields=(HashField("order_count", "00ff"), HashField("event_count", "11")),
)
HISTORY = HistoryPart(view="history", entity="customer", key_prefix="shop:history:", limit=256)
PLAN = Plan(
    feature_service="propensity_v1",
    project="shop",
    columns=(Column("view_count", "int64", "history"), Column("order_count", "int64", "lifetime")),
    hashes=(HASH,),
    histories=(HISTORY,),
)

OTHERS = {
    "service": replace(PLAN, feature_service="propensity_v2"),
    "project": replace(PLAN, project="eshop"),
    "order of columns": replace(PLAN, columns=PLAN.columns[::-1]),
    "type of a column": replace(PLAN, columns=(replace(PLAN.columns[0], dtype="float64"), PLAN.columns[1])),
    "a column less": replace(PLAN, columns=PLAN.columns[:1]),
    "view of a column": replace(PLAN, columns=(replace(PLAN.columns[0], view="lifetime"), PLAN.columns[1])),
    "ttl": replace(PLAN, hashes=(replace(HASH, ttl_seconds=61),)),
    "entity": replace(PLAN, hashes=(replace(HASH, entity="item"),)),
    "key": replace(PLAN, hashes=(replace(HASH, key_prefix_hex="0101"),)),
    "type of the key": replace(PLAN, hashes=(replace(HASH, key_type="int64"),)),
    "order of fields": replace(PLAN, hashes=(replace(HASH, fields=HASH.fields[::-1]),)),
    "bytes of a field": replace(
        PLAN, hashes=(replace(HASH, fields=(HashField("order_count", "00fe"), HASH.fields[1])),)
    ),
    "no history": replace(PLAN, histories=()),
    "limit": replace(PLAN, histories=(replace(HISTORY, limit=128),)),
    "prefix": replace(PLAN, histories=(replace(HISTORY, key_prefix="shop:other:"),)),
}


def test_a_plan_is_read_back_as_it_was_written():
    assert Plan.from_json(PLAN.to_json()) == PLAN
    assert Plan.from_json(PLAN.to_json().encode()) == PLAN
    assert Plan.from_json(PLAN.to_json()).to_json() == PLAN.to_json()


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_the_hash_changes_with_anything(other):
    assert other.hash != PLAN.hash
    assert Plan.from_json(other.to_json()) == other


def test_the_hash_is_the_same_in_every_process():
    program = "from tests.unit.test_plan import PLAN; print(PLAN.hash)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == PLAN.hash


def content(**changes):
    return json.dumps(json.loads(PLAN.to_json()) | changes)


def without(key):
    return json.dumps({name: each for name, each in json.loads(PLAN.to_json()).items() if name != key})


@pytest.mark.parametrize(
    "text",
    [content(project="eshop"), content(hash="0" * 64), content(format=2), content(columns=[]), content(histories=[])],
)
def test_an_altered_plan_is_refused(text):
    with pytest.raises(BundleError, match="its hash or format does not match its content"):
        Plan.from_json(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b'"plan"',
        b"{}",
        PLAN.to_json()[:-20],
        *(without(key) for key in ("format", "hash", "project", "columns", "hashes", "histories")),
        content(columns=[{"name": "a"}]),
        content(columns=[{"name": "a", "dtype": "int64", "view": "b", "colour": "red"}]),
        content(columns=5),
        content(hashes=[[]]),
        content(hashes=[{"fields": [1]}]),
        content(histories=[None]),
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(BundleError, match="serving plan: malformed"):
        Plan.from_json(text)
