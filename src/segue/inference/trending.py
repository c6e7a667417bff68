"""Trending: how much is to be expected of each item in the next hour, from counts over windows within each other."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

WINDOWS = ("30d", "7d", "1d", "1h")
"""The windows read, longest first, as the item statistics name them."""

HOURS: Mapping[str, float] = {"1h": 1.0, "1d": 24.0, "7d": 168.0, "30d": 720.0}

STRENGTH = 1.0
"""How many events of a shorter window weigh as much as what the longer one says; see `rate`."""

LEAST = 1e-9
"""The rate of an item of which nothing is known: a gamma distribution has a mean above 0."""


def rate(count: Mapping[str, NDArray[np.floating]], strength: float = STRENGTH) -> NDArray[np.float64]:
    """Events per hour to be expected now, one for each item, shape (n,), >= 0.

    The rate over the longest window is what is expected of the next shorter one, and so on: each time the mean of a
    gamma distribution with `strength` as its shape is updated by a Poisson count. An item with few events is judged by
    the long windows, which are steady, and one with many by the last hour, which is news.

    Args:
        count: for each of WINDOWS, events, shape (n,); NaN counts as none. A window that is not there is left out.
        strength: above 0.
    """
    windows = [name for name in WINDOWS if name in count]
    found = np.nan_to_num(count[windows[0]]) / HOURS[windows[0]]
    for name in windows[1:]:
        usual = np.maximum(found, LEAST)
        found = (np.nan_to_num(count[name]) + strength) / (HOURS[name] + strength / usual)
    return found
