"""Which kind an event's name stands for: Segment's ecommerce events, GA4's, and Segue's own.

Sources: Segment's "V2 Ecommerce Events" spec; the recommended events of Google Analytics 4. Names that no canonical
kind stands for become labels, those of the two vocabularies that mean one thing under one label.
"""

from collections.abc import Mapping
from functools import lru_cache

from segue.events import KIND_BY_LABEL, Kind
from services.collector.names import normal, snake
from services.collector.refusal import Refused

KIND_MAX_CHARS = 64

LABELS: Mapping[str, str] = {
    # Segment, where the name is not the kind's own
    "Product Added to Wishlist": "product_wishlisted",
    "Product List Filtered": "filter_applied",
    # GA4
    "view_item": "product_viewed",
    "add_to_cart": "product_added",
    "remove_from_cart": "product_removed",
    "begin_checkout": "checkout_started",
    "purchase": "order_completed",
    "add_to_wishlist": "product_wishlisted",
    "search": "products_searched",
    "view_search_results": "products_searched",
    "share": "product_shared",
    "view_item_list": "product_list_viewed",
    "select_item": "product_clicked",
    "view_cart": "cart_viewed",
    "add_payment_info": "payment_info_entered",
    "add_shipping_info": "shipping_info_entered",
    "view_promotion": "promotion_viewed",
    "select_promotion": "promotion_clicked",
    "refund": "order_refunded",
    "page_view": "page_viewed",
    "screen_view": "screen_viewed",
}
"""Kind or label by a name of Segment's or GA4's; the names of the kinds themselves need no line."""

_KNOWN = {normal(label): label for label in KIND_BY_LABEL} | {normal(name): label for name, label in LABELS.items()}

PAGE_VIEWED, SCREEN_VIEWED, GROUP_JOINED = "page_viewed", "screen_viewed", "group_joined"
CONSENT_UPDATED = "segment_consent_preference_updated"

ORDER, LINE = Kind.ORDER_COMPLETED.label, Kind.PRODUCT_PURCHASED.label

ABOUT_ITEMS = frozenset(
    kind.label
    for kind in (
        Kind.PRODUCT_VIEWED,
        Kind.PRODUCT_ADDED,
        Kind.PRODUCT_REMOVED,
        Kind.PRODUCT_PURCHASED,
        Kind.PRODUCT_WISHLISTED,
        Kind.PRODUCT_REVIEWED,
        Kind.PRODUCT_SHARED,
        Kind.CONTENT_ENGAGED,
        Kind.RECOMMENDATION_CLICKED,
    )
)
"""Kinds that say something of every item they list; such an event of many items is many events."""


def label(name: str, *, field: str) -> str:
    """The kind that `name` stands for, or `name` itself in snake case, cut to 64 characters: unknown kinds are kept.

    Raises:
        Refused: nothing of it is a letter or a digit.
    """
    found = _label(name)
    if not found:
        raise Refused.because(field, "holds no letter and no digit" if name else "is empty")
    return found


@lru_cache(maxsize=4_096)
def _label(name: str) -> str:
    return _KNOWN.get(normal(name)) or snake(name)[:KIND_MAX_CHARS].rstrip("_")
