"""The receipts of erasures: written when one is ordered, read when somebody asks how far it is.

A customer who has had several pseudonyms is erased by several orders, one for each; their receipts are told as one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from redis.asyncio import Redis
from redis.exceptions import RedisError

from segue.adapters import erasures
from segue.adapters.erasures import Receipt, State
from segue.errors import NotFound, StoreUnavailable


class Receipts:
    """Receipts in the Redis behind `redis`; `parts_max_count` is how many pseudonyms one customer may have had."""

    def __init__(self, redis: Redis, *, parts_max_count: int) -> None:
        self._redis = redis
        self._parts_max_count = parts_max_count

    async def order(self, erasure_id: str, customer: str, *, erased_at_ms: int) -> None:
        """Write the receipt of an erasure that is about to be ordered.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        receipt = Receipt(erasure_id, State.ORDERED, (customer,), erased_at_ms)
        key = erasures.KEY_PREFIX + erasure_id
        with _available():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(key, mapping=erasures.to_fields(receipt))
            pipe.expire(key, erasures.TTL_SECONDS)
            await pipe.execute()

    async def get(self, erasure_id: str) -> Receipt:
        """The receipt of an erasure, with those of its parts.

        Raises:
            NotFound: there is none.
            StoreUnavailable: Redis did not answer.
        """
        with _available():
            found = [
                await erasures.get(self._redis, part_id) for part_id in part_ids(erasure_id, self._parts_max_count)
            ]
        if found[0] is None:
            raise NotFound
        return together([receipt for receipt in found if receipt is not None])


def part_ids(erasure_id: str, count: int) -> list[str]:
    """The ids of the orders of one erasure: its own, then a further one for each former pseudonym."""
    return [erasure_id, *(f"{erasure_id}.{number}" for number in range(1, count))]


def together(receipts: Sequence[Receipt]) -> Receipt:
    """One receipt of all parts of an erasure: no further than the slowest of them."""
    first = receipts[0]
    done = [receipt.done_time_ms for receipt in receipts]
    expiries = [receipt.log_expire_time_ms for receipt in receipts if receipt.log_expire_time_ms is not None]
    return replace(
        first,
        state=min(receipt.state for receipt in receipts),
        customers=_distinct(receipts, "customers"),
        done_time_ms=max(time for time in done if time is not None) if all(done) else None,
        lake_event_count=sum(receipt.lake_event_count for receipt in receipts),
        log_entry_count=sum(receipt.log_entry_count for receipt in receipts),
        dead_letter_count=sum(receipt.dead_letter_count for receipt in receipts),
        log_expire_time_ms=max(expiries, default=None),
        model_versions=_distinct(receipts, "model_versions"),
    )


def _distinct(receipts: Sequence[Receipt], name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each for receipt in receipts for each in getattr(receipt, name)))


@contextmanager
def _available() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable("the store of the receipts does not answer") from error
