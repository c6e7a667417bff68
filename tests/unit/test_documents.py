"""Documents that the code writes are the ones in docs/."""

from pathlib import Path

from segue.features.document import markdown

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_features_is_up_to_date():
    assert (DOCS / "features.md").read_text() == markdown(), "run `python -m segue table > docs/features.md`"
