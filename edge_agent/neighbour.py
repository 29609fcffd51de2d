"""A well-behaved neighbour: looks at the device now and then, and has the parts of the agent hold back under strain."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path

from edge_agent.logs import Log
from edge_agent.strain import Level, Readings, Strain, StrainRules, holds_updates, judge
from edge_agent.sysfs import SYS_CLASS, hottest_celsius, power
from edgeloop.runtime.memory import resident_bytes, trim_memory

log = Log(__name__)

#: Heat and charge change slowly; a look costs about a millisecond.
LOOK_S = 10.0


class Neighbour:
    """Watches heat, battery and memory on a thread of its own."""

    def __init__(
        self,
        rules: StrainRules,
        *,
        root: Path = SYS_CLASS,
        resident: Callable[[], int | None] = resident_bytes,
    ) -> None:
        """Nothing runs before `start`.

        Args:
            rules: the owner's.
            root: the folder of ``thermal`` and ``power_supply``.
            resident: gives the agent's resident memory, bytes, or None.
        """
        self._rules, self._root, self._resident = rules, root, resident
        self._observers: list[Callable[[Strain], None]] = []
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="neighbour", daemon=True)
        #: The latest decision.
        self.strain = Strain()

    def watch(self, observer: Callable[[Strain], None]) -> None:
        """Have a part told of each change, from the thread of the looks; it should hold back, or need not any more."""
        self._observers.append(observer)

    def use(self, rules: StrainRules) -> None:
        """Go on with other limits; the device is looked at again soon."""
        self._rules = rules
        self._wake.set()

    def start(self) -> None:
        """Look at once, then on the thread."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)

    def holds_updates(self, first: bool) -> str:
        """Why an update has to wait, or ""; ``first``: whether nothing serves yet."""
        return holds_updates(self.strain, first=first)

    def look(self) -> Strain:
        """Look at the device, and tell whoever watches when the level has changed."""
        before = self.strain
        found = judge(self._rules, self._read(), before)
        if found.by.get("memory", Level.NORMAL):
            # Often it is only memory that was freed and not given back; if so the next look finds that.
            gc.collect()
            trim_memory()
        self.strain = found
        if found.level != before.level:
            log.warning("strain", level=found.level.name.lower(), reason=found.reason or "over")
            for observer in self._observers:
                observer(found)
        return found

    def _read(self) -> Readings:
        charge = power(self._root)
        return Readings(
            celsius=hottest_celsius(self._root),
            battery_percent=None if charge is None else charge.percent,
            emptying=charge is not None and charge.emptying,
            resident_bytes=self._resident() if self._rules.max_memory_bytes else None,
        )

    def _run(self) -> None:
        while True:
            self._wake.wait(LOOK_S)
            self._wake.clear()
            if self._stopping:
                return
            try:
                self.look()
            except Exception:
                log.exception("the device could not be looked at; trying again")
