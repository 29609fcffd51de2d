"""The open windows: one for each release and segment, closed by the timer, by a newer release, or by hand.

The end is the wall clock's at closing; the start is the end less what the monotonic clock has measured, so that an end
is never before its start, and a clock that was set right meanwhile is right for all of the window.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.clock import Clock
from edgeloop.insights import Window, WindowSchema
from edgeloop.records import dataclass

# Requests that were in flight when the release was switched end within this time; then its window is closed.
STRAGGLERS_S = 1.0
# A release that was left and answers after so long is no straggler: the device went back to it.
RETURNS_S = 10.0
MIXED = "mixed"
Key = tuple[str, str]
"""Release and segment."""


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
        clock: the device's.
    """

    def __init__(self, window_s: float, clock: Clock) -> None:
        self._window_s, self._clock = window_s, clock
        self._open: dict[Key, OpenWindow] = {}
        self._current = ""
        self._current_since = 0.0
        #: Releases that were left, and when.
        self._left: dict[str, float] = {}

    def serving(self, release: str, segment: str, schema: WindowSchema, variant: str, provider: str) -> Window:
        """The window of a release that answers requests now."""
        if release != self._current:
            self._follow(release)
        opened = self._of(release, segment, schema)
        window = opened.window
        if not window.variant:
            window.variant, window.provider = variant, provider
        elif (window.variant, window.provider) != (variant, provider):
            window.variant = variant if window.variant == variant else MIXED
            window.provider = provider if window.provider == provider else MIXED
        return window

    def late(self, release: str, segment: str, schema: WindowSchema) -> Window:
        """The window of a release for which a label has come; it may have been switched off long ago."""
        return self._of(release, segment, schema).window

    def busy(self) -> Window | None:
        """A window of the release that serves now which has counted since the last checkpoint, or None."""
        for (release, _), opened in self._open.items():
            if release == self._current and opened.changed:
                return opened.window
        return None

    def take_due(self, now: float, everything: bool) -> list[Window]:
        """Remove and return the windows that are to be closed; an empty one just goes."""
        due = [key for key, opened in self._open.items() if everything or now >= self._due(key[0], opened)]
        return [self._stamped(self._open.pop(key), now) for key in due]

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
            key = (window.release, window.segment)
            opened = self._open.get(key)
            if opened is None:
                self._open[key] = OpenWindow(window, now - (window.end - window.start))
            else:
                opened.window = window.merge(opened.window)
                opened.opened = min(opened.opened, now - (window.end - window.start))
        for opened in self._open.values():
            opened.changed = True

    def _follow(self, release: str) -> None:
        """Another release answers: it serves now, unless it was left so lately that these are its last requests."""
        now = self._clock.monotonic()
        self._left = {name: since for name, since in self._left.items() if now - since < RETURNS_S}
        if release not in self._left:
            self._left[self._current] = now
            self._current, self._current_since = release, now

    def _of(self, release: str, segment: str, schema: WindowSchema) -> OpenWindow:
        key = (release, segment)
        opened = self._open.get(key)
        if opened is None:
            window = Window.zero(schema, release=release, segment=segment)
            opened = self._open[key] = OpenWindow(window, self._clock.monotonic())
        opened.changed = True
        return opened

    def _due(self, release: str, opened: OpenWindow) -> float:
        due = opened.opened + self._window_s
        if release != self._current and opened.opened <= self._current_since:
            due = min(due, self._current_since + STRAGGLERS_S)
        return due

    def _stamped(self, opened: OpenWindow, now: float) -> Window:
        window = opened.window
        window.end = self._clock.wall()
        window.start = window.end - max(now - opened.opened, 0.0)
        return window
