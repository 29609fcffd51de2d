"""What befalls a fleet: kills of agents, hub and broker, and cuts of the network, at random moments."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from tests.system.fleet import Device, Fleet

#: Between two mishaps, seconds.
PAUSE_S = (0.1, 0.8)


class Chaos:
    """Mishaps, several under way at once. Each round has every kind of them, in an order of its own.

    Attributes:
        happened: number of mishaps by kind.
    """

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.happened: Counter[str] = Counter()
        self._fleet = fleet
        self._chance = random.Random(seed)
        self._threads = ThreadPoolExecutor(2 * len(fleet.devices) + 2, thread_name_prefix="chaos")
        self._under_way: list[Future[None]] = []

    def round(self, agents: int) -> None:
        """Kills of so many agents, of the hub and of the broker, cuts of one cable and of all."""
        kinds = ["agent"] * agents + ["hub", "broker", "one cable", "all cables"]
        self._chance.shuffle(kinds)
        for kind in kinds:
            time.sleep(self._chance.uniform(*PAUSE_S))
            self.happened[kind] += 1
            match kind:
                case "agent":
                    self._start(self._someone().kill)
                case "hub":
                    self._start(self._fleet.kill_hub)
                case "broker":
                    self._start(self._fleet.kill_broker)
                case "one cable":
                    self._start(self._someone().break_cable)
                case _:
                    for device in self._fleet.devices:
                        self._start(device.break_cable)
        # A mishap whose victim was being mended already has waited for it: what waits does not pile up.
        self.wait()

    def wait(self) -> None:
        """Until everything that was broken is mended; raises what a mishap has met."""
        under_way, self._under_way = self._under_way, []
        for future in under_way:
            future.result(600)

    def _someone(self) -> Device:
        return self._chance.choice(self._fleet.devices)

    def _start(self, mishap: Callable[[random.Random], None]) -> None:
        self._under_way.append(self._threads.submit(mishap, random.Random(self._chance.random())))
