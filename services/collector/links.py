"""The links already said: most messages repeat what the log has been told, and one entry for each is enough."""

import time
from collections import OrderedDict
from collections.abc import Sequence

from segue.v1.log_pb2 import LogEntry

LINKS_MAX_COUNT = 100_000
SAID_SECONDS = 3_600.0
"""After it a link is said again: its customer may have been erased meanwhile, and has come back."""


class SaidLinks:
    """The newest links said by this process; to say one again is harmless."""

    def __init__(self, *, max_count: int = LINKS_MAX_COUNT) -> None:
        self._max_count = max_count
        self._said: OrderedDict[str, float] = OrderedDict()

    def news(self, entries: Sequence[LogEntry]) -> list[LogEntry]:
        """`entries` without links said in the last hour, and each other link once."""
        since, fresh, kept = time.monotonic() - SAID_SECONDS, set(), []
        for entry in entries:
            if entry.WhichOneof("fact") == "link":
                pair = _pair(entry)
                if pair in fresh or self._said.get(pair, -1.0) > since:
                    continue
                fresh.add(pair)
            kept.append(entry)
        return kept

    def say(self, entries: Sequence[LogEntry]) -> None:
        """Remember the links among `entries`, which the log has taken."""
        for entry in entries:
            if entry.WhichOneof("fact") == "link":
                self._said[_pair(entry)] = time.monotonic()
                self._said.move_to_end(_pair(entry))
        while len(self._said) > self._max_count:
            self._said.popitem(last=False)

    def __len__(self) -> int:
        return len(self._said)


def _pair(entry: LogEntry) -> str:
    return f"{entry.customer}>{entry.link.target}"
