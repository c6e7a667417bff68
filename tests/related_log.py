"""A log in which what goes with what is planted: phones to choose between, and cases that fit some of them."""

import numpy as np

from segue.events import Events, Kind, item_id

HOUR_MS = 3_600_000
MODELS = 6

PHONES = [f"phone-{number}" for number in range(36)]
CASES = [f"case-{number}" for number in range(36)]
BREAD = [f"bread-{number}" for number in range(8)]
"""Popular with everybody, whatever else they take."""

SKUS = [*PHONES, *CASES, *BREAD]


def fits(sku: str) -> set[str]:
    """The cases that fit a phone; the phones of the same model, and so on."""
    number = int(sku.split("-")[1])
    return {case for case in CASES if int(case.split("-")[1]) % MODELS == number % MODELS}


def visit(rng: np.random.Generator) -> list[tuple[Kind, str, int]]:
    """Kinds, items and minutes of one visit, and of one some days later."""
    done, minute = [], 0
    model = int(rng.integers(MODELS))
    if rng.random() < 0.7:
        phones = rng.choice(PHONES[model::MODELS], size=rng.integers(2, 5), replace=False)
        done += [(Kind.PRODUCT_VIEWED, phone, minute := minute + 1) for phone in phones]
        if rng.random() < 0.6:
            done.append((Kind.PRODUCT_ADDED, str(rng.choice(phones)), minute := minute + 1))
            if rng.random() < 0.3:
                # The phone was not right: days later another one takes its place.
                other = str(rng.choice(PHONES[model::MODELS]))
                again = [
                    (Kind.PRODUCT_VIEWED, other, minute + 10_000),
                    (Kind.PRODUCT_PURCHASED, other, minute + 10_001),
                ]
                done += again
            # The case is chosen at once, or days later.
            minute += 0 if rng.random() < 0.6 else 3 * 24 * 60
            cases = rng.choice(CASES[model::MODELS], size=rng.integers(2, 4), replace=False)
            done += [(Kind.PRODUCT_VIEWED, case, minute := minute + 1) for case in cases]
            done.append((Kind.PRODUCT_ADDED, str(rng.choice(cases)), minute := minute + 1))
    if rng.random() < 0.6:
        bread = str(rng.choice(BREAD))
        at = int(rng.integers(minute + 1)) if rng.random() < 0.5 else minute + 1
        done += [(Kind.PRODUCT_VIEWED, bread, at), (Kind.PRODUCT_ADDED, bread, at + 1)]
        minute = max(minute, at + 1)
    bought = [sku for kind, sku, _ in done if kind == Kind.PRODUCT_ADDED]
    return [*done, *((Kind.PRODUCT_PURCHASED, sku, minute + 5) for sku in bought)]


def events(*, customers: int, seed: int = 1) -> Events:
    """One visit, and what came of it, of each customer."""
    rng = np.random.default_rng(seed)
    rows = [
        (customer, kind, item_id(sku), 60_000 * (1 + customer * 30 + minute))
        for customer in range(customers)
        for kind, sku, minute in visit(rng)
    ]
    return of_rows(rows)


def of_rows(rows: list[tuple[int, int, int, int]]) -> Events:
    """Events of (customer, kind, item, time in ms), told apart by their place."""
    customer, kind, item, time_ms = (np.array(column) for column in zip(*rows, strict=True))
    return Events(
        customers=np.array([f"c{number:05}" for number in range(customer.max() + 1)], object),
        customer=customer.astype(np.int32),
        event_id=np.arange(len(rows), dtype=np.uint64),
        kind=kind.astype(np.uint8),
        item=item.astype(np.int64),
        event_time_ms=time_ms.astype(np.int64),
        available_time_ms=time_ms.astype(np.int64),
        value_minor=np.zeros(len(rows), np.int64),
    )
