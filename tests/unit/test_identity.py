"""For whom events count, against every path tried out one by one."""

import random
from itertools import pairwise, permutations

import pytest

from segue.customers import BARRED_MS, Link
from segue.identity import ALWAYS_MS, Flow, flows


def every_path(links, barriers):
    """(source, target) -> the costs of all paths without a repeated customer that let anything pass."""
    earliest = {}
    for link in links:
        key = (link.source, link.target)
        earliest[key] = min(link.available_time_ms, earliest.get(key, link.available_time_ms))
    customers = sorted({name for key in earliest for name in key})
    costs = {}
    for length in range(2, len(customers) + 1):
        for path in permutations(customers, length):
            steps = list(pairwise(path))
            if all(step in earliest for step in steps):
                barrier = max(barriers.get(name, ALWAYS_MS) for name in path)
                if barrier < BARRED_MS:
                    costs.setdefault((path[0], path[-1]), set()).add((max(earliest[step] for step in steps), barrier))
    return costs


def undominated(costs):
    return {
        cost
        for cost in costs
        if not any(other != cost and other[0] <= cost[0] and other[1] <= cost[1] for other in costs)
    }


@pytest.mark.parametrize("seed", range(60))
def test_flows_are_the_best_of_all_paths(seed):
    rng = random.Random(seed)
    names = "abcdef"[: rng.randrange(2, 7)]
    links = [Link(rng.choice(names), rng.choice(names), rng.randrange(6)) for _ in range(rng.randrange(14))]
    barriers = {name: rng.choice([0, 1, 2, 3, BARRED_MS]) for name in names if rng.random() < 0.5}
    wanted = {
        Flow(source, target, *cost)
        for (source, target), costs in every_path(links, barriers).items()
        for cost in undominated(costs)
    }
    found = flows(links, barriers)
    assert len(found) == len(set(found))
    assert set(found) == wanted
    shuffled = rng.sample(links, len(links)) + links
    assert flows(shuffled, barriers) == found
    assert [flow[1::-1] for flow in found] == sorted(flow[1::-1] for flow in found)


def test_a_link_to_oneself_is_no_flow():
    assert flows([Link("a", "a", 5)], {}) == []


def test_a_customer_without_consent_passes_nothing_on():
    chain = [Link("a", "b", 1), Link("b", "c", 2)]
    assert flows(chain, {"b": BARRED_MS}) == []
    assert flows(chain, {"b": 7}) == [Flow("a", "b", 1, 7), Flow("a", "c", 2, 7), Flow("b", "c", 2, 7)]
