"""The intake: how much may be under way at once. What is beyond is refused at once, so that memory stays bounded."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from segue.errors import Overloaded


class Intake:
    """Counts requests under way and the bytes they came with."""

    def __init__(self, *, max_bytes: int, max_count: int) -> None:
        self._max_bytes = max_bytes
        self._max_count = max_count
        self.bytes_held = 0
        self.count = 0
        self._last_seconds = -float("inf")

    @contextmanager
    def hold(self, bytes_held: int) -> Iterator[None]:
        """One request of `bytes_held` bytes is under way.

        Raises:
            Overloaded: it would be one too many, or too much.
        """
        self._last_seconds = time.monotonic()
        if self.count >= self._max_count or self.bytes_held + bytes_held > self._max_bytes:
            raise Overloaded
        self.count += 1
        self.bytes_held += bytes_held
        try:
            yield
        finally:
            self.count -= 1
            self.bytes_held -= bytes_held

    def quiet(self, seconds: float) -> bool:
        """Whether nothing is under way, and nothing came in the last `seconds`."""
        return self.count == 0 and time.monotonic() - self._last_seconds >= seconds
