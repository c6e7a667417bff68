"""Which models are served, and that they agree with the registry. Cheap: no model is opened."""

from segue.adapters import plan_files
from segue.adapters.model_store import ModelStore
from segue.errors import BundleError
from segue.inference.bundle import Bundle
from segue.inference.plan import Plan
from services.propensity.settings import PropensitySettings


def agreed(read: PropensitySettings) -> tuple[Plan, list[Bundle]]:
    """The bundles to serve, one per outcome, and the serving plan they all read by.

    Raises:
        BundleError: a bundle is missing, altered, or disagrees with the registry or with another bundle.
    """
    store = ModelStore(read.model_store)
    bundles = [store.get(tag) for tag in read.bundles]
    plans = {plan.hash: plan for plan in (plan_files.agreed(bundle, read.plans) for bundle in bundles)}
    if len(plans) != 1:
        raise BundleError(f"bundles {', '.join(read.bundles)}: were trained on different feature services")
    if len({bundle.manifest.name for bundle in bundles}) < len(bundles):
        raise BundleError(f"bundles {', '.join(read.bundles)}: two of them answer the same outcome")
    (plan,) = plans.values()
    return plan, bundles
