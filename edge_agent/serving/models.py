"""The models that serve: which release answers to a name, and when what an old one holds is freed.

A request holds the release that it began on. What takes its place is for those that come later; the old one's session
is closed when its last request has ended. So a switch loses none, and waits for none.
"""

from __future__ import annotations

import itertools
import threading

from edge_agent.serving.errors import NotFound, NotReady
from edge_agent.serving.scheduler import Served

NOTHING_SERVES = "no release serves yet; `edge-agent status` says what the update is waiting for"


class Models:
    """The channel's release, and other models beside it.

    Attributes:
        lock: guards all of this, and the counts of every slot.
        main: the channel's release; None: there is none yet.
        current: model → the version that serves; what requests look up.
        exact: (model, version) → each that serves.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.main: Served | None = None
        self.current: dict[str, Served] = {}
        self.exact: dict[tuple[str, str], Served] = {}
        self._others: dict[tuple[str, str], Served] = {}
        self._gently = False

    def switch(self, served: Served | None) -> None:
        """Make another release the channel's; None: none."""
        with self.lock:
            old, self.main = self.main, served
            idle = self._replaced(old)
        if idle is not None:
            self.end(idle)

    def add(self, served: Served) -> None:
        """Serve another model, or another version; one of the same name and version is replaced."""
        key = (served.slot.model, served.slot.version)
        with self.lock:
            old = self._others.pop(key, None)
            self._others[key] = served
            idle = self._replaced(old)
        if idle is not None:
            self.end(idle)

    def remove(self, model: str, version: str) -> bool:
        """Serve a model no more that was added; returns whether there was one."""
        with self.lock:
            old = self._others.pop((model, version), None)
            idle = self._replaced(old)
        if idle is not None:
            self.end(idle)
        return old is not None

    def others(self) -> list[tuple[str, str]]:
        """Name and version of each model that was added."""
        with self.lock:
            return list(self._others)

    def all(self) -> list[Served]:
        """Every one, those as well that nobody can ask for by name."""
        with self.lock:
            return self._all()

    def ease(self, gently: bool) -> None:
        """Run one batch of each model at a time, since the device is under strain; or as the rules say again."""
        with self.lock:
            self._gently = gently
            for served in self.exact.values():
                served.scheduler.ease(gently)

    def find(self, model: str, version: str | None) -> Served:
        """Who answers to a name. The caller holds the lock.

        Raises:
            NotFound: there is no such model or version.
            NotReady: no release serves yet.
        """
        found = self.current.get(model) if version is None else self.exact.get((model, version))
        if found is not None:
            return found
        if self.main is None and model not in self.current:
            raise NotReady(NOTHING_SERVES)
        asked = f"model {model:.200}" + ("" if version is None else f", version {version:.200}")
        there = "; ".join(f"{name}, version {known}" for name, known in itertools.islice(self.exact, 16))
        raise NotFound(f"there is no {asked}; {there}, serves")

    def leave(self, served: Served) -> None:
        """A request has ended."""
        with self.lock:
            last = self.left(served)
        if last:
            self.end(served)

    def left(self, served: Served) -> bool:
        """A request has ended; returns whether `end` has to be called. The caller holds the lock."""
        slot = served.slot
        slot.in_flight -= 1
        return slot.retired and slot.in_flight == 0

    def end(self, served: Served) -> None:
        """Free what a release holds that serves no more, and whose requests have ended."""
        served.scheduler.close()
        session = served.slot.loaded.session
        if all(other.slot.loaded.session is not session for other in self.all()):
            session.close()

    def _replaced(self, old: Served | None) -> Served | None:
        """Look-up tables for what serves now; returns the old one if nothing runs on it. The caller holds the lock."""
        everything = self._all()
        everything.sort(key=lambda served: (served is self.main, version_order(served.slot.version)))
        self.current = {served.slot.model: served for served in everything}
        self.exact = {(served.slot.model, served.slot.version): served for served in everything}
        for served in everything:
            served.scheduler.ease(self._gently)
        if old is None:
            return None
        old.slot.retired = True
        return old if old.slot.in_flight == 0 else None

    def _all(self) -> list[Served]:
        return [*self._others.values(), *([self.main] if self.main is not None else [])]


def version_order(version: str) -> tuple[tuple[int, int | str], ...]:
    """Order of versions: numbers in them count as numbers, so that 10 comes after 9."""
    parts = "".join(c if c.isdigit() else f"\0{c}\0" for c in version).split("\0")
    return tuple((1, int(part)) if part.isdigit() else (0, part) for part in parts if part)
