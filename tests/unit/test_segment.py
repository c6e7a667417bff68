"""What each message of Segment's becomes."""

import pytest

from segue.events import event_id, pseudonym
from services.collector.clock import Arrival
from services.collector.keys import KeyRing
from services.collector.refusal import ConsentWithheld, EventTooLarge, Refused
from services.collector.scrub import Privacy, Scrubber
from services.collector.segment import Consent, Segment

NOW = 1_790_000_000_123
NOW_TEXT = "2026-09-21T14:13:20.123Z"
RING = KeyRing.of([b"k" * 32])
ROTATED = KeyRing.of([b"n" * 32, b"k" * 32])


def reader(ring=RING, *, required=False, currency="USD"):
    return Segment(ring, Scrubber(Privacy(), ring), Consent(category="Analytics", required=required), currency)


def read(message, ring=RING, *, sent_ms=None, **options):
    return reader(ring, **options).facts(message, Arrival(NOW, sent_ms))


def track(event="Product Viewed", properties=None, **fields):
    message = {"type": "track", "messageId": "m", "userId": "u", "event": event, "properties": properties}
    return message | fields


def only(message, **options):
    (entry,) = read(message, **options)
    return entry


def refused(message, **options):
    with pytest.raises(Refused) as caught:
        read(message, **options)
    return caught.value.violations[0].field


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Product Viewed", "product_viewed"),
        ("product_viewed", "product_viewed"),
        ("productViewed", "product_viewed"),
        ("PRODUCT  VIEWED", "product_viewed"),
        ("view_item", "product_viewed"),
        ("Product Added", "product_added"),
        ("add_to_cart", "product_added"),
        ("Product Removed", "product_removed"),
        ("remove_from_cart", "product_removed"),
        ("Checkout Started", "checkout_started"),
        ("begin_checkout", "checkout_started"),
        ("Order Completed", "order_completed"),
        ("purchase", "order_completed"),
        ("Products Searched", "products_searched"),
        ("search", "products_searched"),
        ("Product Added to Wishlist", "product_wishlisted"),
        ("add_to_wishlist", "product_wishlisted"),
        ("Product Reviewed", "product_reviewed"),
        ("Product Shared", "product_shared"),
        ("Product List Filtered", "filter_applied"),
        ("recommendation_shown", "recommendation_shown"),
        ("Product List Viewed", "product_list_viewed"),
        ("view_item_list", "product_list_viewed"),
        ("Cart Viewed", "cart_viewed"),
        ("Played a Video!", "played_a_video"),
        ("Größe gewählt", "größe_gewählt"),
        ("x" * 200, "x" * 64),
    ],
)
def test_names_of_events_become_kinds(name, kind):
    assert only(track(name)).event.kind == kind


@pytest.mark.parametrize("name", ["", "  ", "!?", None, 7, [], "bob@example.com clicked"])
def test_names_that_are_none_are_refused(name):
    assert refused(track(name)) == "event"


def test_an_event_says_who_what_and_when():
    entry = only(track(properties={"product_id": "p1", "value": "12.50", "currency": "eur"}, timestamp=NOW_TEXT))
    assert entry.customer == pseudonym("u", b"k" * 32)
    assert entry.receive_time_ms == NOW
    did = entry.event
    assert (did.event_id, did.item, did.value_minor, did.currency) == (event_id("m"), "p1", 1250, "EUR")
    assert (did.event_time_ms, did.original_time_ms, did.HasField("sent_time_ms")) == (NOW, NOW, False)


@pytest.mark.parametrize(
    ("properties", "item"),
    [
        ({"product_id": "a", "sku": "b"}, "a"),
        ({"productId": "a"}, "a"),
        ({"product_id": "", "sku": "b"}, "b"),
        ({"Product ID": 17}, "17"),
        ({"item_id": "g"}, "g"),
        ({"items": [{"item_id": "g"}]}, "g"),
        ({"products": [{"sku": "s"}]}, "s"),
        ({}, ""),
    ],
)
def test_the_item_is_found(properties, item):
    assert only(track(properties=properties)).event.item == item


def test_an_order_is_one_event_and_one_for_each_line():
    order = {
        "total": 59.97,
        "currency": "USD",
        "order_id": "o1",
        "products": [{"product_id": "a", "price": 19.99, "quantity": 2}, {"sku": "b", "price": "19.99"}],
    }
    facts = [entry.event for entry in read(track("Order Completed", order, timestamp=NOW_TEXT))]
    assert [(fact.kind, fact.item, fact.value_minor) for fact in facts] == [
        ("order_completed", "", 5997),
        ("product_purchased", "a", 3998),
        ("product_purchased", "b", 1999),
    ]
    assert [fact.event_id for fact in facts] == [event_id("m"), event_id("m/0"), event_id("m/1")]
    assert {fact.event_time_ms for fact in facts} == {NOW}
    assert facts[0].properties_json == '{"currency":"USD","order_id":"o1","total":59.97}'


@pytest.mark.parametrize(
    ("own", "value"),
    [({"revenue": "20"}, 2000), ({"total": 0}, 0), ({"total": 7, "revenue": 5}, 700), ({}, 1000), ({"value": 3}, 300)],
)
def test_what_an_order_is_worth(own, value):
    lines = {"products": [{"product_id": "a", "price": 5, "quantity": 2}]}
    assert read(track("purchase", own | lines))[0].event.value_minor == value


def test_a_kind_about_items_is_one_event_for_each_it_lists():
    properties = {"items": [{"item_id": "a", "price": 1}, {"item_id": "b", "price": 2}], "currency": "USD", "value": 3}
    facts = [entry.event for entry in read(track("add_to_cart", properties))]
    assert [(fact.item, fact.value_minor) for fact in facts] == [("a", 100), ("b", 200)]
    assert [fact.event_id for fact in facts] == [event_id("m/0"), event_id("m/1")]


def test_another_kind_keeps_its_list_in_one_event():
    event = only(track("Cart Viewed", {"products": [{"product_id": "a"}, {"product_id": "b"}]})).event
    assert (event.item, event.properties_json) == ("", '{"products":[{"product_id":"a"},{"product_id":"b"}]}')


@pytest.mark.parametrize(
    ("properties", "field"),
    [
        ({"product_id": ["a"]}, "properties.product_id"),
        ({"product_id": 1.5}, "properties.product_id"),
        ({"product_id": True}, "properties.product_id"),
        ({"product_id": "x" * 129}, "properties.product_id"),
        ({"sku": "a\x00b"}, "properties.sku"),
        ({"product_id": "bob@example.com"}, "properties.product_id"),
        ({"value": "$5"}, "properties.value"),
        ({"value": True}, "properties.value"),
        ({"value": 1e300}, "properties.value"),
        ({"value": "1e5"}, "properties.value"),
        ({"price": {}}, "properties.price"),
        ({"price": 5, "quantity": "two"}, "properties.quantity"),
        ({"price": 1e15, "quantity": 1e15}, "properties.price"),
        ({"currency": "EURO", "value": 1}, "properties.currency"),
        ({"currency": 5}, "properties.currency"),
        ({"products": "none"}, "properties.products"),
        ({"products": ["a"]}, "properties.products[0]"),
        ({"products": [{"price": []}]}, "properties.products[0].price"),
        ("text", "properties"),
        ([], "properties"),
    ],
)
def test_what_is_malformed_is_refused_by_its_field(properties, field):
    assert refused(track(properties=properties)) == field


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("text", "message"),
        (None, "message"),
        ({}, "type"),
        ({"type": []}, "type"),
        ({"type": "guess", "userId": "u"}, "type"),
        ({"type": "track", "event": "x"}, "userId"),
        ({"type": "track", "event": "x", "userId": ""}, "userId"),
        ({"type": "track", "event": "x", "userId": {}}, "userId"),
        ({"type": "track", "event": "x", "userId": True}, "userId"),
        ({"type": "track", "event": "x", "userId": "u" * 257}, "userId"),
        ({"type": "track", "event": "x", "anonymousId": "u" * 257}, "anonymousId"),
        (track(messageId="m" * 129), "messageId"),
        (track(messageId=[]), "messageId"),
        (track(timestamp="yesterday"), "timestamp"),
        (track(timestamp=[]), "timestamp"),
        (track(originalTimestamp=-1), "originalTimestamp"),
        (track(sentAt="now"), "sentAt"),
        (track(context={"consent": {"categoryPreferences": []}}), "context.consent.categoryPreferences"),
        ({"type": "alias", "userId": "u"}, "previousId"),
        ({"type": "alias", "anonymousId": "a", "previousId": "b"}, "userId"),
        ({"type": "alias", "userId": "u", "previousId": "b" * 257}, "previousId"),
    ],
)
def test_messages_that_cannot_be_used_are_refused_by_their_field(message, field):
    assert refused(message) == field


@pytest.mark.parametrize(
    ("kind", "label"), [("page", "page_viewed"), ("screen", "screen_viewed"), ("group", "group_joined")]
)
def test_other_messages_are_events_of_their_own_kind(kind, label):
    event = only({"type": kind, "userId": "u", "groupId": "acme", "name": "Bob", "traits": {"plan": "x"}}).event
    assert (event.kind, event.item, event.properties_json) == (label, "", "")


def test_traits_and_context_are_not_kept():
    context = {"ip": "1.2.3.4", "traits": {"a": "b"}, "page": {"url": "x"}}
    assert only(track(context=context, traits={"c": "d"})).event.properties_json == ""
    assert read({"type": "identify", "userId": "u", "traits": {"email": "a@b.c"}}) == []


def links(entries):
    return {(entry.customer, entry.link.target) for entry in entries if entry.HasField("link")}


@pytest.mark.parametrize("kind", ["identify", "track", "page"])
def test_a_message_with_both_ids_links_them(kind):
    entries = read({"type": kind, "userId": "u", "anonymousId": "a", "event": "x"})
    assert links(entries) == {(RING.visitor("a"), RING.user("u"))}
    assert {entry.customer for entry in entries if entry.HasField("event")} <= {RING.user("u")}


def test_an_alias_links_the_previous_id_whichever_it_was():
    entries = read({"type": "alias", "userId": "u", "previousId": "p"})
    assert links(entries) == {(RING.user("p"), RING.user("u")), (RING.visitor("p"), RING.user("u"))}


def test_users_and_visitors_never_meet():
    assert RING.user("same") != RING.visitor("same")
    assert only(track(userId=None, anonymousId="same")).customer == RING.visitor("same")


def test_a_rotated_key_keeps_histories_together():
    entries = read(track(anonymousId="a"), ring=ROTATED)
    assert links(entries) == {
        (RING.user("u"), ROTATED.user("u")),
        (RING.visitor("a"), ROTATED.visitor("a")),
        (ROTATED.visitor("a"), ROTATED.user("u")),
    }


def preferences(**granted):
    return {"context": {"consent": {"categoryPreferences": granted}}}


@pytest.mark.parametrize("kind", ["track", "identify", "page", "group", "screen"])
def test_without_consent_nothing_is_kept(kind):
    message = {"type": kind, "userId": "u", "anonymousId": "a", "event": "x"}
    with pytest.raises(ConsentWithheld):
        read(message | preferences(analytics=False, ads=True))
    assert read(message | preferences(Analytics=True, ads=False))
    assert read(message | preferences(ads=False))
    with pytest.raises(ConsentWithheld):
        read(message, required=True)
    assert read(message | preferences(ANALYTICS=True), required=True)


@pytest.mark.parametrize("granted", [True, False])
def test_a_change_of_consent_is_a_fact_about_every_pseudonym(granted):
    message = track("Segment Consent Preference Updated", anonymousId="a", timestamp=NOW_TEXT)
    entries = read(message | preferences(Analytics=granted), ring=ROTATED)
    assert {entry.customer for entry in entries} == {
        *(ROTATED.user("u"), ROTATED.visitor("a"), RING.user("u"), RING.visitor("a"))
    }
    assert {(entry.consent.granted, entry.consent.change_time_ms) for entry in entries} == {(granted, NOW)}
    assert refused(message | preferences(ads=True)) == "context.consent.categoryPreferences.Analytics"


def test_a_message_without_an_id_is_known_by_what_it_says():
    first, again = [only(track(messageId=None, timestamp=NOW_TEXT)) for _ in range(2)]
    other = only(track(messageId=None, timestamp="2026-09-21T14:13:20.124Z"))
    assert first == again
    assert first.event.event_id != other.event.event_id


def test_a_message_sent_again_says_the_same():
    sent = [only(track(timestamp=NOW_TEXT, sentAt=NOW_TEXT)), only(track(timestamp=NOW_TEXT, sentAt=NOW_TEXT))]
    assert sent[0] == sent[1]


@pytest.mark.parametrize(
    "properties",
    [
        {"a": "x" * 1_025},
        {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}}},
        {"a": [[[[[[[[1]]]]]]]]},
        {str(number): 1 for number in range(201)},
        {"a": [0] * 2_001},
        {f"a{number}": "x" * 1_000 for number in range(17)},
        {"x" * 129: 1},
        {"products": [{}] * 501},
    ],
)
def test_properties_are_bounded(properties):
    with pytest.raises(EventTooLarge):
        read(track(properties=properties))


def test_a_float_is_finite():
    assert refused(track(properties={"a": [float("nan")]})) == "properties.a[0]"
