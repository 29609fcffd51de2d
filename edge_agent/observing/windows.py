"""The open windows: one a release, closed by the timer, by a newer release, or by hand.

The start is the wall clock's; the end is the start plus what the monotonic clock has measured since, so that an end is
never before its start, whatever happens to the wall clock meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from edgeloop.insights import Window, WindowSchema
from edgeloop.records import dataclass

# Requests that were in flight when the release was switched end within this time; then its window is closed.
STRAGGLERS_S = 1.0
MIXED = "mixed"


@dataclass
class OpenWindow:
    """A window that still counts, and when it was opened on the monotonic clock."""

    window: Window
    opened: float
    changed: bool = False


class OpenWindows:
    """The open windows. Not thread-safe: the recorder's lock guards them.

    Args:
        window_s: seconds after which a window is closed.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._open: dict[str, OpenWindow] = {}
        self._current = ""
        self._current_since = 0.0
        self._left: set[str] = set()

    def serving(self, release: str, schema: WindowSchema, variant: str, provider: str) -> Window:
        """The window of a release that answers requests now."""
        if release != self._current and release not in self._left:
            self._left.add(self._current)
            self._current, self._current_since = release, time.monotonic()
        opened = self._of(release, schema)
        window = opened.window
        if not window.variant:
            window.variant, window.provider = variant, provider
        elif (window.variant, window.provider) != (variant, provider):
            window.variant = variant if window.variant == variant else MIXED
            window.provider = provider if window.provider == provider else MIXED
        return window

    def late(self, release: str, schema: WindowSchema) -> Window:
        """The window of a release for which a label has come; it may have been switched off long ago."""
        return self._of(release, schema).window

    def busy(self) -> Window | None:
        """The window of the release that serves now, if it has counted since the last checkpoint."""
        opened = self._open.get(self._current)
        return opened.window if opened is not None and opened.changed else None

    def take_due(self, now: float, everything: bool) -> list[Window]:
        """Remove and return the windows that are to be closed; an empty one just goes."""
        due = [release for release, opened in self._open.items() if everything or now >= self._due(release, opened)]
        return [self._stamped(self._open.pop(release), now) for release in due]

    def copies(self, now: float) -> list[Window]:
        """Copies of the windows that have changed since the last copies, for a checkpoint."""
        copies = []
        for opened in self._open.values():
            if opened.changed:
                opened.changed = False
                copies.append(self._stamped(opened, now).copy())
        return copies

    def put_back(self, windows: Sequence[Window], now: float) -> None:
        """What was taken could not be stored: it goes on counting, and all has to be written again."""
        for window in windows:
            opened = self._open.get(window.release)
            if opened is None:
                self._open[window.release] = OpenWindow(window, now)
            else:
                opened.window = window.merge(opened.window)
        for opened in self._open.values():
            opened.changed = True

    def _of(self, release: str, schema: WindowSchema) -> OpenWindow:
        opened = self._open.get(release)
        if opened is None:
            stamp = time.time()
            window = Window.zero(schema, release=release, start=stamp, end=stamp)
            opened = self._open[release] = OpenWindow(window, time.monotonic())
        opened.changed = True
        return opened

    def _due(self, release: str, opened: OpenWindow) -> float:
        due = opened.opened + self._window_s
        if release != self._current and opened.opened <= self._current_since:
            due = min(due, self._current_since + STRAGGLERS_S)
        return due

    def _stamped(self, opened: OpenWindow, now: float) -> Window:
        opened.window.end = opened.window.start + max(now - opened.opened, 0.0)
        return opened.window
