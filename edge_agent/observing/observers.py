"""Observers of releases: the one that serves, and those that labels may still come for."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edgeloop.insights import Observer, Profile

_KEPT_OBSERVERS = 8


class Observers:
    """Observers by release digest, those of switched-off releases included; from any thread.

    Args:
        profile_of: the profile of a release that is on this device and not loaded, or None.
    """

    def __init__(self, profile_of: Callable[[str], Profile | None]) -> None:
        self._profile_of = profile_of
        self._lock = threading.Lock()
        self._kept: dict[str, Observer] = {}

    def add(self, release: str, observer: Observer) -> None:
        """Keep an observer; the one that was added first goes when there are too many."""
        with self._lock:
            self._kept[release] = observer
            while len(self._kept) > _KEPT_OBSERVERS:
                del self._kept[next(iter(self._kept))]

    def get(self, release: str) -> Observer | None:
        """The observer of a release, or None when its profile is no longer on this device."""
        observer = self._kept.get(release)
        if observer is None:
            profile = self._profile_of(release)
            if profile is not None:
                observer = Observer(profile)
                self.add(release, observer)
        return observer
