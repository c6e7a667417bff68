"""The tests of the domain catch deliberate faults: each of these is planted into a copy, where they must fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FAULTS = {
    "the window's edge is left out": (
        "features/batch.py",
        "return np.searchsorted(nearness, wanted)",
        'return np.searchsorted(nearness, wanted, side="right")',
    ),
    "an event at the very moment asked about counts": (
        "history.py",
        "past = histories.event_time_ms < np.repeat(now_ms",
        "past = histories.event_time_ms <= np.repeat(now_ms",
    ),
    "as of t includes t": ("history.py", "] < t_ms\n", "] <= t_ms\n"),
    "availability is ignored": (
        "history.py",
        "known = self.events.available_time_ms[source] <= np.repeat(t_ms, reach)",
        "known = np.ones(len(source), bool)",
    ),
    "a record is available from its last delivery on": ("history.py", "np.minimum.reduceat", "np.maximum.reduceat"),
    "copies are kept": (
        "history.py",
        "first[1:] = (row[1:] != row[:-1]) | differs(sorted_columns)",
        "first[1:] = True",
    ),
    "ties are broken the other way round": (
        "history.py",
        '*payload, columns["event_id"]',
        '*payload, ~columns["event_id"]',
    ),
    "items are ordered as signed numbers": ("history.py", 'columns["item"].view(np.uint64)', 'columns["item"]'),
    "the oldest records are kept": (
        "history.py",
        "from_end = np.repeat(histories.offsets[1:], histories.lengths) - np.arange(histories.offsets[-1])",
        "from_end = 1 + np.arange(histories.offsets[-1]) - np.repeat(histories.offsets[:-1], histories.lengths)",
    ),
    "what was erased at the watermark comes back": (
        "history.py",
        "histories.event_time_ms > np.repeat(erased_at_ms",
        "histories.event_time_ms >= np.repeat(erased_at_ms",
    ),
    "the last of several records under one id counts": (
        "history.py",
        "np.lexsort([np.arange(len(row)), histories.event_id, row])",
        "np.lexsort([-np.arange(len(row)), histories.event_id, row])",
    ),
    "as of gives up on records not yet available": (
        "history.py",
        "short = (kept < limit) & (reach < high - low)",
        "short = np.zeros(len(reach), bool)",
    ),
    "a gap of exactly 30 minutes does not end a session": (
        "features/sessions.py",
        ">= SESSION_GAP_MS\n    return opens",
        "> SESSION_GAP_MS\n    return opens",
    ),
    "removed items stay in the cart": (
        "features/cart.py",
        "last & (histories.kind == Kind.PRODUCT_ADDED)",
        "batch.last_of_item(changes & (histories.kind == Kind.PRODUCT_ADDED))",
    ),
    "an order does not empty the cart": ("features/cart.py", "np.arange(len(changes)) > ", "-1 != 0 * "),
    "a full history is not called truncated": (
        "features/batch.py",
        "histories.lengths >= limit",
        "histories.lengths > limit",
    ),
    "a day shared with an older record is not counted": (
        "features/recency.py",
        "begun[np.minimum(start + 1, batch.stop)] + 1",
        "begun[start]",
    ),
    "runs of one item are not collapsed": (
        "features/sequence.py",
        "(row[1:] != row[:-1]) | (histories.item[1:] != histories.item[:-1])",
        "True",
    ),
    "sums lose their sign": ("features/windows.py", "histories.value_minor, 0)", "abs(histories.value_minor), 0)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(name, tmp_path):
    module, right, wrong = FAULTS[name]
    shutil.copytree(ROOT / "src" / "segue", tmp_path / "segue")
    path = tmp_path / "segue" / module
    source = path.read_text()
    assert source.count(right) == 1, "the line this fault is planted into has changed"
    path.write_text(source.replace(right, wrong))
    tests = [str(ROOT / "tests" / "unit" / f"test_{noun}.py") for noun in ("history", "features")]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "--hypothesis-profile", "noticing", "-m", "not slow", *tests],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, f"nobody noticed that {name}:\n{run.stdout[-2000:]}{run.stderr[-2000:]}"
