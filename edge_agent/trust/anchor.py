"""What a device's trust hangs on: the root that it was enrolled with, and when."""

from __future__ import annotations

import json
from pathlib import Path

from edgeloop.records import dataclass


@dataclass(frozen=True)
class Anchor:
    """What the device was enrolled with.

    Attributes:
        root: metadata of the role ``root``, as pinned then.
        enrolled_at: unix seconds.
        ca: certificates that the hub's is checked against; None: the system's.
    """

    root: bytes
    enrolled_at: float
    ca: Path | None = None


def anchor_of(folder: Path) -> Anchor | None:
    """The anchor in the identity folder, or None where the device was enrolled with none."""
    try:
        root, enrolment = (folder / "root.json").read_bytes(), json.loads((folder / "enrolment.json").read_bytes())
    except FileNotFoundError:
        return None
    ca = folder / "ca.crt"
    return Anchor(root, float(enrolment["enrolled_at"]), ca if ca.is_file() else None)
