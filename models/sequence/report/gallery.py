"""The examples as HTML."""

import math
from collections.abc import Iterator, Sequence

from models.sequence.report.examples import LENGTHS_FROM, Example, Reason, Recommended
from models.sequence.report.items import Items
from models.sequence.report.text import duration, shown
from segue.events import Kind
from segue.inference.sequence import LIMIT_MAX, Rung

PAST = 8
"""Newest turns of a history that are shown."""

KINDS = {int(kind): kind.label.removeprefix("product_").replace("_", " ") for kind in Kind}


def render(examples: Sequence[Example], items: Items) -> str:
    """All examples and what to make of them."""
    told = (
        "Drawn at random, in turn from histories that begin at "
        f"{', '.join(map(str, LENGTHS_FROM))} items, whatever the answers were. On the left what the customer turned "
        "to, newest first; on the right what was recommended, and why: the one past item without which its score "
        "falls most, by how much, and from which place to which. Found by asking again without each of the items the "
        "model reads. Scores have no unit and compare within one example."
    )
    return f"<p>{told}</p>{''.join(_example(number, each, items) for number, each in enumerate(examples, 1))}"


def _example(number: int, example: Example, items: Items) -> str:
    length = len(example.past.item)
    return (
        f'<section class="example"><h3>{number}. A history of {length:,} item{"s" * (length > 1)}</h3>'
        f'<p class="next">Came next: {_item(example.next_item, items)}: {_outcome(example)}.</p>'
        f'<div class="sides"><table><tr><th>turned to</th><th>by</th><th>before</th></tr>'
        f"{''.join(_past(example, items))}</table>"
        f'<table><tr><th></th><th>recommended</th><th>score</th><th class="why">why</th></tr>'
        f"{''.join(_recommended(example, items))}</table></div></section>"
    )


def _outcome(example: Example) -> str:
    if not example.is_known:
        return "new after training, and so named by none"
    return f"recommended at place {example.place}" if example.place else f"not among the {LIMIT_MAX} best"


def _past(example: Example, items: Items) -> Iterator[str]:
    past = example.past
    turns = list(zip(past.item.tolist(), past.kind.tolist(), past.age_ms.tolist(), strict=True))[::-1]
    for item, kind, age_ms in turns[:PAST]:
        known = int(items.vocabulary.index(past.item[past.item == item][:1])[0]) > 0
        unknown = "" if known else " <small>unknown to the model</small>"
        kind_label = KINDS.get(kind, KINDS[Kind.UNKNOWN])
        yield f"<tr><td>{_item(item, items)}{unknown}</td><td>{kind_label}</td><td>{duration(age_ms)}</td></tr>"
    if len(turns) > PAST:
        yield f'<tr><td colspan="3"><small>and {len(turns) - PAST:,} more before</small></td></tr>'


def _recommended(example: Example, items: Items) -> Iterator[str]:
    for place, each in enumerate(example.recommended, 1):
        hit = ' class="hit"' if each.item == example.next_item else ""
        why = _why(example, place, each, items)
        yield (
            f"<tr{hit}><td>{place}</td><td>{_item(each.item, items)}</td><td>{each.score:.2f}</td>"
            f'<td class="why">{why}</td></tr>'
        )


def _why(example: Example, place: int, recommended: Recommended, items: Items) -> str:
    if recommended.reason is None:
        if example.fallback is not Rung.SEQUENCE:
            return f"no item of the history is known: the rung “{example.fallback.value}” answered"
        return "no single item: without any one of them its score does not fall"
    return _reason(place, recommended.reason, items)


def _reason(place: int, reason: Reason, items: Items) -> str:
    item = _item(reason.item, items)
    if math.isinf(reason.drop):
        return f"{item}: nothing else to go by"
    if reason.place == 0:
        fall = f"at least −{reason.drop:.2f}, from place {place} to beyond {LIMIT_MAX}"
    else:
        moved = f"from place {place} to {reason.place}" if reason.place != place else f"still at place {place}"
        fall = f"−{reason.drop:.2f}, {moved}"
    return f"{item}<br><small>without it {fall}</small>"


def _item(item: int, items: Items) -> str:
    category = items.category(item)
    return f"{shown(items.name(item))}{f' <small>{shown(category)}</small>' if category else ''}"
