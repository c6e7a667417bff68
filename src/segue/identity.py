"""Identity: for whom the events of a customer count, since when, and which of them.

A link says that the events of its source count for its target too, and so on along every path of links. Along a path
an event becomes available with the path's newest link, and stops at the barrier of any customer on the way.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from segue.customers import BARRED_MS, Link

ALWAYS_MS = -(2**63)
"""Before every event: the moment since which a customer's own events count, and the barrier of one who has none."""


class Flow(NamedTuple):
    """The events of `source` later than `barrier_ms` count for `target`, available from `available_time_ms` on."""

    source: str
    target: str
    available_time_ms: int
    barrier_ms: int


def flows(links: Iterable[Link], barriers: Mapping[str, int]) -> list[Flow]:
    """Every flow between two different customers along any path of `links`, in order of (target, source).

    There are several between the same two where none is best: one path known earlier, another with a lower barrier.

    Args:
        links: what flows where; of several alike the earliest counts.
        barriers: the barrier in force of each customer that has one.
    """
    targets: dict[str, dict[str, int]] = {}
    for link in links:
        known = targets.setdefault(link.source, {})
        known[link.target] = min(link.available_time_ms, known.get(link.target, link.available_time_ms))
    found = [flow for source in targets for flow in _from(source, targets, barriers)]
    return sorted(found, key=lambda flow: (flow.target, flow.source, flow.available_time_ms))


def _from(source: str, targets: Mapping[str, Mapping[str, int]], barriers: Mapping[str, int]) -> Iterator[Flow]:
    """The flows out of `source`.

    Dijkstra's algorithm with two costs, each the maximum along the path instead of its sum. Paths are settled in order
    of (availability, barrier), so one is dominated exactly if a path settled earlier has no higher barrier.
    """
    lowest: dict[str, int] = {}
    paths = [(ALWAYS_MS, barriers.get(source, ALWAYS_MS), source)]
    while paths:
        available_ms, barrier_ms, customer = heapq.heappop(paths)
        if barrier_ms >= min(BARRED_MS, lowest.get(customer, BARRED_MS)):
            continue
        lowest[customer] = barrier_ms
        if customer != source:
            yield Flow(source, customer, available_ms, barrier_ms)
        for target, link_ms in targets.get(customer, {}).items():
            passed_ms = max(barrier_ms, barriers.get(target, ALWAYS_MS))
            heapq.heappush(paths, (max(available_ms, link_ms), passed_ms, target))
