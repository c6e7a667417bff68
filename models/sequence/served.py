"""Served: a recommender that asks a running recommendation service, so that what is judged is what callers get."""

import secrets
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import grpc
import numpy as np
from numpy.typing import NDArray

from models.sequence.evaluate import CUTOFFS
from segue.errors import InvalidInput
from segue.events import Kind, item_id
from segue.features.sequence import Sequences
from segue.inference.sequence import SequenceScorer
from segue.rpc.convert import to_timestamp
from segue.v1 import recommendation_pb2 as pb
from segue.v1.events_pb2 import Event
from segue.v1.recommendation_pb2_grpc import RecommendationServiceStub

TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Served:
    """Asks the service at `target`, host:port, as a backend does: for a customer nobody knows, with their events.

    Attributes:
        names: the caller's own id of each item; one that is not in it is asked by an id that no catalogue has.
        version: the bundle that has to answer.
        now_ms: the moment that is asked for.
    """

    target: str
    names: dict[int, str]
    version: str
    now_ms: int
    include_seen: bool

    @classmethod
    def of(cls, target: str, scorer: SequenceScorer, *, include_seen: bool) -> Self:
        """Ask the service at `target`, which has to answer by the bundle that `scorer` was loaded from."""
        names = dict(zip(scorer.vocabulary.item.tolist(), scorer.external_id, strict=True))
        return cls(target, names, scorer.version, time.time_ns() // 1_000_000, include_seen)

    def __call__(self, prefixes: Sequences) -> NDArray[np.int64]:
        """The ids of the best items of each prefix, shape (n, 20).

        Raises:
            InvalidInput: another bundle answers there.
            grpc.RpcError: the service does not answer.
        """
        best = np.zeros((len(prefixes), max(CUTOFFS)), np.int64)
        with grpc.insecure_channel(self.target) as channel:
            stub = RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
            for row, (start, stop) in zip(best, pairwise(prefixes.offsets.tolist()), strict=True):
                answer = stub.RecommendNext(self.request(prefixes, start, stop), timeout=TIMEOUT_SECONDS)
                if list(answer.context.model_versions) != [self.version]:
                    raise InvalidInput.because("service", f"answers by {answer.context.model_versions[0]}")
                row[: len(answer.items)] = [item_id(each.item) for each in answer.items]
        return best

    def request(self, prefixes: Sequences, start: int, stop: int) -> pb.RecommendNextRequest:
        """The question that the slice of `prefixes` is."""
        customer = secrets.token_hex(16)
        # One after the other, as they are in the prefix, also where their times are equal.
        time_ms = self.now_ms - prefixes.age_ms[start:stop]
        time_ms = np.maximum.accumulate(time_ms - np.arange(stop - start)) + np.arange(stop - start)
        events = [
            Event(
                event_id=f"{customer}-{number}",
                customer=customer,
                kind=_label(kind),
                item=self.names.get(item) or f"unnamed {item}",
                event_time=to_timestamp(at_ms),
            )
            for number, (item, kind, at_ms) in enumerate(
                zip(
                    prefixes.item[start:stop].tolist(),
                    prefixes.kind[start:stop].tolist(),
                    time_ms.tolist(),
                    strict=True,
                )
            )
        ]
        as_of_ms = max([self.now_ms, *(time_ms[-1:] + 1).tolist()])
        return pb.RecommendNextRequest(
            customer=customer,
            limit=max(CUTOFFS),
            events=events,
            as_of=to_timestamp(as_of_ms),
            include_seen=self.include_seen,
        )


def _label(kind: int) -> str:
    try:
        return Kind(kind).label
    except ValueError:
        return Kind.UNKNOWN.label
