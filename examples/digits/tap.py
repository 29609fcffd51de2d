"""A tap on the broker: it keeps every byte of every device, and looks for inputs in them.

That no input leaves a device is shown, not promised: every image that a camera sent is searched for in what
crossed MQTT, in each form in which it could have been written (float32, float64, and bytes of 0…255 or 0…16).
"""

from __future__ import annotations

import ssl
import threading
from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from edgeloop.protocol import Topics
from edgeloop.protocol.link import Link
from examples.digits.data import Images

#: Topics that would carry inputs; nothing may appear there in this example.
INPUT_KINDS = ("samples", "escalations")


class Tap:
    """Subscribes to everything below the fleet's topics and keeps the payloads."""

    def __init__(self, port: int, fleet: str, tls: ssl.SSLContext | None) -> None:
        self._topics = Topics(fleet)
        self._link = Link("127.0.0.1", port, "demo-tap", tls=tls)
        self._lock = threading.Lock()
        self._payloads: list[bytes] = []
        self.bytes_by_kind: Counter[str] = Counter()
        self.messages_by_kind: Counter[str] = Counter()

    def start(self) -> None:
        """Connect, and keep what comes from now on."""
        self._link.subscribe(f"edgeloop/v1/{self._topics.fleet}/#", self._take)
        self._link.start()

    def stop(self) -> None:
        """Disconnect."""
        self._link.stop(5.0)

    def _take(self, topic: str, payload: bytes) -> None:
        kind = topic.rpartition("/")[2] if "/d/" in topic else "channel"
        with self._lock:
            self._payloads.append(payload)
            self.bytes_by_kind[kind] += len(topic) + len(payload)
            self.messages_by_kind[kind] += 1

    @property
    def uplink_bytes(self) -> int:
        """Bytes of topics and payloads that devices published."""
        return sum(self.bytes_by_kind[kind] for kind in ("presence", "reported", "insights", *INPUT_KINDS))

    def inputs_found(self, sent: Iterable[Images]) -> int:
        """How many images of ``sent`` (each float32 [64]) occur in any payload, plus messages meant for inputs."""
        with self._lock:
            captured = b"\x00".join(self._payloads)
        return count_images(captured, list(sent)) + sum(self.messages_by_kind[kind] for kind in INPUT_KINDS)


def count_images(captured: bytes, sent: list[Images]) -> int:
    """How many distinct images occur byte for byte in ``captured``, in any of the forms an uploader would choose."""
    images = {image.tobytes() for image in sent}
    rows = np.stack([np.frombuffer(image, np.float32) for image in images]) if images else np.zeros((0, 64), np.float32)
    forms: list[npt.NDArray[np.generic]] = [
        rows,
        rows.astype(np.float64),
        np.rint(rows * 255).astype(np.uint8),
        np.rint(rows * 16).astype(np.uint8),
        (rows * 16).astype(np.float32),
    ]
    found: set[int] = set()
    for form in forms:
        found |= _find_rows(captured, form)
    return len(found)


def _find_rows(captured: bytes, form: npt.NDArray[np.generic]) -> set[int]:
    """Indices of the rows of ``form`` whose bytes occur in ``captured``.

    Every offset's eight bytes are compared with eight bytes from the middle of each row; only where they agree is
    the whole row compared. That is one sorted look-up a byte instead of one search a row.
    """
    raw = [row.tobytes() for row in form]
    found: set[int] = set()
    if not raw or len(captured) < len(raw[0]):
        return found
    # The eight bytes that a row is known by: its most varied ones, since many pixels are plain black.
    wanted: dict[int, list[tuple[int, int]]] = {}
    for index, row in enumerate(raw):
        at = max(range(0, len(row) - 8, 4), key=lambda start: len(set(row[start : start + 8])))
        wanted.setdefault(int.from_bytes(row[at : at + 8], "little"), []).append((index, at))
    needles = np.sort(np.fromiter(wanted, np.uint64))
    for shift in range(8):
        words = np.frombuffer(captured, np.uint64, count=(len(captured) - shift) // 8, offset=shift)
        for hit in np.flatnonzero(np.isin(words, needles)):
            offset = shift + 8 * int(hit)
            for index, at in wanted[int(words[hit])]:
                if captured[offset - at : offset - at + len(raw[index])] == raw[index]:
                    found.add(index)
    return found
