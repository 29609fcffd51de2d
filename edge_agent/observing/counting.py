"""Counting: answered requests, failed ones and escalations become sums in open windows and kept predictions.

Observing must never cost an answer: what it misses is counted and shown.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from edge_agent.observing.health import HealthSample
from edge_agent.observing.observers import Observers
from edge_agent.observing.picked import Picked
from edge_agent.observing.releases import KnownReleases
from edge_agent.observing.retention import Retention
from edge_agent.observing.scores import Block
from edge_agent.observing.watch import Answered, Watch, Watches
from edge_agent.observing.windows import OpenWindows
from edge_agent.ports import LoadedRelease
from edgeloop.insights import Window
from edgeloop.records import dataclass

log = logging.getLogger(__name__)

_LOGGED_FAILURES = 10


@dataclass(frozen=True)
class Unobserved:
    """Requests that were answered and could not be observed, since the start: for want of a profile, or otherwise."""

    without_profile: int
    failed: int


class Counting:
    """Not thread-safe: the recorder's lock guards it.

    Args:
        windows: the open ones.
        retention: the kept predictions.
        known: what is remembered of releases.
        observers: of releases, those of switched-off ones included.
        watches: of loaded releases.
        picked: rows that were drawn for an audit or chosen for the teacher.
    """

    def __init__(
        self,
        windows: OpenWindows,
        retention: Retention,
        known: KnownReleases,
        observers: Observers,
        watches: Watches,
        picked: Picked,
    ) -> None:
        self._windows, self._retention, self._known = windows, retention, known
        self._observers, self._watches, self._picked = observers, watches, picked
        self._without_profile = self._failed = 0

    @property
    def unobserved(self) -> Unobserved:
        """What was missed."""
        return Unobserved(self._without_profile, self._failed)

    def requests(self, group: Sequence[Answered | Block]) -> None:
        """Count requests, of one release and segment or of several, in the order in which they came."""
        releases, segments = [item[0] for item in group], [item[5] for item in group]
        if releases.count(releases[0]) == segments.count(segments[0]) == len(group):
            self._alike(group)
            return
        # Segments take turns, request by request; counting them one at a time would cost a hundred times as much.
        # What came first stays first, since the release that comes last is the one that serves now.
        kinds: dict[tuple[int, str], list[Answered | Block]] = {}
        for item in group:
            kinds.setdefault((id(item[0]), item[5]), []).append(item)
        for some in kinds.values():
            self._alike(some)

    def escalations(self, rows: Iterable[tuple[str, str]]) -> bool:
        """Count rows that were sent to the hub's teacher, by release and segment; whether any could be."""
        counted = False
        for (release, segment), count in Counter(rows).items():
            facts, observer = self._known.get(release), self._observers.get(release)
            if facts is not None and observer is not None:
                observer.escalation(self._windows.late(release, segment, facts.schema), count)
                counted = True
        return counted

    def health(self, sample: HealthSample) -> None:
        """Note a sample of the device's health with the release that serves, if it has counted anything."""
        window = self._windows.busy()
        observer = self._observers.get(window.release) if window is not None else None
        if window is not None and observer is not None:
            observer.health(window, *sample)

    def _alike(self, group: Sequence[Answered | Block]) -> None:
        """Count requests of one release and segment."""
        loaded, segment = group[0][0], group[0][5]
        watch = self._watches.of(loaded)
        if watch is None:
            self._without_profile += sum(len(item.ids) if isinstance(item, Block) else 1 for item in group)
            return
        watch.observer.clip = self._known.clip_of(loaded.digest)
        session = loaded.session
        window = self._windows.serving(loaded.digest, segment, watch.facts.schema, session.variant, session.provider)
        whole = []
        for item in group:
            if isinstance(item, Block):
                self._observe(loaded, watch, window, item)
            else:
                whole.append(item)
        answered = [item for item in whole if item[3]]
        if len(answered) < len(whole):
            watch.observer.error(window, len(whole) - len(answered))
        if answered:
            for some in watch.by_form(answered):
                self._observe(loaded, watch, window, some)

    def _observe(self, loaded: LoadedRelease, watch: Watch, window: Window, some: Block | Sequence[Answered]) -> None:
        try:
            if isinstance(some, Block):
                batch = watch.observe_scores(loaded, window, some, self._picked.audits)
            else:
                batch = watch.observe(loaded, window, some, self._picked.audits)
        except Exception:  # nothing of them was counted
            if not isinstance(some, Block) and len(some) > 1:
                for one in some:  # an odd request must not cost the others
                    self._observe(loaded, watch, window, [one])
                return
            self._failed += len(some.ids) if isinstance(some, Block) else 1
            if self._failed <= _LOGGED_FAILURES:
                log.exception("a request of release %s could not be observed", loaded.digest)
            return
        self._retention.add(loaded.digest, self._picked.onto(batch))
