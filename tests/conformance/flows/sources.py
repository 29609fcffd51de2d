"""The outside of every kind of source, real: a folder, a broker, tables, a video. A new source passes the kit by it."""

from __future__ import annotations

import csv
import importlib.util
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.flow_settings import SOURCES, read_all
from edge_agent.flows.assembly import make_source
from edge_agent.flows.brokers import Device
from edge_agent.flows.ports import Item, Source
from edgeloop.protocol.link import Link
from tests.integration.brokers import BrokerProcess, broker_or_skip, free_port
from tests.integration.hub_process import wait_for

Row = np.ndarray[Any, np.dtype[np.float32]]
WIDTH = 64


def rows(count: int, seed: int = 0) -> list[Row]:
    """Rows of 64 numbers that a picture of 8 by 8 pixels can hold exactly: multiples of 1/255."""
    random = np.random.default_rng(seed)
    return [(random.integers(0, 256, WIDTH) / np.float32(255)).astype(np.float32) for _ in range(count)]


class SourceWorld(ABC):
    """What is outside a source.

    Attributes:
        asks_again: whether an item that did not come back is given again after a restart.
        same_id: whether it has the same prediction id then.
    """

    asks_again = True
    same_id = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sources: list[Source] = []

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """A ``[[sources]]`` table, without name and sinks."""

    @abstractmethod
    def give(self, row: Row) -> None:
        """Have one item with this row appear."""

    @abstractmethod
    def give_bad(self) -> None:
        """Have an item appear that is no input."""

    def source(self, **more: Any) -> Source:
        """A new source over the same outside and state: what a restart makes."""
        table = {"name": "world", "sinks": ["x"], **self.settings(), **more}
        found = make_source(read_all(SOURCES, [table])[0], self.device(), self.folder / "state")
        self._sources.append(found)
        return found

    def device(self) -> Device:
        return Device("test", "dev-1", "127.0.0.1", 1, None, None)

    def close(self) -> None:
        for source in self._sources:
            source.close()


class FolderWorld(SourceWorld):
    """Arrays in a folder; writers rename, so that a file is whole when it is there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        self._number = 0

    def settings(self) -> dict[str, Any]:
        return {"kind": "folder", "path": str(self.inbox), "settle_s": 0, "poll_s": 0.02, "patterns": ["*.npy"]}

    def give(self, row: Row) -> None:
        self.write(lambda path: np.save(path, row))

    def give_bad(self) -> None:
        self.write(lambda path: path.write_bytes(b"\x93NUMPY nothing of the kind"))

    def write(self, writer: Any, ending: str = ".npy") -> Path:
        self._number += 1
        hidden = self.inbox / f".{self._number:06d}{ending}"
        writer(hidden)
        return hidden.rename(self.inbox / hidden.name[1:])


class PictureWorld(FolderWorld):
    """Pictures in a folder."""

    def settings(self) -> dict[str, Any]:
        picture = {"width": 8, "height": 8, "colours": "grey", "layout": "flat"}
        return {**super().settings(), "patterns": ["*.png"], "picture": picture}

    def give(self, row: Row) -> None:
        from PIL import Image

        pixels = np.rint(row.reshape(8, 8) * 255).astype(np.uint8)
        self.write(lambda path: Image.fromarray(pixels).save(path), ".png")

    def give_bad(self) -> None:
        self.write(lambda path: path.write_text("this is no picture"), ".png")


class CsvWorld(SourceWorld):
    """A table that grows before it is replayed."""

    ending = ".csv"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._rows: list[list[Any]] = []

    @property
    def path(self) -> Path:
        return self.folder / f"table{self.ending}"

    def settings(self) -> dict[str, Any]:
        self.write(self._rows)
        return {"kind": "replay", "path": str(self.path), "mark_s": 0}

    def give(self, row: Row) -> None:
        self._rows.append([repr(float(value)) for value in row])

    def give_bad(self) -> None:
        self._rows.append(["not a number"] * WIDTH)

    def write(self, table: list[list[Any]]) -> None:
        if self.path.exists():
            return
        with self.path.open("w", newline="") as file:
            csv.writer(file).writerows([[f"c{i}" for i in range(WIDTH)], *table])


class ParquetWorld(CsvWorld):
    """The same table, as Parquet."""

    ending = ".parquet"

    def give(self, row: Row) -> None:
        self._rows.append([float(value) for value in row])

    def give_bad(self) -> None:
        self._rows.append([None] * WIDTH)

    def write(self, table: list[list[Any]]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        if not self.path.exists():
            columns = {f"c{i}": pa.array([row[i] for row in table], pa.float64()) for i in range(WIDTH)}
            parquet.write_table(pa.table(columns), self.path)


class MqttWorld(SourceWorld):
    """A topic on a real broker. A message has no name of its own that a repetition could have too."""

    same_id = False

    def __init__(self, folder: Path, broker: BrokerProcess) -> None:
        super().__init__(folder)
        self.broker = broker
        self.topic = f"sensors/{free_port()}"
        self.link = Link("127.0.0.1", broker.port, f"writer-{self.topic}", backoff_s=(0.05, 0.2))
        self.link.start()
        wait_for(lambda: self.link.connected, 20, "the writer's connection")

    def settings(self) -> dict[str, Any]:
        return {"kind": "mqtt", "topic": self.topic, "content": "json", "ahead": 4}

    def device(self) -> Device:
        return Device("test", self.topic.replace("/", "-"), "127.0.0.1", self.broker.port, None, None)

    def source(self, **more: Any) -> Source:
        source = super().source(**more)
        real_open = source.open

        def open_and_wait() -> None:
            # What is published before the first subscription is nobody's.
            real_open()
            wait_for(lambda: not source.trouble, 20, "the source's connection")

        source.open = open_and_wait  # type: ignore[method-assign]
        return source

    def give(self, row: Row) -> None:
        assert self.link.confirm(self.topic, json.dumps([float(value) for value in row]).encode())

    def give_bad(self) -> None:
        assert self.link.confirm(self.topic, b'{"not": "a row"}')

    def close(self) -> None:
        super().close()
        self.link.stop(1.0)


class VideoWorld(SourceWorld):
    """A video: lossless frames of 8 by 8 pixels, each shown for a while."""

    asks_again = False
    same_id = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._frames: list[Any] = []

    def settings(self) -> dict[str, Any]:
        picture = {"width": 8, "height": 8, "colours": "grey", "layout": "flat", "max_pixels": 16 * 16}
        return {"kind": "camera", "device": str(self.write()), "picture": picture}

    def give(self, row: Row) -> None:
        pixels = np.rint(row.reshape(8, 8) * 255).astype(np.uint8)
        self._frames.append(np.repeat(np.repeat(pixels, 2, 0), 2, 1))

    def give_bad(self) -> None:
        """A frame that is larger than the settings allow; a video has frames of one size, so all of it is."""
        self._frames = [np.zeros((64, 64), np.uint8)] * 3

    def write(self) -> Path:
        import cv2

        path = self.folder / "video.avi"
        if not path.exists():
            size = self._frames[0].shape
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 4, size, isColor=False)
            assert writer.isOpened(), "this OpenCV writes no FFV1"
            for frame in self._frames:
                writer.write(frame)
            writer.release()
        return path


KINDS = {
    "folder": FolderWorld,
    "pictures": PictureWorld,
    "csv": CsvWorld,
    "parquet": ParquetWorld,
    "mqtt": MqttWorld,
    "camera": VideoWorld,
}
NEEDS = {"pictures": ("PIL", "pictures"), "parquet": ("pyarrow", "parquet"), "camera": ("cv2", "camera")}


def world_or_skip(kind: str, folder: Path) -> SourceWorld:
    """The outside of a kind, or a skip that says what it needs."""
    module, extra = NEEDS.get(kind, ("json", ""))
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed; pip install 'edgeloop[{extra}]'")
    if kind == "mqtt":
        return MqttWorld(folder, broker_or_skip("mosquitto", folder))
    return KINDS[kind](folder)  # type: ignore[abstract, call-arg]


def take(source: Source, timeout_s: float = 20.0) -> Item:
    """The next item, waited for."""
    found: Item = wait_for(lambda: source.next(0.1), timeout_s, "an item")
    return found
