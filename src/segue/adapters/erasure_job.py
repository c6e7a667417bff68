"""Completes erasures: after the online store, the event log, the dead letters and the event lake forget, too.

Every step may be repeated, so a job that is killed is simply run again; only then the receipt says so.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from segue.adapters import lake_jobs, replay
from segue.adapters.erasures import Receipt, Receipts, State
from segue.adapters.event_log import LogKeeper
from segue.adapters.histories import HistoryStore
from segue.adapters.lake import Lake
from segue.customers import Barrier
from segue.errors import BundleError
from segue.inference.bundle import Bundle


class Bundles(Protocol):
    """Where trained models are: the model store."""

    def tags(self) -> list[str]:
        """Every bundle, `name:version`."""

    def get(self, tag: str) -> Bundle:
        """One of them, verified."""


class Views(Protocol):
    """Where batch features are."""

    def forget(self, customers: Collection[str]) -> None:
        """Remove what is kept of `customers`."""


class Letters(Protocol):
    """Where what could not be processed is."""

    def forget(self, customers: Sequence[str]) -> int:
        """Remove what is about `customers`; returns how many."""


@dataclass(frozen=True)
class ErasureJob:
    """What an erasure has to reach besides the online store's histories."""

    lake: Lake
    histories: HistoryStore
    receipts: Receipts
    log: LogKeeper
    letters: Letters
    views: Views
    bundles: Bundles | None = None
    """None: no models are kept here, so none is listed."""

    def run(self, *, erased_before_ms: int | None = None) -> list[Receipt]:
        """Complete every pending erasure, or those of before a time; returns the receipts.

        An updater has what it read before the order on its way to the lake for a while: what gets there later does not
        count, and goes with the next compaction.

        Raises:
            LakeConflict: appends came too close on each other; what was not completed stays pending.
        """
        return [
            self.complete(receipt)
            for receipt in self.receipts.pending()
            if erased_before_ms is None or receipt.erased_at_ms < erased_before_ms
        ]

    def complete(self, receipt: Receipt) -> Receipt:
        """Erase what `receipt` orders wherever it still is; returns the receipt, done.

        What each step did is written down at once: run again after a crash, it finds nothing more to do.
        """
        customers = receipt.customers
        # Whoever reads the lake from now on counts none of it, however long the rest takes.
        self.lake.append_barriers([Barrier(name, erased_at_ms=receipt.erased_at_ms) for name in customers])
        # Once the events are gone nobody can tell any more which models they were in.
        models = tuple(sorted({*receipt.model_versions, *self._trained_on(customers)}))
        receipt = self._note(replace(receipt, model_versions=models))
        found = self.log.forget(customers)
        entry_count = receipt.log_entry_count + found.entry_count
        receipt = self._note(replace(receipt, log_entry_count=entry_count, log_expire_time_ms=found.expire_time_ms))
        letter_count = receipt.dead_letter_count + self.letters.forget(customers)
        receipt = self._note(replace(receipt, dead_letter_count=letter_count))
        removed_count = lake_jobs.erase(self.lake, customers, receipt.erased_at_ms)
        receipt = self._note(replace(receipt, lake_event_count=receipt.lake_event_count + removed_count))
        self.views.forget(customers)
        replay.refill(self.lake, self.histories, customers)
        return self._note(replace(receipt, state=State.DONE, done_time_ms=time.time_ns() // 1_000_000))

    def order(self, erasure_id: str, customer: str, erased_at_ms: int) -> Receipt:
        """Erase `customer` and everyone who flows into them here and now, past the event log; returns the receipt."""
        erased = self.histories.erase(customer, erased_at_ms)
        receipt = Receipt(erasure_id, State.ONLINE, tuple(erased), erased_at_ms)
        self.receipts.put(receipt)
        return self.complete(receipt)

    def _note(self, receipt: Receipt) -> Receipt:
        self.receipts.put(receipt)
        return receipt

    def _trained_on(self, customers: Sequence[str]) -> list[str]:
        """The bundles whose data may hold an event of `customers`, oldest first."""
        if self.bundles is None or self.lake.version() < 0:
            return []
        events = self.lake.read(customers=customers)
        if not len(events):
            return []
        first_ms = int(events.event_time_ms.min())
        found = []
        for tag in reversed(self.bundles.tags()):
            try:
                trained = self.bundles.get(tag).manifest.data_cut_ms > first_ms
            except BundleError:
                trained = True  # nobody can say what it was trained on
            if trained:
                found.append(tag)
        return found
