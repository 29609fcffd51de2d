"""The first administrator's token: made at the first start, and shown once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cloud_hub.access.identify import Access
from cloud_hub.access.principals import Role

_NAME = "first administrator"
_FILE = "admin-token"


def announce_first_token(access: Access, data: Path, announce: Callable[[str], None]) -> None:
    """Make an administrator's token where there never was a token, and show it.

    A service's output goes into a log, where no secret belongs: there the token is left in a file instead.

    Args:
        access: of the hub; one that asks nobody who they are needs no token.
        data: the data folder.
        announce: gets the lines that are shown.
    """
    if access.open or access.tokens.any():
        return
    text = access.tokens.create(_NAME, Role.ADMIN).text
    if "JOURNAL_STREAM" in os.environ:  # systemd sets it where the output is its journal
        path = data / _FILE
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + "\n")
        announce(f"cloud-hub has made an administrator's token: read it from {path}, then remove the file")
    else:
        announce(f"cloud-hub has made an administrator's token, shown this once: {text}")
