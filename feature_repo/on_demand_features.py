"""Views computed from a history at the moment of asking.

Feast runs each from its source text, with nothing of this module in scope: what a function needs, it imports itself.
"""

from typing import Any

from customer_features import customer_history
from feast.on_demand_feature_view import on_demand_feature_view

from segue.adapters.feast.views import BEHAVIOUR_FIELDS, SEQUENCE_FIELDS


@on_demand_feature_view(
    sources=[customer_history],
    schema=BEHAVIOUR_FIELDS,
    mode="python",
    description="Windows, recency, sessions, cart and calendar of the customer's history.",
)
def customer_behaviour(inputs: dict[str, Any]) -> dict[str, Any]:
    """Every scalar feature of the history."""
    from segue.features.on_demand import behaviour

    return behaviour(inputs)


@on_demand_feature_view(
    sources=[customer_history],
    schema=SEQUENCE_FIELDS,
    mode="python",
    description="The items the customer turned to, oldest first.",
)
def customer_sequence(inputs: dict[str, Any]) -> dict[str, Any]:
    """The item sequence of the history."""
    from segue.features.on_demand import item_sequence

    return item_sequence(inputs)
