"""A device of a fleet that signs: real messaging, trust (with its child processes), updates and data plane.

Everything that crosses the broker and the hub's HTTP is in the test's hands.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_agent import messaging
from edge_agent.messaging import Identity, Messaging
from edge_agent.observing.assembly import Observing
from edge_agent.observing.sender import Sender
from edge_agent.ports import Vitals
from edge_agent.serving.dataplane import DataPlane
from edge_agent.trust import latest
from edge_agent.trust.anchor import Anchor
from edge_agent.trust.asking import Examiner
from edge_agent.trust.signed import SignedTrust
from edge_agent.updates import UpdateMachine, preparing
from edge_agent.updates.store import UpdateStore
from edgeloop.package import Package, audit
from edgeloop.protocol import ChannelDocument, Desired, Reported, SignedChannel, SignedDesired, Topics
from edgeloop.protocol.link import Link
from edgeloop.trust.names import CHANNELS, ReleasePath
from tests.doubles.hostile_hub import HostileHub
from tests.doubles.packages import make_package, new_head
from tests.doubles.secure_fleet import SecureFleet, reference
from tests.integration.brokers import broker_or_skip
from tests.integration.hub_process import wait_for
from tests.integration.update_child import settings

FLEET, DEVICE = "fleet", "dev-1"
ENROLLED_DAYS_AGO = 2
#: The hub's way is short here: what a device waits for a real one would make these tests slow.
LIMITS = {"all_s": 6.0, "file_s": 3.0, "silence_s": 1.0, "tries": 3}


class TrustedDevice:
    """The device ``dev-1``, which follows ``stable``.

    Args:
        folder: its data.
        port: of the broker.
        hub: where metadata and files come from.
        root: metadata of the root that it was enrolled with.
        clock: what it believes the time is.
        grace_s: see `expiry_grace_s`.
        models: see `models`.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        hub: HostileHub,
        root: bytes,
        *,
        clock: Callable[[], float] = time.time,
        grace_s: float = 7 * 86400.0,
        models: tuple[str, ...] = (),
    ) -> None:
        self.data = folder
        self.plane = DataPlane(None, id_prefix="t")
        self.store = UpdateStore(folder / "updates.db")
        anchor = Anchor(root, time.time() - ENROLLED_DAYS_AGO * 86400.0)
        self.examiner = Examiner(anchor, folder / "trust", limits=LIMITS)
        self.trust = SignedTrust(
            anchor,
            self.store,
            self.examiner,
            device=DEVICE,
            hub=lambda: hub.url,
            grace_s=lambda: grace_s,
            clock=lambda: clock(),  # noqa: PLW0108  # a test may set another clock later
        )
        own = replace(settings(folder), device=DEVICE, hub=hub.url, models=models)
        self.machine = UpdateMachine(own, self.plane, store=self.store, trust=self.trust)
        self.observing = Observing(folder / "agent.db", window_s=60.0, closed=lambda: None)
        self.messaging = Messaging(
            Identity(FLEET, DEVICE, "stable", "0.1.0"),
            self.observing.store,
            lambda will: Link("127.0.0.1", port, DEVICE, will=will, backoff_s=(0.05, 0.3)),
            self._sender,
            recorder=self.observing.recorder,
            policies={"insights": self.observing.policy.take},
            trust=self.trust,
            ledger=self.observing.ledger,
            vitals=Vitals,
            report_s=0.1,
        )
        self.machine.report_to(self.messaging)
        self.machine.start()
        self.messaging.start(self.machine)

    def _sender(self, link: Link) -> Sender:
        return Sender(
            self.observing.outbox,
            self.observing.store.epoch,
            link,
            device=DEVICE,
            topic=Topics(FLEET).insights(DEVICE),
            channel=lambda: self.messaging.channel,
            pace=self.observing.pace,
        )

    @property
    def serving(self) -> str | None:
        """Digest of what answers clients now."""
        loaded = self.plane.loaded
        return None if loaded is None else loaded.digest

    def stop(self) -> None:
        self.trust.stop(5.0)
        self.messaging.stop(2.0)
        self.machine.stop()
        self.machine.close()
        self.plane.close()
        self.observing.stop()


class Attacker:
    """Whoever owns the broker, and sees what the device reports."""

    def __init__(self, port: int) -> None:
        self.topics = Topics(FLEET)
        self.reported: Reported | None = None
        self.before_sending: Callable[[], None] = lambda: None
        self.link = Link("127.0.0.1", port, "owner", backoff_s=(0.05, 0.3))
        self.link.subscribe(self.topics.reported(DEVICE), self._on_reported)
        self.link.start()
        wait_for(lambda: self.link.connected, what="the broker")

    def _on_reported(self, topic: str, payload: bytes) -> None:
        self.reported = Reported.from_bytes(payload)

    def send(self, topic: str, payload: bytes) -> None:
        self.before_sending()
        assert self.link.publish(topic, payload, retain=True)

    def send_channel(self, sealed: SignedChannel | bytes, channel: str = "stable") -> None:
        payload = sealed if isinstance(sealed, bytes) else sealed.to_bytes()
        self.send(self.topics.channel(channel), payload)

    def forget_channel(self, channel: str = "stable") -> None:
        """The broker has no document of the channel any more: whoever connects is told nothing."""
        assert self.link.confirm(self.topics.channel(channel), b"", retain=True)

    def send_desired(self, sealed: SignedDesired | bytes) -> None:
        self.send(self.topics.desired(DEVICE), sealed if isinstance(sealed, bytes) else sealed.to_bytes())

    def stop(self) -> None:
        self.link.stop(1.0)


class World:
    """A fleet, its hub in somebody's hands, a broker, and one device."""

    def __init__(self, folder: Path, port: int, fleet: SecureFleet, **device: Any) -> None:
        self.fleet, self.hub, self.attacker = fleet, HostileHub(), Attacker(port)
        self.folder, self.port = folder, port
        self._options = device
        self._serial = 0
        self._versions = itertools.count(2)
        self._paths: dict[str, ReleasePath] = {}
        self.current: Package | None = None
        self.device = TrustedDevice(folder, port, self.hub, fleet.pinned, **device)
        self.attacker.before_sending = self.mark
        self.mark()

    def successor(self, package: Package, folder: Path) -> Package:
        """A release with another head; the hub has its files, and nobody has signed it yet."""
        version = next(self._versions)
        made = new_head(package, folder / f"release-{version}", str(version))
        self.hub.add(made)
        return made

    def restart(self, *, stopped: bool = False, **device: Any) -> None:
        """The device again, on the same data; the test may have stopped it, to change what lies there."""
        if not stopped:
            self.device.stop()
        self._options |= device
        self.device = TrustedDevice(self.folder, self.port, self.hub, self.fleet.pinned, **self._options)
        self.mark()

    def publish(self, package: Package, fleet: SecureFleet | None = None) -> ReleasePath:
        """A publisher signs a release."""
        self.hub.add(package)
        return (fleet or self.fleet).release(package.name, package.digest, len(package.index.to_bytes()))

    def document(self, package: Package | None, path: ReleasePath | str | None, **changes: Any) -> ChannelDocument:
        """The channel's next document, with this release as the current one."""
        self._serial += 1
        if package is None:
            return replace(ChannelDocument("stable", self._serial, None, None, self.hub.url), **changes)
        ref = reference(ReleasePath(package.name, 1), package.digest, len(package.index.to_bytes()), package.version)
        ref = replace(ref, target="" if path is None else str(path))
        return replace(ChannelDocument("stable", self._serial, ref, None, self.hub.url), **changes)

    def offer(
        self, package: Package, path: ReleasePath | str | None, fleet: SecureFleet | None = None
    ) -> SignedChannel:
        """Sign and send a document; the hub has all metadata as well."""
        fleet = fleet or self.fleet
        if isinstance(path, ReleasePath):
            self._paths[package.digest] = path
        self.hub.add(package)
        sealed = fleet.channel(self.document(package, path))
        self.hub.mirror(fleet.files)
        self.attacker.send_channel(sealed)
        return sealed

    def wait_committed(self, package: Package) -> None:
        wait_for(lambda: self.device.machine.committed() == package.digest, 30, f"a commit; {self.told()}")
        wait_for(lambda: self.device.serving == package.digest, 10, "what was committed to serve")
        self.current = package

    def install(self, package: Package, path: ReleasePath | None = None) -> ReleasePath:
        """A release in order: published, offered, committed."""
        path = path or self.publish(package)
        self.offer(package, path)
        self.wait_committed(package)
        return path

    def path_of(self, package: Package) -> ReleasePath:
        """Where a release was offered last."""
        return self._paths[package.digest]

    def refusals(self) -> int:
        return self.device.trust.state().refused

    def told(self) -> str:
        """All that a person reads about it."""
        at = self.device.machine.status()
        return f"{at.state}: {at.reason} | {self.device.trust.state().trouble}"

    def mark(self) -> None:
        """What was refused before this moment does not count as what comes next."""
        self._marked = self._refusals_and_state()

    def _refusals_and_state(self) -> tuple[int, float]:
        return self.refusals(), self.device.machine.status().since

    def refused(self, said: str, serves: Package) -> None:
        """What was sent last was refused with this reason, that is told to the hub, and the old release serves."""
        try:
            wait_for(lambda: said in self.told() and self._refusals_and_state() != self._marked, 30)
        except AssertionError:
            raise AssertionError(f"{said!r} was not said, but {self.told()!r}") from None
        assert self.device.serving == serves.digest
        assert self.device.machine.committed() == serves.digest
        reported = wait_for(lambda: self.reports(said), 10, f"{said!r} in the report")
        assert reported.release == serves.digest

    def reports(self, said: str) -> Reported | None:
        """The latest report, if it tells this."""
        found = self.attacker.reported
        if found is None:
            return None
        told = f"{found.update.reason if found.update is not None else ''} {found.health.get('trust', '')}"
        return found if said in told else None

    def close(self) -> None:
        self.device.stop()
        self.attacker.stop()
        self.hub.close()


def signed_desired(fleet: SecureFleet, document: Desired) -> SignedDesired:
    """As the hub signs what it wants of a device."""
    content = document.to_bytes()
    return SignedDesired(content, bytes.fromhex(fleet.online[CHANNELS].sign(content).signature))


def metadata_with(sealed: SignedChannel, changes: Mapping[str, bytes | None]) -> SignedChannel:
    """The same document with other metadata; None takes a file away."""
    files = {name: data for name, data in {**sealed.metadata, **changes}.items() if data is not None}
    return SignedChannel(sealed.document, files)


def forked(fleet: SecureFleet) -> SecureFleet:
    """The same fleet in other hands: what is signed from now on by one is not known to the other."""
    return replace(
        fleet,
        online=dict(fleet.online),
        publishers=dict(fleet.publishers),
        files=dict(fleet.files),
        newest=dict(fleet.newest),
    )


def _audit_here(root: Path, *, timeout_s: float, **named: Any) -> None:
    audit(root, **named)


@contextmanager
def world_with_release(
    folder: Path, *models: str, audit_in_child: bool = False, **device: Any
) -> Iterator[tuple[World, Package, ReleasePath]]:
    """A world whose device runs the first release of ``digits``, on a broker of its own; or a skip.

    Args:
        folder: for all that it has.
        models: other models that have a publisher.
        audit_in_child: as in earnest; it costs a second for each release, and few attacks get that far.
        device: see `TrustedDevice`.
    """
    broker = broker_or_skip("mosquitto", folder)
    patch = pytest.MonkeyPatch()
    patch.setattr(latest, "LONGEST_REST_S", 0.1)  # attacks come one after another here
    patch.setattr(messaging, "DEBOUNCE_S", 0.02)
    if not audit_in_child:
        patch.setattr(preparing, "audit_in_child", _audit_here)
    world = World(folder / "data", broker.port, SecureFleet.make("digits", *models), **device)
    try:
        package = make_package(folder / "first")
        yield world, package, world.install(package)
    finally:
        world.close()
        broker.kill()
        patch.undo()
