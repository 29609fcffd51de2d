"""What a person sees: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

LINES = 14


@dataclass
class Row:
    """One device in the table."""

    device: str
    release: str = ""
    state: str = ""
    answered: int = 0
    accuracy: float | None = None


@dataclass
class Scene:
    """Everything that the live view draws."""

    act: str = "Before the curtain"
    rows: list[Row] = field(default_factory=list)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))


class View:
    """``say`` prints a line; on a terminal a table of the devices stands above the latest lines."""

    def __init__(self, refresh: Callable[[], list[Row]]) -> None:
        self._console = Console()
        self._scene = Scene()
        self._refresh = refresh
        self._start = time.monotonic()
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._end = threading.Event()
        self._painter = threading.Thread(target=self._paint, name="view", daemon=True)

    def __enter__(self) -> View:
        """Start drawing."""
        if self._live:
            self._live.start()
            self._painter.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Leave the last picture on the screen."""
        self._end.set()
        if self._live:
            self._painter.join(5.0)
            self._live.stop()

    def act(self, title: str) -> None:
        """A new act begins."""
        self._scene.act = title
        self.say(f"── {title}")

    def say(self, line: str) -> None:
        """One line, with the seconds since the start."""
        line = f"{time.monotonic() - self._start:6.1f} s  {line}"
        self._scene.lines.append(line)
        if not self._live:
            print(line, flush=True)

    def _paint(self) -> None:
        while not self._end.wait(0.4):
            self._scene.rows = self._refresh()
            if self._live:
                self._live.update(self._draw(), refresh=True)

    def _draw(self) -> Group:
        table = Table(expand=True)
        for title in ("device", "release", "update", "answered", "right, of the latest"):
            table.add_column(title)
        for row in self._scene.rows:
            share = "" if row.accuracy is None else f"{row.accuracy:.2f} " + "█" * round(row.accuracy * 20)
            table.add_row(row.device, row.release, row.state, str(row.answered), share)
        return Group(Panel(table, title=self._scene.act), Text("\n".join(self._scene.lines)))
