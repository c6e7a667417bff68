"""Compiles feature services into serving plans."""

from typing import Any

from feast import FeatureService, FeatureStore, FeatureView, OnDemandFeatureView, ValueType
from feast.infra.key_encoding_utils import serialize_entity_key_prefix
from feast.infra.online_stores.helpers import _mmh3
from feast.types import FeastType

from segue.adapters.feast.online_store import key_prefix
from segue.adapters.feast.views import DTYPES, is_derived, is_history
from segue.errors import InvalidInput
from segue.history import HISTORY_LIMIT
from segue.inference.plan import Column, HashField, HashPart, HistoryPart, KeyType, Plan

KEY_TYPES: dict[ValueType, KeyType] = {ValueType.STRING: "string", ValueType.INT64: "int64"}

KEY_SERIALIZATION_VERSION = 3


def compile_plan(store: FeatureStore, feature_service: str) -> Plan:
    """The serving plan of one feature service in the store's registry.

    Raises:
        InvalidInput: the service holds something a plan cannot express; `field` names the view.
    """
    if store.config.entity_key_serialization_version != KEY_SERIALIZATION_VERSION:
        raise InvalidInput.because("entity_key_serialization_version", f"must be {KEY_SERIALIZATION_VERSION}")
    service: FeatureService = store.get_feature_service(feature_service)
    on_demand = {view.name: view for view in store.list_on_demand_feature_views()}
    plain = {view.name: view for view in store.list_feature_views()}
    columns: list[Column] = []
    hashes: dict[str, HashPart] = {}
    histories: dict[str, HistoryPart] = {}
    for projection in service.feature_view_projections:
        source = projection.name
        if projection.name in on_demand:
            history = _history_behind(on_demand[projection.name], plain)
            histories[history.name] = _history_part(store.project, history)
            source = history.name
        elif projection.name in plain and not is_history(plain[projection.name]):
            names = [feature.name for feature in projection.features]
            hashes[projection.name] = _hash_part(store.project, plain[projection.name], names)
        else:
            raise InvalidInput.because(projection.name, "a plan reads batch views and views derived from a history")
        columns += [Column(each.name, _dtype(each.dtype, each.name), source) for each in projection.features]
    return Plan(feature_service, store.project, tuple(columns), tuple(hashes.values()), tuple(histories.values()))


def _history_behind(view: OnDemandFeatureView, plain: dict[str, FeatureView]) -> FeatureView:
    sources = [plain[each.name] for each in view.source_feature_view_projections.values()]
    if len(sources) != 1 or not is_history(sources[0]) or not is_derived(view):
        raise InvalidInput.because(view.name, "a plan computes Segue's own features of one history only")
    return sources[0]


def _history_part(project: str, view: FeatureView) -> HistoryPart:
    return HistoryPart(view.name, _entity(view).name, key_prefix(project, view.name), HISTORY_LIMIT)


def _hash_part(project: str, view: FeatureView, features: list[str]) -> HashPart:
    entity = _entity(view)
    value_type = entity.dtype.to_value_type()
    if value_type not in KEY_TYPES:
        raise InvalidInput.because(
            view.name, f"an entity of type {value_type.name} cannot be a key; use string or int64"
        )
    prefix = serialize_entity_key_prefix([entity.name], KEY_SERIALIZATION_VERSION)
    return HashPart(
        view=view.name,
        entity=entity.name,
        key_type=KEY_TYPES[value_type],
        key_prefix_hex=(prefix + int(value_type.value).to_bytes(4, "little")).hex(),
        key_suffix_hex=project.encode().hex(),
        timestamp_field=f"_ts:{view.name}",
        ttl_seconds=int(view.ttl.total_seconds()) if view.ttl else 0,
        fields=tuple(HashField(name, _mmh3(f"{view.name}:{name}").hex()) for name in features),
    )


def _entity(view: FeatureView) -> Any:
    if len(view.entity_columns) != 1:
        raise InvalidInput.because(view.name, "a plan reads views of exactly one entity")
    return view.entity_columns[0]


def _dtype(feast_type: FeastType, name: str) -> str:
    for dtype, known in DTYPES.items():
        if known == feast_type:
            return dtype
    raise InvalidInput.because(name, f"has type {feast_type}; a plan reads {', '.join(DTYPES)}")
