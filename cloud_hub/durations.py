"""Lengths of time as people write them on a command line: ``90d``, ``12h``, ``30m``, ``45s``."""

from __future__ import annotations

import re

from cloud_hub.errors import BadRequest

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds_of(text: str) -> float | None:
    """A length of time in seconds; None for ``never``.

    Raises:
        BadRequest: it is no length of time.
    """
    if text == "never":
        return None
    if (match := re.fullmatch(r"(\d{1,6})([smhd])", text)) is None or int(match[1]) == 0:
        raise BadRequest(
            f"{text[:40]!r} is no length of time", "write a number and s, m, h or d, such as 90d, or never"
        )
    return int(match[1]) * _SECONDS[match[2]]
