"""What a source could not use, with the reason: ``rejected.jsonl`` in its folder, for people. Bounded."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

from edge_agent.flows.lines import LinesFile
from edge_agent.flows.ports import Item

MAX_BYTES, KEEP = 1 << 20, 1
#: Of what was rejected so much is kept, to look at.
MOST_PAYLOAD = 4096


class Rejects:
    """Appends to the file; raises `Trouble` where it cannot."""

    def __init__(self, state: Path) -> None:
        self._file = LinesFile(state / "rejected.jsonl", MAX_BYTES, KEEP)

    def add(self, item: Item, reason: str, payload: bytes = b"") -> None:
        """Note one."""
        document = {"time": round(time.time(), 3), "item": dict(item.about), "reason": reason, "bytes": len(payload)}
        if payload:
            document["payload_base64"] = base64.b64encode(payload[:MOST_PAYLOAD]).decode()
        self._file.append(json.dumps(document, separators=(",", ":")).encode())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
