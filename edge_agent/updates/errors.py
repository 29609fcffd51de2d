"""Why an update does not go on, by whether trying again can help."""

from __future__ import annotations


class UpdateError(Exception):
    """Root of the errors inside an update; the message is the reason that people read."""


class Transient(UpdateError):
    """It may pass: no network, no hub, a full disk. The update waits and tries again."""


class Refused(UpdateError):
    """It will not pass: the release is wrong, or wrong for this device."""


class Withdrawn(UpdateError):
    """The channel no longer offers the release."""
