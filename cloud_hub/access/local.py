"""Whoever can read the data folder may do everything: a secret in it, new at each start, for commands on this machine.

``cloud-hub tokens`` and its like ask the hub that runs, since its records have one writer. The secret is worth nothing
once the process that wrote it has ended, so an old file tells a stranger nothing.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cloud_hub.access.tokens import PREFIX
from cloud_hub.errors import NotFound

_FILE = "local.json"


class LocalKey:
    """The secret of this start of a hub.

    Args:
        data: the hub's data folder.
    """

    def __init__(self, data: Path) -> None:
        self._path = data / _FILE
        self._text = f"{PREFIX}local_{secrets.token_hex(32)}"

    def write(self, url: str) -> None:
        """Leave address and secret for the owner of the folder alone."""
        self._path.unlink(missing_ok=True)
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump({"url": url, "token": self._text}, file)

    def remove(self) -> None:
        """Nothing listens any more."""
        self._path.unlink(missing_ok=True)

    def is_this(self, text: str) -> bool:
        """Whether a client showed this start's secret."""
        return hmac.compare_digest(text.encode(), self._text.encode())


@dataclass(frozen=True)
class LocalHub:
    """The hub that runs on a data folder: its address on this machine, and what it takes from the folder's owner."""

    url: str
    token: str


def find_local(data: Path) -> LocalHub:
    """Read what the hub on a data folder left; raises `NotFound` where none runs."""
    try:
        found = json.loads((data / _FILE).read_text("utf-8"))
        return LocalHub(str(found["url"]), str(found["token"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotFound(
            f"no hub runs on the data folder {data}, or it is not yours to read",
            "start it with cloud-hub serve, or name its folder with --data",
        ) from error
