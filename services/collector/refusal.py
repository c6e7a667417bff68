"""Why an event is not accepted. A refusal concerns one event; the others of its batch go on."""

from typing import ClassVar

from segue.errors import InvalidInput


class Refused(InvalidInput):
    """An event with a field that cannot be used."""

    reason: ClassVar[str] = "INVALID_EVENT"


class EventTooLarge(Refused):
    """An event beyond a limit on its size."""

    reason = "EVENT_TOO_LARGE"


class ConsentWithheld(Refused):
    """An event of somebody who does not want a profile: nothing is wrong with it, and nothing of it is kept."""

    reason = "CONSENT_WITHHELD"
