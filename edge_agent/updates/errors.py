"""Why an update does not go on, by whether trying again can help."""

from __future__ import annotations


class UpdateError(Exception):
    """Root of the errors inside an update; the message is the reason that people read."""


class Transient(UpdateError):
    """It may pass: no network, no hub, a full disk. The update waits and tries again.

    Attributes:
        retry_after_s: seconds that the hub asks to wait, at least; 0: it does not say.
    """

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Refused(UpdateError):
    """It will not pass: the release is wrong, or wrong for this device."""


class WrongBytes(Refused):
    """The hub sends other bytes than it was asked for. In a fleet that signs, that is the hub's fault alone."""


class Unvouched(UpdateError):
    """Nobody who may answers for the release as it is offered. It may be offered otherwise: its digest is no fault."""


class Withdrawn(UpdateError):
    """The release is no longer wanted: the channel offers another, or something more urgent came first."""


class LeftByHand(UpdateError):
    """A person has left the release."""
