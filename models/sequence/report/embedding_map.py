"""The map of the items: their embeddings in the two directions in which they differ most, by category, as SVG."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.sequence.dataset import CASES_SEED, Corpus
from models.sequence.report.items import Items
from models.sequence.report.text import plain, shown
from models.sequence.spread import directions
from segue.inference.sequence import SCORES_MAX

CATEGORIES = 10
"""The largest categories, which have a colour; the rest is grey."""

POINTS_MAX = 3000
"""Items drawn, at random where there are more."""

ASKED_MAX = 1000
"""Items whose neighbours are looked at, likewise."""

NEIGHBOURS = 10

GREY = "#c3c9d0"
PALETTE = (
    "#1769aa",
    "#c2570c",
    "#2f7d4f",
    "#8a4fa3",
    "#b08a00",
    "#2aa0aa",
    "#c2387a",
    "#7a5230",
    "#6b8e23",
    "#4453c4",
)
WIDTH, HEIGHT, MARGIN = 900, 560, 14
RADIUS = 2.2, 6.0
"""Of the least and the most popular item."""


@dataclass(frozen=True, eq=False)
class Plane:
    """v vectors in two dimensions."""

    point: NDArray[np.float64]  # (v, 2)
    explained: tuple[float, float]
    """The share of the vectors' variance along each axis, 0 to 1."""


def project(vectors: NDArray[np.float32]) -> Plane:
    """The principal components of `vectors` (v, d), d >= 2: directions of greatest variance (Pearson, 1901).

    By the singular vectors of the covariance (d, d), so that a large catalogue costs one pass. An axis points to where
    its largest entry is positive: its sign would be chance otherwise.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    axes, variance, _ = np.linalg.svd(centred.T @ centred)  # (d, d), (d,)
    axes = axes[:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    share = variance[:2] / (variance.sum() or 1.0)
    return Plane(centred @ axes, (float(share[0]), float(share[1])))


def render(items: Items, corpus: Corpus) -> str:
    """The map of all items but padding as HTML: a figure with its legend and its caption. Needs `items.embedding`."""
    if items.embedding is None:
        raise ValueError("no embedding to draw")
    unit = directions(items.embedding[1:])
    category = items.categories()[1:]
    plane = project(unit)
    colours = palette(category)
    return (
        f"<figure>{_svg(plane, items, category, colours, _turns(items, corpus))}{_legend(category, colours)}"
        f"<figcaption>{_caption(plane, unit, category)}</figcaption></figure>"
    )


def palette(category: NDArray[np.object_]) -> Mapping[str, str]:
    """A colour for each of the largest known categories, the largest first, equals by name."""
    names, counts = np.unique(category[category != ""], return_counts=True)
    largest = names[np.argsort(-counts, kind="stable")[:CATEGORIES]]
    return dict(zip(largest.tolist(), PALETTE, strict=False))


def likeness(unit: NDArray[np.float32], category: NDArray[np.object_]) -> tuple[float, float]:
    """How often one of an item's nearest by cosine is of its category, and how often any other item is.

    Of items with a known category, at most ASKED_MAX of them; NaN where fewer than two have one.
    """
    known = np.flatnonzero(category != "")
    unit = unit[known]
    code, counts = np.unique(category[known], return_inverse=True, return_counts=True)[1:]
    if len(known) < 2:
        return np.nan, np.nan
    asked = _sample(len(known), ASKED_MAX)
    size = max(1, SCORES_MAX // len(known))
    same = [_alike(unit, code, asked[start : start + size]) for start in range(0, len(asked), size)]
    return float(np.concatenate(same).mean()), float(((counts[code[asked]] - 1) / (len(known) - 1)).mean())


def _alike(unit: NDArray[np.float32], code: NDArray[np.intp], asked: NDArray[np.intp]) -> NDArray[np.float64]:
    """The share of each asked item's nearest others that have its code, shape (a,)."""
    cosine = unit[asked] @ unit.T  # (a, v)
    cosine[np.arange(len(asked)), asked] = -np.inf
    count = min(NEIGHBOURS, len(unit) - 1)
    nearest = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
    return (code[nearest] == code[asked][:, None]).mean(axis=1)


def _turns(items: Items, corpus: Corpus) -> NDArray[np.int64]:
    """The training turns to every item but padding."""
    return corpus.popularity[corpus.vocabulary.index(items.vocabulary.item[1:])]


def _svg(
    plane: Plane,
    items: Items,
    category: NDArray[np.object_],
    colours: Mapping[str, str],
    turns: NDArray[np.int64],
) -> str:
    drawn = _sample(len(plane.point), POINTS_MAX)
    # Grey below colours, large below small: what is said stays visible.
    coloured = np.isin(category[drawn], list(colours))
    drawn = drawn[np.lexsort((-turns[drawn], coloured))]
    low, high = plane.point.min(axis=0), plane.point.max(axis=0)
    place = (plane.point - low) / np.where(high > low, high - low, 1)
    x = MARGIN + place[:, 0] * (WIDTH - 2 * MARGIN)
    y = HEIGHT - MARGIN - place[:, 1] * (HEIGHT - 2 * MARGIN)
    radius = RADIUS[0] + (RADIUS[1] - RADIUS[0]) * np.sqrt(turns / max(1, turns.max()))
    dots = (
        f'<circle cx="{x[row]:.1f}" cy="{y[row]:.1f}" r="{radius[row]:.1f}" fill="{colours.get(category[row], GREY)}">'
        f"<title>{_hint(items, int(items.vocabulary.item[1 + row]), int(turns[row]))}</title></circle>"
        for row in drawn.tolist()
    )
    return (
        f'<svg class="map" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Item embeddings in two dimensions">'
        f"{''.join(dots)}</svg>"
    )


def _hint(items: Items, item: int, turns: int) -> str:
    return f"{plain(items.name(item)[:100])}, {plain(items.category(item)[:100] or 'no category')}, {turns:,} turns"


def _legend(category: NDArray[np.object_], colours: Mapping[str, str]) -> str:
    named = [(colour, shown(name), int((category == name).sum())) for name, colour in colours.items()]
    rest = len(category) - sum(count for _, _, count in named)
    named += [(GREY, "other categories or none", rest)] * (rest > 0)
    keys = (
        f'<span><svg viewBox="0 0 10 10"><circle cx="5" cy="5" r="5" fill="{colour}"/></svg>{name} '
        f"<small>{count:,}</small></span>"
        for colour, name, count in named
    )
    return f'<p class="legend">{"".join(keys)}</p>'


def _caption(plane: Plane, unit: NDArray[np.float32], category: NDArray[np.object_]) -> str:
    drawn = min(POINTS_MAX, len(category))
    said = [
        f"{drawn:,} of the {len(category):,} items the model knows; larger is more popular; the pointer names them. "
        "Directions of the embeddings that items are scored by, on the two axes along which they differ most (PCA): "
        f"{plane.explained[0]:.0%} and {plane.explained[1]:.0%} of the variance; the rest is not in the picture."
    ]
    near, any_other = likeness(unit, category)
    if np.isfinite(near):
        said.append(
            f"In all dimensions, {near:.0%} of the {NEIGHBOURS} items nearest to an item are of its category; of any "
            f"other items {any_other:.0%} are."
        )
    else:
        said.append("The catalogue names no categories.")
    return " ".join(said)


def _sample(count: int, most: int) -> NDArray[np.intp]:
    """At most `most` of `count` positions, ascending, drawn at random."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(CASES_SEED).choice(count, most, replace=False))
