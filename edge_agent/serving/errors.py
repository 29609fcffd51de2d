"""What a client can get instead of an answer, by who is at fault. Doors choose the codes."""

from __future__ import annotations


class ServingError(Exception):
    """Root of the errors that leave the data plane and the codec; the message says what to do."""


class BadRequest(ServingError):
    """The request is wrong: its form, a name, a datatype, a shape."""


class NotFound(ServingError):
    """There is no such model or version."""


class NotReady(ServingError):
    """No release serves yet."""


class Busy(ServingError):
    """Too many requests wait already; a later try may do."""


class DeadlinePassed(ServingError):
    """The client's time, or the agent's own, was over before there was an answer."""


class Forbidden(ServingError):
    """The owner of the device has not allowed this."""


class ModelFailed(ServingError):
    """The model failed on a request that fits it."""


class Conflict(ServingError):
    """It cannot be done as things stand."""
