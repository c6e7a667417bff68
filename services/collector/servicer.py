"""Proto to domain and back, without decisions."""

import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from segue.adapters.erasures import Receipt
from segue.adapters.event_log import Offsets, to_token
from segue.errors import Unauthenticated
from segue.rpc import convert
from segue.v1 import collector_pb2 as pb
from segue.v1.collector_pb2_grpc import CollectorServiceServicer
from segue.v1.log_pb2 import LogEntry
from services.collector import facts
from services.collector.clock import Arrival
from services.collector.door import BATCH_MAX_COUNT, Door, Refusal, Result
from services.collector.intake import Intake
from services.collector.keys import KeyRing, WriteKeys
from services.collector.receipts import Receipts, part_ids
from services.collector.refusal import Refused
from services.collector.submitted import Submitted, identity_of, time_of

REFUSED_MAX_COUNT = 1_000
"""How many refusals of a stream are listed."""

BEARER = "bearer "


class CollectorServicer(CollectorServiceServicer):
    """segue.v1.CollectorService."""

    def __init__(
        self,
        door: Door,
        submitted: Submitted,
        ring: KeyRing,
        *,
        write_keys: WriteKeys,
        intake: Intake,
        receipts: Receipts,
    ) -> None:
        self._door = door
        self._submitted = submitted
        self._ring = ring
        self._write_keys = write_keys
        self._intake = intake
        self._receipts = receipts

    async def CollectEvents(  # noqa: N802 - the name is the proto's
        self, request: pb.CollectEventsRequest, context: Any
    ) -> pb.CollectEventsResponse:
        """A batch, event by event."""
        self._enter(context)
        result = await self._accept(request, "")
        return pb.CollectEventsResponse(
            accepted_count=result.accepted_count,
            refused=[_refused(refusal, 0) for refusal in result.refused],
            token=result.token,
        )

    async def StreamEvents(  # noqa: N802 - the name is the proto's
        self, request_iterator: AsyncIterator[pb.StreamEventsRequest], context: Any
    ) -> pb.StreamEventsResponse:
        """Batch after batch; the next is read when the log has the last."""
        self._enter(context)
        total = _Total({}, [])
        async for request in request_iterator:
            total.add(await self._accept(request.batch, "batch."), len(request.batch.events))
        result = pb.CollectEventsResponse(
            accepted_count=total.accepted_count, refused=total.refused, token=to_token(total.offsets)
        )
        return pb.StreamEventsResponse(result=result, refused_count=total.refused_count)

    async def LinkCustomers(  # noqa: N802 - the name is the proto's
        self, request: pb.LinkCustomersRequest, context: Any
    ) -> pb.LinkCustomersResponse:
        """One customer is another one."""
        self._enter(context)
        source, target = identity_of(request.source, "source"), identity_of(request.target, "target")
        (former, formers), (known, knowns) = source.resolved(self._ring), target.resolved(self._ring)
        if former == known:
            raise Refused.because("target", "is the source")
        entries = facts.links([*formers, *knowns, (former, known)], clock_ms())
        return pb.LinkCustomersResponse(token=await self._append(entries))

    async def ChangeConsent(  # noqa: N802 - the name is the proto's
        self, request: pb.ChangeConsentRequest, context: Any
    ) -> pb.ChangeConsentResponse:
        """Consent is given or withdrawn, under every pseudonym the customer has or had."""
        self._enter(context)
        customers = identity_of(request.customer, "customer").customers(self._ring)
        now_ms = clock_ms()
        change_ms = time_of(request.change_time, "change_time") if request.HasField("change_time") else now_ms
        convert.refuse(convert.within("change_time", change_ms, 0, now_ms + convert.CLOCK_SKEW_MS))
        told = facts.consent(customers, now_ms, granted=request.granted, change_time_ms=change_ms)
        return pb.ChangeConsentResponse(token=await self._append(told))

    async def EraseCustomer(  # noqa: N802 - the name is the proto's
        self, request: pb.EraseCustomerRequest, context: Any
    ) -> pb.EraseCustomerResponse:
        """The order to forget a customer, under every pseudonym the customer has or had."""
        self._enter(context)
        customers = identity_of(request.customer, "customer").customers(self._ring)
        now_ms, erasure_id = clock_ms(), secrets.token_hex(16)
        orders = [
            facts.erasure(customer, now_ms, erasure_id=part_id)
            for customer, part_id in zip(customers, part_ids(erasure_id, len(customers)), strict=True)
        ]
        # Before the log has the order: whoever carries it out writes on the receipt from then on.
        for order in orders:
            await self._receipts.order(order.erasure.erasure_id, order.customer, erased_at_ms=now_ms)
        await self._append(orders)
        return pb.EraseCustomerResponse(erasure_id=erasure_id)

    async def GetErasure(  # noqa: N802 - the name is the proto's
        self, request: pb.GetErasureRequest, context: Any
    ) -> pb.GetErasureResponse:
        """How far an erasure is."""
        self._enter(context)
        convert.refuse(convert.text("erasure_id", request.erasure_id, limit=64))
        return pb.GetErasureResponse(receipt=_receipt(await self._receipts.get(request.erasure_id)))

    async def ResolveCustomer(  # noqa: N802 - the name is the proto's
        self, request: pb.ResolveCustomerRequest, context: Any
    ) -> pb.ResolveCustomerResponse:
        """The pseudonym of a customer."""
        self._enter(context)
        return pb.ResolveCustomerResponse(customer=identity_of(request.customer, "customer").customer(self._ring))

    def _enter(self, context: Any) -> None:
        told = [value for name, value in context.invocation_metadata() or () if name == "authorization"]
        header = told[0] if told and isinstance(told[0], str) else ""
        if not header.lower().startswith(BEARER) or not self._write_keys.knows(header[len(BEARER) :].strip()):
            raise Unauthenticated

    async def _accept(self, batch: pb.CollectEventsRequest, path: str) -> Result:
        convert.refuse(convert.within(f"{path}events.length", len(batch.events), 1, BATCH_MAX_COUNT))
        sent_ms = time_of(batch.sent_time, f"{path}sent_time") if batch.HasField("sent_time") else None
        with self._intake.hold(batch.ByteSize()):
            return await self._door.accept(
                batch.events, self._submitted.facts, Arrival(clock_ms(), sent_ms), id_of=lambda event: event.event_id
            )

    async def _append(self, entries: list[LogEntry]) -> str:
        with self._intake.hold(0):
            return to_token(await self._door.append(entries))


@dataclass(eq=False)
class _Total:
    """What became of the batches of a stream."""

    offsets: dict[int, int]
    refused: list[pb.RefusedEvent]
    accepted_count: int = 0
    refused_count: int = 0

    def add(self, result: Result, count: int) -> None:
        """Add a batch of `count` events."""
        seen = self.accepted_count + self.refused_count
        if seen + count >= 1 << 31:
            raise Refused.because("batch.events", "bring the stream beyond 2^31 events")
        room = REFUSED_MAX_COUNT - len(self.refused)
        self.refused += [_refused(refusal, seen) for refusal in result.refused[:room]]
        self.accepted_count += result.accepted_count
        self.refused_count += len(result.refused)
        latest(self.offsets, result.offsets)


def latest(offsets: dict[int, int], further: Offsets) -> None:
    """Raise `offsets` to those of `further`."""
    for partition, offset in further.items():
        offsets[partition] = max(offset, offsets.get(partition, 0))


def clock_ms() -> int:
    """The server's clock."""
    return time.time_ns() // 1_000_000


def _refused(refusal: Refusal, first: int) -> pb.RefusedEvent:
    return pb.RefusedEvent(
        index=first + refusal.index,
        event_id=refusal.event_id,
        reason=refusal.reason,
        field=refusal.field,
        problem=refusal.problem,
    )


def _receipt(made: Receipt) -> pb.ErasureReceipt:
    return pb.ErasureReceipt(
        erasure_id=made.erasure_id,
        state=f"ERASURE_STATE_{made.state.name}",
        customers=made.customers,
        erased_at=convert.to_timestamp(made.erased_at_ms),
        done_time=_timestamp(made.done_time_ms),
        lake_event_count=made.lake_event_count,
        log_entry_count=made.log_entry_count,
        dead_letter_count=made.dead_letter_count,
        log_expire_time=_timestamp(made.log_expire_time_ms),
        model_versions=made.model_versions,
    )


def _timestamp(time_ms: int | None) -> Timestamp | None:
    return None if time_ms is None else convert.to_timestamp(time_ms)
