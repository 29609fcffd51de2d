"""A hub's decisions without its network: real records, real packages, devices that answer at once, a clock to turn.

Windows are made by the real observer from what the real sessions answer on real digits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cloud_hub.accuracy import FleetAccuracy
from cloud_hub.alarms import Alarms
from cloud_hub.attestations import Attestations
from cloud_hub.blobs import Blobs
from cloud_hub.channels import Channels
from cloud_hub.devices import Devices
from cloud_hub.drift import DriftWatch
from cloud_hub.insights_store import Additions, InsightStore
from cloud_hub.light_rows import Layout
from cloud_hub.light_windows import LightWindows
from cloud_hub.policy import ChannelPolicy
from cloud_hub.ports import Sealer
from cloud_hub.records.sample_tables import samples
from cloud_hub.releases import Releases
from cloud_hub.rollouts import Rollouts
from cloud_hub.sealing import Unsigned
from cloud_hub.seen import Seen
from cloud_hub.training.head_trainer import HeadTrainer
from cloud_hub.training.runs import Training
from cloud_hub.training.trainer import Trainer
from cloud_hub.trust.key_files import KeyFiles
from cloud_hub.trust.online import OnlineTrust
from cloud_hub.trust.witness import Witness
from edgeloop.insights import Observer, Window, holdout_share
from edgeloop.package import Package, audit
from edgeloop.protocol import ChannelDocument, Presence, Reported, Topics, UpdateReport
from edgeloop.runtime import ModelSession
from examples.digits.data import Slip, Split, load
from tests.doubles.new_records import new_records
from tests.doubles.sealed import channel_document

CHANNEL = "stable"
POLICY = ChannelPolicy.model_validate(
    {
        "rollout": {"steps": [{"devices": 1}, {"share": 1.0}], "bake_s": 2.0, "timeout_s": 30.0},
        "drift": {"min_predictions": 150, "interval_s": 1.0, "consecutive": 2},
        "retraining": {"trigger": "drift", "min_labels": 400, "statistics": "since_alarm", "cooldown_s": 5.0},
        "gate": {"validation_floor": 0.0, "min_improvement": 0.0},
    }
)


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Broker:
    """Remembers the last message of each topic, as a broker does a retained one."""

    def __init__(self) -> None:
        self.last: dict[str, bytes] = {}
        self.sent: list[tuple[str, bytes]] = []
        self.connected = True

    def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> bool:
        self.sent.append((topic, payload))
        self.last[topic] = payload
        return self.connected


@dataclass
class Device:
    """A device that follows the channel document at once, and refuses what it is told to refuse."""

    name: str
    release: str | None = None
    refuses: Callable[[str], str] = lambda digest: ""
    online: bool = True
    update: UpdateReport | None = None
    tried: set[tuple[str, str | None]] = field(default_factory=set)

    def follow(self, document: ChannelDocument) -> bool:
        """Take what the document offers; returns whether there is something new to report."""
        wanted = document.release_for(self.name)
        offered = document.rollout.id if document.rollout and wanted == document.rollout.candidate else None
        if wanted is None or wanted.digest == self.release or (wanted.digest, offered) in self.tried:
            return False
        reason = self.refuses(wanted.digest)
        if reason:
            self.tried.add((wanted.digest, offered))
            self.update = UpdateReport(wanted.digest, "rolled_back", reason, 1, offered)
        else:
            self.release = wanted.digest
            self.update = UpdateReport(wanted.digest, "committed", "", 1, offered)
        return True


class World:
    """A hub in ``folder`` and its devices. `close` it, and make another one on the same folder, to restart the hub.

    Args:
        folder: of the records.
        clock: to be turned.
        devices: of an earlier world.
        signed: whether the fleet has signatures: `trust` then takes what people sign.
        trainers: beside the hub's own `head`.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock | None = None,
        devices: list[Device] | None = None,
        *,
        signed: bool = False,
        trainers: Sequence[Trainer] = (),
    ) -> None:
        self.trainers = trainers
        self.folder, self.clock = folder, clock or Clock()
        self.topics, self.broker = Topics("test"), Broker()
        self.devices_by_name = {device.name: device for device in devices or []}
        self.db = new_records(folder)
        self.blobs = Blobs(folder / "blobs")
        # The audit in a child process has tests of its own; here it would cost a second a release.
        self.releases = Releases(
            self.db,
            self.blobs,
            folder / "releases",
            audit=lambda root, index: audit(root, index=index, allow_hard_links=True),
            clock=self.clock,
        )
        self.sealer: Sealer = self._make_trust() if signed else Unsigned()
        self.channels = Channels(
            self.db,
            self.releases,
            self.topics,
            self.broker,
            hub_url=lambda: "http://hub",
            sealer=self.sealer,
            clock=self.clock,
        )
        if signed:
            self.trust.tells(self.channels.publish_all)
            self.trust.keeps(self.channels.in_use)
        self.devices = Devices(self.db, self.topics, self.broker, sealer=self.sealer, clock=self.clock)
        self.insights = InsightStore(self.db, self.releases.schema, interval_s=1.0, clock=self.clock)
        self.rollouts = Rollouts(self.db, self.channels, self.releases, self.devices, self.insights, clock=self.clock)
        self.alarms = Alarms(self.db)
        self.light = LightWindows(self.db, self._layout_of, clock=self.clock)
        self.drift = DriftWatch(
            self.db, self.channels, self.releases, self.insights, self.alarms, self.light, clock=self.clock
        )
        self.attestations = Attestations(
            self.db,
            folder / "attestations",
            self.releases,
            witness=Witness(self.db, self.trust.keys) if signed else None,
            clock=self.clock,
        )
        self.accuracy = FleetAccuracy(self.channels, self.releases, self.insights, clock=self.clock)
        self.training = self.make_training()
        self._sessions: dict[str, ModelSession] = {}
        self._ids = itertools.count()

    def make_training(self, **more: Any) -> Training:
        """As the hub makes it at its start."""
        return Training(
            self.db,
            self.channels,
            self.releases,
            self.alarms,
            self.accuracy,
            self.rollouts,
            self.folder / "training",
            [HeadTrainer(self.db, self.insights), *self.trainers],
            sealer=self.sealer,
            record=self.attestations.record,
            clock=self.clock,
            **more,
        )

    @property
    def trust(self) -> OnlineTrust:
        """Of a fleet with signatures."""
        assert isinstance(self.sealer, OnlineTrust)
        return self.sealer

    def _make_trust(self) -> OnlineTrust:
        keys = KeyFiles(self.folder / "trust" / "keys")
        keys.ensure()
        trust = OnlineTrust(self.db, keys, clock=self.clock)
        return trust

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()
        self.db.close()

    def _layout_of(self, release: str) -> Layout | None:
        profile = self.releases.profile(release)
        return None if profile is None else Layout(profile.schema, profile.reference)

    # ── releases and devices ──────────────────────────────────────────────────────────────────

    def publish(self, package: Package) -> str:
        """What ``model-export publish`` does, without a channel."""
        for entry in package.index.entries:
            if not self.blobs.has(entry.sha256):
                self.blobs.put_file(package.root / entry.path, entry.sha256)
        return self.releases.publish(package.index.to_bytes()).digest

    def add_device(self, name: str, **settings: Any) -> Device:
        device = Device(name, **settings)
        self.devices_by_name[name] = device
        self.report(device)
        self.let_devices_follow()
        return device

    def report(self, device: Device) -> None:
        """What the device would publish."""
        now = self.clock()
        with self.db.begin() as connection:
            self.devices.take_presence(connection, Presence(device.name, device.online, 1, "test"), now)
            if device.online:
                reported = Reported(device.name, CHANNEL, device.release, update=device.update, clock=now)
                self.devices.take_reported(connection, reported, now)

    def let_devices_follow(self) -> None:
        if (payload := self.broker.last.get(self.topics.channel(CHANNEL))) is None:
            return
        document = channel_document(payload)
        for device in self.devices_by_name.values():
            if device.online and device.follow(document):
                self.report(device)

    # ── what devices see ──────────────────────────────────────────────────────────────────────

    def session(self, digest: str) -> ModelSession:
        if digest not in self._sessions:
            package = self.releases.open(digest)
            variant = next(name for name, spec in package.variants.items() if spec.precision == "fp32")
            self._sessions[digest] = ModelSession.load(package, variant)
        return self._sessions[digest]

    def infer(self, digest: str, images: Any) -> tuple[Any, Any]:
        """Probabilities [N, K] and features [N, F] of a release for images [N, 64]."""
        session = self.session(digest)
        names = [output.name for output in session.outputs]
        found = dict(zip(names, session.run({session.inputs[0].name: images}, names), strict=True))
        features = self.releases.open(digest).meta.features
        assert features is not None
        return session.probabilities(found), found[features]

    def see(self, device: Device, seen: Split, *, labelled: bool = False, errors: int = 0, segment: str = "") -> None:
        """One window of a device: predictions on ``seen``, and their labels where they are given."""
        digest = device.release
        assert digest is not None
        profile = self.releases.profile(digest)
        assert profile is not None
        now = self.clock()
        window = Window.zero(profile.schema, digest, "cpu-fp32", "CPU", now - 1.0, now, segment)
        observer = Observer(profile)
        if len(seen.y):
            probabilities, features = self.infer(digest, seen.x)
            observer.observe(window, seen.x, probabilities, features, np.full(len(seen.y), 50_000))
            if labelled:
                held = np.array([holdout_share(f"id-{next(self._ids)}") for _ in seen.y])
                sure = probabilities.max(axis=1)
                observer.feedback(window, features, probabilities.argmax(axis=1), seen.y, held, confidence=sure)
        observer.error(window, errors)
        self.add(device.name, window)

    def add(self, device: str, window: Window) -> None:
        """What ingest does with a window that it counts."""
        additions = Additions()
        (start,), _ = self.insights.intervals_of([window.end], [0.0], self.clock())
        additions.add(CHANNEL, float(start), window)
        additions.add_labels(device, CHANNEL, float(start), window)
        with self.db.begin() as connection:
            self.insights.add(connection, additions, self.clock())
            self.devices.take_contacts(connection, [device], self.clock())
        self.light.observed(Seen.of(device, CHANNEL, window))

    def sample(self, device: str, prediction: str, size: int = 100) -> None:
        """The record of an input that a device has sent for retraining."""
        now, release = self.clock(), self.channels.get(CHANNEL).current
        texts = {"segment": "", "form": "input", "strategy": "random", "sha256": "", "content": ""}
        numbers = {"epoch": 1, "sequence": next(self._ids), "row": 0, "predicted": 3, "bytes": size}
        figures = {"probability": 0.5, "confidence": 0.4, "taken": now, "received": now}
        whose = {"device": device, "channel": CHANNEL, "release": release, "prediction": prediction}
        with self.db.begin() as connection:
            connection.execute(samples.insert().values(**whose, **texts, **numbers, **figures))

    # ── time ──────────────────────────────────────────────────────────────────────────────────

    def tick(self, seconds: float = 1.0) -> None:
        """Let time pass, and everybody do what is due."""
        self.clock.now += seconds
        self.rollouts.tick()
        self.let_devices_follow()
        self.drift.tick()
        self.train()
        self.let_devices_follow()

    def train(self) -> None:
        """What is due is begun, and done before time goes on."""
        self.training.tick()
        assert self.training.crew.join(60.0)

    def run(self, camera: Camera, seconds: int, *, labelled: bool = False) -> None:
        """A second at a time: every online device sees its digits, then everybody does what is due."""
        for _ in range(seconds):
            for device in self.devices_by_name.values():
                if device.online:
                    self.see(device, camera.next(), labelled=labelled)
            self.tick()


class Camera:
    """Digits in a world that may slip, in random order."""

    def __init__(self, slip: Slip, per_window: int = 60, seed: int = 0) -> None:
        self.slip, self._size = slip, per_window
        self._random = np.random.default_rng(seed)
        self._stream = load().stream

    def next(self) -> Split:
        chosen = self._random.integers(0, len(self._stream.y), self._size)
        return self.slip(
            Split(self._stream.x[chosen], self._stream.y[chosen]), seed=int(self._random.integers(0, 1 << 31))
        )
