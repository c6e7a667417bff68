"""The error tree: everything Segue raises on purpose.

`reason` is the UPPER_SNAKE word that callers over gRPC and HTTP receive; `rpc.errors` maps each class to its codes.
"""

from typing import ClassVar, NamedTuple


class SegueError(Exception):
    """Base of all deliberate errors."""

    reason: ClassVar[str] = "INTERNAL"


class Violation(NamedTuple):
    """One thing wrong with an input: `field` is its path (`events[3].kind`), `problem` what is wrong with it."""

    field: str
    problem: str


class InvalidInput(SegueError, ValueError):
    """Input that cannot be accepted as it is; nothing was done with it."""

    reason = "INVALID_INPUT"

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{field}: {problem}" for field, problem in violations))
        self.violations = violations

    @classmethod
    def because(cls, field: str, problem: str) -> "InvalidInput":
        """The error for a single violation."""
        return cls(Violation(field, problem))


class InvalidEvents(InvalidInput):
    """Events whose columns or values cannot be used."""

    reason = "INVALID_EVENTS"


class InvalidHistories(InvalidInput):
    """Histories that cannot be decoded or combined."""

    reason = "INVALID_HISTORIES"


class InvalidSettings(InvalidInput):
    """Configuration a process cannot start with; every problem is listed."""

    reason = "INVALID_SETTINGS"


class BundleError(SegueError):
    """A bundle that is incomplete, altered, or disagrees with the feature registry."""

    reason = "BUNDLE_REJECTED"


class EncoderMismatch(BundleError):
    """Embeddings of one version of the encoder where those of another are expected; they do not share coordinates."""

    reason = "ENCODER_MISMATCH"


class UnknownOutcome(InvalidInput):
    """An outcome no served bundle predicts."""

    reason = "UNKNOWN_OUTCOME"


class StoreUnavailable(SegueError):
    """The online store did not answer; the same call may succeed a moment later."""

    reason = "STORE_UNAVAILABLE"


class StoreCorrupted(SegueError):
    """What the online store holds is not what was written there."""

    reason = "STORE_CORRUPTED"


class LogUnavailable(SegueError):
    """The event log did not answer; the same call may succeed a moment later."""

    reason = "LOG_UNAVAILABLE"


class LakeConflict(SegueError):
    """Another writer took the same entries of the event log to the lake; nothing was written."""

    reason = "LAKE_CONFLICT"


class Unauthenticated(SegueError):
    """The caller did not show a key that is known here."""

    reason = "UNAUTHENTICATED"


class NotFound(SegueError):
    """What was asked for is not here."""

    reason = "NOT_FOUND"


class NotServed(SegueError):
    """The bundle that is served cannot answer this; another one may."""

    reason = "NOT_SERVED"


class Overloaded(SegueError):
    """A bounded queue is full; the same call may succeed a moment later."""

    reason = "OVERLOADED"


class DeadlineExceeded(SegueError):
    """The caller's deadline passed before the answer was ready."""

    reason = "DEADLINE_EXCEEDED"
