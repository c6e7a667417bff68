"""Who and what features are about."""

from feast import Entity, ValueType

customer = Entity(
    name="customer",
    join_keys=["customer"],
    value_type=ValueType.STRING,
    description="Whoever acts; a pseudonym made at the collector.",
)

item = Entity(
    name="item",
    join_keys=["item"],
    value_type=ValueType.INT64,
    description="Anything a customer acts on; the stable 64-bit hash of its external id.",
)
