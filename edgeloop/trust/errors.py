"""The errors that leave this layer: metadata that are not what they should be."""

from __future__ import annotations


class TrustError(ValueError):
    """Metadata, a key or a change of them that the rules of a fleet's repository do not allow.

    The message names the role and the rule.
    """


class UnsignedError(TrustError):
    """Signatures of keys that the role has are missing; more of them would make it right.

    Attributes:
        missing: how many.
    """

    def __init__(self, message: str, missing: int) -> None:
        super().__init__(message)
        self.missing = missing


class OutdatedError(TrustError):
    """A change was made on a version that is no longer the newest: make it again on the newest."""
