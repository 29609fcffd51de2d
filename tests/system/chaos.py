"""Kills programs at random moments, and starts them again, as a watchdog or an operator would."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter

import psutil

from examples.digits.fleet import Fleet


class Chaos(threading.Thread):
    """Sends SIGKILL to an agent, the hub or its broker child, one at a time, ``kills`` times."""

    def __init__(self, fleet: Fleet, *, kills: int, seed: int, pause_s: tuple[float, float] = (0.3, 2.0)) -> None:
        super().__init__(name="chaos", daemon=True)
        self.fleet, self.kills, self._pause_s = fleet, kills, pause_s
        self.log: list[str] = []
        self.killed: Counter[str] = Counter()
        self._random = random.Random(seed)
        fleet.expect_kills = True

    def run(self) -> None:
        """All kills; ends with every program running."""
        for _ in range(self.kills):
            time.sleep(self._random.uniform(*self._pause_s))
            victim = self._random.choice(["agent", "agent", "hub", "broker"])
            self.killed[victim] += 1
            self.log.append(victim)
            if victim == "broker":
                self._kill_broker()
                continue
            agent = self._random.choice(self.fleet.agents)
            program = self.fleet.hub if victim == "hub" else agent.program
            # One that was killed before it had opened its database has lost nothing and has nothing to report.
            self.killed["serving agent"] += victim == "agent" and _answers(agent.port)
            program.kill()
            time.sleep(self._random.uniform(0.0, 1.0))
            program.start()

    def _kill_broker(self) -> None:
        """The broker is the hub's child, which the hub must bring back by itself."""
        if self.fleet.hub.alive:
            for child in psutil.Process(self.fleet.hub.pid).children(recursive=True):
                # The hub has other children at times (an audit, a training run): only the broker listens.
                if any("mosquitto" in word or "amqtt" in word for word in child.cmdline()):
                    child.kill()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
