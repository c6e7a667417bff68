"""The table of features as a document."""

from collections.abc import Iterable, Iterator

from segue.features import sequence, snapshots, table
from segue.features.family import Feature

SECTIONS = {
    "customer_behaviour": (
        "Computed from the history at the moment of asking. A window holds the events with age above zero and up to its"
        " width.",
        table.FEATURES,
    ),
    "customer_sequence": (
        "Lists of equal length, at most 50 long. A run of events of one item is one entry.",
        sequence.FEATURES,
    ),
    "customer_lifetime": ("Computed from the lake up to a cut; missing before the first.", snapshots.CUSTOMER_LIFETIME),
    "item_stats": ("Computed from the lake up to a cut; missing for an item without events.", snapshots.ITEM_STATS),
}


def markdown() -> str:
    """Every feature by view, with type, unit, meaning and what null means."""
    return "\n".join(
        ["# Features", "", "Written by `segue table`; the code is built from the same table.", *_sections()]
    )


def _sections() -> Iterator[str]:
    for view, (about, features) in SECTIONS.items():
        yield from ("", f"## `{view}`", "", about, "", "| feature | type | unit | meaning | null means |")
        yield "|---|---|---|---|---|"
        yield from _rows(features)
    yield ""


def _rows(features: Iterable[Feature]) -> Iterator[str]:
    for each in features:
        yield f"| `{each.name}` | {each.dtype} | {each.unit} | {each.meaning} | {each.null or 'never null'} |"
