"""The published serving plans: one JSON file per feature service, what the registry says now."""

from pathlib import Path

from segue.errors import BundleError
from segue.inference.bundle import Bundle
from segue.inference.plan import Plan

PLAN_FILE = "plan.json"
"""The plan a bundle was trained with, inside the bundle."""


def publish(directory: Path, plan: Plan) -> Path:
    """Write `plan` under its service's name, replacing what was there in one step; returns the file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{plan.feature_service}.json"
    draft = path.with_suffix(".draft")
    draft.write_text(plan.to_json())
    return draft.replace(path)


def published(directory: Path, feature_service: str) -> Plan:
    """The plan published for `feature_service`.

    Raises:
        BundleError: there is none, or it is malformed.
    """
    path = directory / f"{feature_service}.json"
    try:
        return Plan.from_json(path.read_bytes())
    except OSError as error:
        raise BundleError(f"no serving plan for {feature_service} in {directory}; `segue plan` writes it") from error


def every(directory: Path) -> list[Plan]:
    """Every plan published in `directory`.

    Raises:
        BundleError: one is malformed.
    """
    return [Plan.from_json(path.read_bytes()) for path in sorted(directory.glob("*.json"))]


def agreed(bundle: Bundle, directory: Path) -> Plan:
    """The plan that `bundle` was trained with, if it is still what the registry says.

    Raises:
        BundleError: the bundle and the registry disagree on the feature service.
    """
    manifest = bundle.manifest
    plan = Plan.from_json(bundle.file(PLAN_FILE).read_bytes())
    now = published(directory, manifest.feature_service)
    if not plan.hash == manifest.plan_hash == now.hash:
        changed = sorted({each.name for each in plan.columns} ^ {each.name for each in now.columns})
        raise BundleError(
            f"bundle {bundle.version}: was trained on another {manifest.feature_service} than the registry holds now"
            f" (columns that differ: {changed or 'none, but types, order or places do'}); retrain, or apply the old one"
        )
    return plan
