"""A hub and devices as real processes, each device behind its own cable, and the account of what each kill has cost."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from edgeloop.package import Package
from tests.doubles.installed import install
from tests.doubles.unruly_cable import UnrulyCable
from tests.integration.agent_process import AgentProcess
from tests.integration.hub_process import HubProcess, wait_for
from tests.system.callers import Answered, Caller

COUNTS = ("predictions", "errors", "feedback", "escalations")
CHECKPOINT_S = 1.0
#: A checkpoint may be so late on a machine whose two cores and one disk twelve processes share, seconds. `make soak`
#: prints what it really was.
LATE_S = 20.0
#: Of the kills of an agent, this share is followed by another one while it starts.
AGAIN = 0.25


@dataclass(frozen=True)
class Counted:
    """A device's own ledger, over all releases."""

    classes: np.ndarray
    labels: int


@dataclass(frozen=True)
class Life:
    """From one start of an agent to its kill.

    Attributes:
        answered: in this life.
        counted: what of it came into the ledger.
        at_risk: what was answered since a checkpoint interval before the kill.
        lost_s: seconds before the kill from which on answers are in no window.
    """

    answered: Answered
    counted: Counted
    at_risk: Answered
    lost_s: float

    @property
    def lost(self) -> int:
        """Rows that were answered and are in no window."""
        return max(0, self.answered.rows - int(self.counted.classes.sum()))

    def check(self) -> None:
        """All was counted once but for what came after the last checkpoint, count by count and class by class."""
        missing = self.answered.classes - self.counted.classes
        assert missing.sum() >= -self.answered.unsure, f"counted what nobody asked for: {self}"
        assert missing.min() >= -self.answered.unsure, f"counted what nobody asked for: {self}"
        assert (missing <= self.at_risk.classes).all(), f"lost more than one checkpoint interval: {self}"
        labels = self.answered.labels - self.counted.labels
        assert -self.answered.unsure_labels <= labels <= self.at_risk.labels, f"labels: {self}"


class Device:
    """An agent, its cable to the broker and its client."""

    def __init__(self, folder: Path, number: int, package: Package, hub: HubProcess) -> None:
        self.name = f"device-{number}"
        self.cable = UnrulyCable(hub.broker_port)
        self.agent = AgentProcess(
            folder / self.name,
            device=self.name,
            hub=f"http://127.0.0.1:{hub.http_port}",
            broker_port=self.cable.port,
            window_s=0.7,
            checkpoint_s=CHECKPOINT_S,
            probation_s=0.3,
        )
        install(package, self.agent.data)
        self.caller = Caller(self.name, self.agent.url, seed=number)
        self.kills = 0
        self.serving_kills = 0
        self.lives: list[Life] = []
        self._answered, self._counted = Answered(), Counted(np.zeros_like(Answered().classes), 0)
        self.in_repair = threading.Lock()
        self.cut = threading.Lock()

    def kill(self, chance: random.Random) -> None:
        """SIGKILL it while it answers, start it again, and see what its ledger says."""
        with self.in_repair:
            moment = time.monotonic()
            self.agent.kill()
            self.kills += 1
            self.serving_kills += 1
            with self.caller.still() as answered:
                if chance.random() < AGAIN:
                    self.agent.spawn()
                    time.sleep(chance.uniform(0.0, 1.5))
                    self.agent.kill()
                    self.kills += 1
                self.agent.start(ready=True)
                self._account(answered, moment)

    def settle(self) -> None:
        """No kill ends this life: all of it has to be in the ledger."""
        with self.caller.still() as answered:
            assert self.agent.http.post("/edgeloop/v1/flush").status_code == 200
            self._account(answered, moment=float("inf"))

    def ledger(self) -> dict[str, dict[str, Any]]:
        """Release → the device's own totals."""
        return dict(self.agent.status()["ledger"]["by_release"])

    def break_cable(self, chance: random.Random) -> None:
        """No network for a while."""
        with self.cut:
            self.cable.cut()
            time.sleep(chance.uniform(0.2, 2.5))
            self.cable.mend()

    def close(self) -> None:
        """Whatever state it is in, it ends."""
        if self.caller.ident is not None:
            self.caller.stop()
        self.agent.close()
        self.cable.cut()

    def _account(self, answered: Answered, moment: float) -> None:
        totals = add_up([self.ledger()])
        classes = sum((own["classes"] for own in totals.values()), np.zeros_like(answered.classes))
        now = Counted(classes, sum(own["feedback"] for own in totals.values()))
        since = Counted(now.classes - self._counted.classes, now.labels - self._counted.labels)
        at_risk = self.caller.since(moment - CHECKPOINT_S - LATE_S)
        life = answered.minus(self._answered)
        lost_s = moment - self.caller.moment_of_last(life.rows - int(since.classes.sum()), moment)
        self.lives.append(Life(life, since, at_risk, lost_s))
        self._answered, self._counted = answered, now


class Fleet:
    """A hub with its broker, and its devices; a release is installed on each, and published in the hub."""

    def __init__(self, folder: Path, package: Package, devices: int) -> None:
        self.hub = HubProcess(folder / "hub")
        self.in_repair = threading.Lock()
        self.devices: list[Device] = []
        try:
            self.hub.start()
            self.publish(package)
            self.devices += [Device(folder, number, package, self.hub) for number in range(devices)]
            for device in self.devices:
                device.agent.spawn()
            for device in self.devices:
                wait_for(lambda: answers(device.agent, "/v2/health/ready"), 120, device.agent.log)  # noqa: B023
        except BaseException:
            self.close()
            raise

    def publish(self, package: Package) -> None:
        """Publish a release, and offer it to all devices at once."""
        files = {entry.sha256: (package.root / entry.path).read_bytes() for entry in package.index.entries}
        digest = self.hub.publish(package.index.to_bytes(), files)
        policy = {"rollout": {"steps": [{"share": 1.0}], "bake_s": 0.0}}
        assert self.hub.api.put("/api/v1/channels/stable", json={"policy": policy}).status_code == 200
        assert self.hub.api.post("/api/v1/channels/stable/releases", json={"digest": digest}).status_code == 200

    def kill_hub(self, chance: random.Random) -> None:
        """SIGKILL the hub, its broker with it, and start it again."""
        with self.in_repair:
            self.hub.kill()
            time.sleep(chance.uniform(0.0, 1.0))
            self.hub.start()

    def kill_broker(self, _chance: random.Random) -> None:
        """SIGKILL the hub's child; the hub has to bring it back by itself."""
        with self.in_repair:
            assert self.hub.process is not None
            for child in psutil.Process(self.hub.process.pid).children(recursive=True):
                # The hub has other children at times (an audit, a training run): only the broker has such a word.
                if any("mosquitto" in word or "amqtt" in word for word in child.cmdline()):
                    child.kill()
            wait_for(lambda: answers(self.hub, "/readyz"), 60, f"the hub to have a broker\n{self.hub.log}")

    def drain(self, timeout_s: float) -> None:
        """Close every open window and wait until the hub has acknowledged all."""
        for device in self.devices:
            device.settle()
        for device in self.devices:
            wait_for(
                lambda: device.agent.status()["outbox"]["windows"] == 0,  # noqa: B023
                timeout_s,
                f"{device.name}'s windows to be acknowledged\n{device.agent.log[-2000:]}\n{self.hub.log[-2000:]}",
            )

    def close(self) -> None:
        """Everything ends."""
        for device in self.devices:
            device.close()
        self.hub.close()


def answers(process: HubProcess | AgentProcess, path: str) -> bool:
    """Whether a program says yes at ``path``."""
    client = process.api if isinstance(process, HubProcess) else process.http
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


def add_up(by_release: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Sums of ledgers, or of the hub's totals, by release: counts, and classes int64 [K]."""
    total: dict[str, dict[str, Any]] = {}
    for own in by_release:
        for release, counts in own.items():
            into = total.setdefault(release, {**dict.fromkeys(COUNTS, 0), "classes": Answered().classes})
            for name in COUNTS:
                into[name] += counts[name]
            into["classes"] += np.asarray(counts["classes"])
    return total
