"""The one error that leaves this layer for bytes, names and values that are not the protocol's."""

from __future__ import annotations


class ProtocolError(ValueError):
    """Bytes, a topic or a message that the protocol does not allow: the sender is at fault.

    The message names the part that is wrong and the rule that it breaks.
    """
