"""What models are trained on and served with. Once a model was trained on a service it never changes: add the next."""

from customer_features import customer_lifetime
from feast import FeatureService
from item_features import item_stats
from on_demand_features import customer_behaviour, customer_sequence

propensity_v1 = FeatureService(
    name="propensity_v1",
    features=[customer_behaviour, customer_lifetime],
    description="Inputs of the propensity models.",
)

recommendation_v1 = FeatureService(
    name="recommendation_v1",
    features=[customer_sequence, item_stats],
    description="Inputs of the sequence models, and what the popular rung of the ladder ranks by.",
)
