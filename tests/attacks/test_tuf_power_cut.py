"""The power goes between any two writes: what a device has seen and run is never forgotten, so nothing old comes back.

The update machine and the trust of a device, with its real store; what the child would find is made up, since a child
writes nothing but python-tuf's cache (`test_tuf_freeze` damages that).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.ports import Untrusted, Vouched
from edge_agent.serving.dataplane import DataPlane
from edge_agent.trust.anchor import Anchor
from edge_agent.trust.asking import Examiner, Found, Named, Question, Role
from edge_agent.trust.signed import SignedTrust
from edge_agent.updates import UpdateMachine, preparing
from edge_agent.updates.store import UpdateStore
from edge_agent.updates.vouching import objection, raised
from edgeloop.package import Package, audit
from edgeloop.protocol import ChannelDocument, SignedChannel
from edgeloop.trust.names import CHANNELS, ROOT, ReleasePath, channel_path, parse_release
from tests.doubles.hostile_hub import HostileHub
from tests.doubles.packages import make_package, new_head
from tests.doubles.power import FragileDisk, FragileStore
from tests.doubles.secure_fleet import reference
from tests.integration.hub_process import wait_for
from tests.integration.update_child import settings


class MadeUp(Examiner):
    """Finds what the test says: the version of ``channels``, and every path with its true bytes."""

    def __init__(self) -> None:
        super().__init__(Anchor(b"", 0.0), Path())
        self.version, self.named = 0, dict[str, Named]()

    def examine(self, question: Question, hub: str) -> Found:
        end = time.time() + 1e6
        roles = {ROOT: Role(("r",), 1, None, end), CHANNELS: Role(("c",), self.version, self.version, end)}
        return Found(roles, {path: self.named[path] for path in question.paths}, 0, 0.0)


@pytest.fixture(autouse=True)
def _audit_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def audit_here(root: Path, *, timeout_s: float, **named: Any) -> None:
        audit(root, **named)

    monkeypatch.setattr(preparing, "audit_in_child", audit_here)


@pytest.fixture
def hub() -> Iterator[HostileHub]:
    hub = HostileHub()
    yield hub
    hub.close()


def play(root: Path, hub: HostileHub, story: list[tuple[Package, str]]) -> FragileDisk:
    """A device takes one release after another, each with a version of the metadata of its own."""
    disk, found = FragileDisk(root), MadeUp()
    store = FragileStore(root / "data" / "updates.db", disk)
    trust = SignedTrust(Anchor(b"", 0.0), store, found, device="device", hub=lambda: hub.url, grace_s=lambda: 0.0)
    plane = DataPlane(None, id_prefix="t")
    machine = UpdateMachine(settings(root / "data"), plane, store=store, disk=disk, trust=trust)
    machine.start()
    for number, (package, target) in enumerate(story, start=1):
        hub.add(package)
        size = len(package.index.to_bytes())
        path = parse_release(target)
        ref = reference(path, package.digest, size)
        document = ChannelDocument("stable", number, ref, None, hub.url).to_bytes()
        named = Named(size, package.digest.removeprefix("sha256:"))
        found.named[target] = named
        found.named.setdefault(str(path.base), named)
        found.named[channel_path("stable")] = Named(len(document), _sha256(document))
        found.version = number
        machine.follow(trust.open_channel("stable", SignedChannel(document).to_bytes()))
        wait_for(lambda digest=package.digest: machine.committed() == digest, what=f"{target}: {machine.status()}")
    machine.stop()
    machine.close()
    plane.close()
    return disk


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_floors_after_a_power_cut_at_every_write(tmp_path: Path, hub: HostileHub) -> None:
    first = make_package(tmp_path / "1")
    second, third, head = (new_head(first, tmp_path / str(n), str(n)) for n in (2, 3, 4))
    story = [
        (first, "releases/digits/1"),
        (second, "releases/digits/2"),
        (third, "releases/digits/3"),
        (second, "releases/digits/2"),  # a step back
        (third, "releases/digits/3"),
        (head, "retrained/digits/3/1"),
    ]
    (root := tmp_path / "disk").mkdir()
    disk = play(root, hub, story)
    told = [(package.digest, target) for package, target in story]
    writes = [(number, step[1], step[2]) for number, step in enumerate(disk.journal.steps) if step[0] == "store"]
    assert len(writes) > 40
    history: list[str] = []
    for number, files, committed in writes:
        if committed is not None and (not history or committed != told[len(history) - 1][0]):
            history.append(told[len(history)][1])
            assert told[len(history) - 1][0] == committed, "the story is told in another order"
        cut = tmp_path / f"cut-{number}"
        for name, data in files.items():
            (cut / name).parent.mkdir(parents=True, exist_ok=True)
            (cut / name).write_bytes(data)
        store = UpdateStore(cut / "data" / "updates.db")
        check(store, history, first)
        store.close()
    assert history == [target for _, target in told]


def check(store: UpdateStore, history: list[str], first: Package) -> None:
    """After a cut: the floor is that of all commits so far, and the metadata's that of the offer that is gone for."""
    floors: dict[str, tuple[int, int]] = {}
    for before, now in zip(["", *history], history, strict=False):
        floors = raised(floors, before, now)
    assert store.floors() == floors
    installed = store.committed()
    assert (installed.target if installed is not None else "") == (history[-1] if history else "")
    begun = len(history) + (store.position().state in ("fetching", "verifying", "staged", "testing", "probation"))
    version = store.seen().get(CHANNELS, {}).get("version", 0)
    assert version >= begun, "an offer is gone for whose metadata would be forgotten"
    if len(history) > 2:
        assert objection(Vouched("digits", ReleasePath("digits", 1).order), store.floors(), history[-1], ())


def test_metadata_that_was_seen_before_the_cut_is_a_floor_after_it(tmp_path: Path, hub: HostileHub) -> None:
    store, found = UpdateStore(tmp_path / "updates.db"), MadeUp()
    document = ChannelDocument("stable", 1).to_bytes()
    found.named[channel_path("stable")] = Named(len(document), _sha256(document))
    for version, trusted in ((7, True), (6, False), (7, True), (8, True)):
        trust = SignedTrust(  # another life each time, on the same store
            Anchor(b"", 0.0), store, found, device="device", hub=lambda: hub.url, grace_s=lambda: 0.0
        )
        found.version = version
        if trusted:
            trust.open_channel("stable", SignedChannel(document).to_bytes())
        else:
            with pytest.raises(Untrusted, match="version 6; version 7 was seen before"):
                trust.open_channel("stable", SignedChannel(document).to_bytes())
    store.close()
