"""Which model is served, and that it agrees with the registry. Cheap: no model is opened."""

from segue.adapters import plan_files
from segue.adapters.model_store import ModelStore
from segue.inference.bundle import Bundle
from segue.inference.plan import Plan
from services.recommendation.settings import RecommendationSettings


def agreed(read: RecommendationSettings) -> tuple[Plan, Bundle]:
    """The bundle to serve, and the serving plan it reads by.

    Raises:
        BundleError: the bundle is missing, altered, or disagrees with the registry.
    """
    bundle = ModelStore(read.model_store).get(read.bundle)
    return plan_files.agreed(bundle, read.plans), bundle
