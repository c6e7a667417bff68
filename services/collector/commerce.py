"""What an event's properties say of items and money, in the words of Segment's ecommerce spec and of GA4."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Self

from services.collector import money
from services.collector.names import normal
from services.collector.refusal import EventTooLarge, Refused

ITEM_MAX_CHARS = 128
LINES_MAX_COUNT = 500

ITEM_NAMES = ("productid", "sku", "itemid")
"""What the id of an item is called; the first that is there counts."""

LIST_NAMES = ("products", "items")
TOTAL_NAMES = ("total", "revenue", "value")
"""What an amount of the whole event is called."""


@dataclass(frozen=True, eq=False)
class Fields:
    """The fields of an object, found whatever way their names are written; `path` is what the object is called."""

    path: str
    named: Mapping[str, tuple[str, Any]]

    @classmethod
    def of(cls, properties: Mapping[str, Any], path: str) -> Self:
        """The fields of `properties`; of two that are called the same, the first."""
        named: dict[str, tuple[str, Any]] = {}
        for name, value in properties.items():
            named.setdefault(normal(name) if len(name) <= ITEM_MAX_CHARS else name, (name, value))
        return cls(path, named)

    def first(self, *names: str) -> tuple[str, Any]:
        """Path and value of the first of `names` that is there and says something."""
        for name in names:
            path, value = self.named.get(name, ("", None))
            if value is not None and value != "":
                return f"{self.path}.{path}", value
        return f"{self.path}.{names[0]}", None

    @property
    def item(self) -> str:
        """The id of the item; empty without one."""
        path, value = self.first(*ITEM_NAMES)
        return item(value, field=path)

    @property
    def currency(self) -> str:
        """The code of the currency; empty without one."""
        path, value = self.first("currency")
        return money.currency(value, field=path)

    def amount(self, *names: str) -> Decimal | None:
        """The first of the amounts `names` that is there."""
        path, value = self.first(*names)
        return money.amount(value, field=path)

    @property
    def line_total(self) -> Decimal | None:
        """Price times quantity, 1 by default; None without a price."""
        price, quantity = self.amount("price"), self.amount("quantity")
        return price if price is None or quantity is None else money.EXACT.multiply(price, quantity)


@dataclass(frozen=True)
class Deal:
    """One item, or none, and what it was worth."""

    item: str
    value_minor: int
    currency: str
    properties: Mapping[str, Any]


def whole(properties: Mapping[str, Any], path: str, *, shop_currency: str) -> Deal:
    """An event as one: its item, and its total or else its price times quantity.

    Args:
        properties: of the event.
        path: what they are called.
        shop_currency: the currency of amounts that name none.

    Raises:
        Refused: an item, amount or currency is malformed.
    """
    fields = Fields.of(properties, path)
    total = fields.amount(*TOTAL_NAMES)
    return _deal(fields, properties, fields.line_total if total is None else total, fields.currency, shop_currency)


def order(properties: Mapping[str, Any], path: str, *, shop_currency: str) -> tuple[Deal, list[Deal]]:
    """An order, without an item, and its lines; an order that names no total is worth what its lines are.

    Raises:
        Refused: an item, amount or currency is malformed.
        EventTooLarge: it has more than 500 lines.
    """
    bought = lines(properties, path, shop_currency=shop_currency)
    rest = {name: value for name, value in properties.items() if normal(name[:ITEM_MAX_CHARS]) not in LIST_NAMES}
    made = replace(whole(rest, path, shop_currency=shop_currency), item="")
    if bought and Fields.of(rest, path).amount(*TOTAL_NAMES) is None:
        value_minor = sum(line.value_minor for line in bought)
        if abs(value_minor) >= money.LIMIT_MINOR:
            raise Refused.because(path, "are worth more together than 2^53 minor units")
        made = replace(made, value_minor=value_minor, currency=made.currency or bought[0].currency)
    return made, bought


def lines(properties: Mapping[str, Any], path: str, *, shop_currency: str) -> list[Deal]:
    """Each product that an event lists, with its price times quantity.

    Raises:
        Refused: the list or something in it is malformed.
        EventTooLarge: there are more than 500.
    """
    fields = Fields.of(properties, path)
    where, listed = fields.first(*LIST_NAMES)
    if listed is None:
        return []
    if not isinstance(listed, list):
        raise Refused.because(where, "must be a list of products")
    if len(listed) > LINES_MAX_COUNT:
        raise EventTooLarge.because(where, f"holds {len(listed)} products, at most {LINES_MAX_COUNT} are taken")
    code = fields.currency
    return [_line(each, f"{where}[{index}]", code, shop_currency) for index, each in enumerate(listed)]


def item(value: Any, *, field: str) -> str:
    """The id of an item, text or a whole number; empty for none.

    Raises:
        Refused: it is something else, too long, or holds a control character.
    """
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise Refused.because(field, "must be text or a whole number")
    if len(value) > ITEM_MAX_CHARS:
        raise Refused.because(field, f"has {len(value)} characters, at most {ITEM_MAX_CHARS} are allowed")
    if not value.isprintable():
        raise Refused.because(field, "holds a control character")
    return value


def _line(product: Any, path: str, code: str, shop_currency: str) -> Deal:
    if not isinstance(product, dict):
        raise Refused.because(path, "must be an object")
    fields = Fields.of(product, path)
    return _deal(fields, product, fields.line_total, fields.currency or code, shop_currency)


def _deal(fields: Fields, properties: Mapping[str, Any], total: Decimal | None, code: str, shop: str) -> Deal:
    path, _ = fields.first(*TOTAL_NAMES, "price")
    value_minor = 0 if total is None else money.minor(total, code or shop, field=path)
    return Deal(fields.item, value_minor, code, properties)
