"""The hub's errors, by who is at fault. What HTTP makes of them is in ``cloud_hub.api.errors``."""

from __future__ import annotations


class HubError(Exception):
    """Root of what the hub refuses.

    Args:
        message: what is wrong.
        hint: what to do about it; may be empty when the message says it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class NotFound(HubError):
    """The caller named something that the hub does not have."""


class Conflict(HubError):
    """The request is well-formed, and the present state does not allow it."""


class BadRequest(HubError):
    """The caller sent something that is not what it has to be."""


class Unauthorized(HubError):
    """The caller showed a secret that is none, or is none any more."""


class Forbidden(HubError):
    """The caller has no right to this."""


class TooLarge(HubError):
    """The caller sent more than the hub takes."""


class StorageFull(HubError):
    """The hub's own disk is full, or cannot be written: the operator has to act, the caller may repeat."""


class AuthorityError(HubError):
    """A certificate could not be issued: the authority outside of the hub does not answer as it should."""


class StartError(HubError):
    """The hub cannot start with these settings on this machine: the operator has to act.

    Args:
        message: what is wrong.
        hint: what to do about it.
        code: a number of ``cloud_hub.exit_codes``.
    """

    def __init__(self, message: str, hint: str, code: int) -> None:
        super().__init__(message, hint)
        self.code = code
