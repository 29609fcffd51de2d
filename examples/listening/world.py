"""What is around the device: a scanner, a pen, and a house that listens to what comes of them. No HTTP anywhere."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.protocol.link import Link

Image = npt.NDArray[np.float32]
"""A digit: float32 [64] in 0…1."""
PEN, RESULTS, DISCOVERY = "listening/pen", "listening/results", "homeassistant"


class Scanner:
    """Writes digits as PNG files into the folder that the agent watches."""

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        inbox.mkdir(parents=True, exist_ok=True)

    def scan(self, image: Image, name: str) -> None:
        """Have ``<name>.png`` appear, whole."""
        from PIL import Image as Pictures

        hidden = self._inbox / f".{name}.png"
        Pictures.fromarray(np.rint(image.reshape(8, 8) * 255).astype(np.uint8)).save(hidden)
        hidden.rename(self._inbox / f"{name}.png")


class Pen:
    """Publishes digits."""

    def __init__(self, port: int) -> None:
        self._link = Link("127.0.0.1", port, "pen", backoff_s=(0.1, 1.0))
        self._link.start()

    def write(self, image: Image, name: str) -> bool:
        """Publish a digit on its own topic; whether the broker has it."""
        payload = json.dumps({"pixels": [round(float(value), 4) for value in image]}).encode()
        return self._link.confirm(f"{PEN}/{name}", payload)

    def close(self) -> None:
        """Say goodbye to the broker."""
        self._link.stop(2.0)


class House:
    """Hears results, and what Home Assistant would be told of the sensors."""

    def __init__(self, port: int) -> None:
        self._lock = threading.Lock()
        self._results: list[dict[str, Any]] = []
        self._announced: dict[str, bytes] = {}
        self._link = Link("127.0.0.1", port, "house", backoff_s=(0.1, 1.0))
        self._link.subscribe(f"{RESULTS}/+", self._hear(lambda topic, p: self._results.append(json.loads(p))))
        self._link.subscribe(f"{DISCOVERY}/#", self._hear(self._announced.__setitem__))
        self._link.start()

    def results(self) -> list[dict[str, Any]]:
        """All results so far."""
        with self._lock:
            return list(self._results)

    def sensors(self) -> dict[str, dict[str, Any]]:
        """Announced sensors by their unique id."""
        with self._lock:
            found = [json.loads(p) for topic, p in self._announced.items() if topic.endswith("/config")]
        return {sensor["unique_id"]: sensor for sensor in found}

    def available(self) -> bool:
        """Whether the sensors' agent says that it is there."""
        with self._lock:
            return any(p == b"online" for topic, p in self._announced.items() if topic.endswith("/availability"))

    def close(self) -> None:
        """Say goodbye to the broker."""
        self._link.stop(2.0)

    def _hear(self, take: Callable[[str, bytes], None]) -> Callable[[str, bytes], None]:
        def hear(topic: str, payload: bytes) -> None:
            with self._lock:
                take(topic, payload)

        return hear


def logged(path: Path) -> list[dict[str, Any]]:
    """Results in the agent's log; every line but one that is being written is whole."""
    text = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


def named(result: dict[str, Any]) -> str:
    """What a result is about: the name that the scanner or the pen gave."""
    item = result["item"]
    return str(item["file"]).removesuffix(".png") if "file" in item else str(item["topic"]).removeprefix(f"{PEN}/")
