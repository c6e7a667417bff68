"""A shop whose truth is known: customers who want, browse, fill carts, order and leave, as a stream of events.

A simulated shop gives what no real log can: the probability that a customer really had to buy, and the taste that
really chose the next view. `Shop(config).stream()` is the log as it arrives; `Shop(config).truth()` is what a model
that knew everything would answer.

What a customer does follows two layers. The *dynamics* (`dynamics.py`) are a small Markov process per customer: an
intent, a cart that is open or closed, and a hazard of leaving for good; it alone decides which sessions happen and how
each ends, so its purchase probabilities are exact. The *visits* (`visits.py`) fill those sessions with events: views
chosen by taste and by what was viewed last, searches, attention, carts, orders.
"""

from segue.simulator.config import DEMO_KEY, ShopConfig
from segue.simulator.dynamics import Intent, LatentState
from segue.simulator.shop import Shop
from segue.simulator.truth import Truth

__all__ = ["DEMO_KEY", "Intent", "LatentState", "Shop", "ShopConfig", "Truth"]
