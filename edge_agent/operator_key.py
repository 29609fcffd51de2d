"""The operator's key: whoever may read the agent's data folder may command the agent over HTTP, and nobody else.

The door is open to every program of the device, and on some devices to a network; a page in somebody's browser can send
it requests as well. What changes which release serves has to come from a person who has a right to it.
"""

from __future__ import annotations

import os
from pathlib import Path

NAME = "operator.key"
#: HTTP header in which the key is sent.
HEADER = "Edgeloop-Key"


def make_key(data: Path) -> str:
    """The data folder's key; a new one, readable by the agent's user alone, where there is none.

    Raises:
        OSError: it can be neither read nor written.
    """
    if (key := read_key(data)) is not None:
        return key
    key = os.urandom(24).hex()
    descriptor = os.open(data / NAME, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    return key


def read_key(data: Path) -> str | None:
    """The data folder's key, or None where it has none, or a damaged one.

    Raises:
        OSError: it may not be read.
    """
    try:
        key = (data / NAME).read_text()
    except FileNotFoundError:
        return None
    return key if len(key) == 48 and key.isalnum() else None
