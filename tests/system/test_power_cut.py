"""The power goes at every single step that an update makes on the disk: the device serves what it had committed.

One life of a device is played through, with a note of each step on its disk. Then, for each step, the disk is made as a
power cut at that moment may leave it (`tests.doubles.power` says how), and a new agent starts on it: the real one, with
real sessions. The audit runs in the same process, since its child costs a second and protects from nothing here.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edge_agent.serving.dataplane import DataPlane
from edge_agent.updates import UpdateMachine, preparing
from edge_agent.updates.disk import Writing
from edgeloop.package import Package, audit, required_paths
from edgeloop.package.index import hash_file
from edgeloop.protocol import ChannelDocument
from tests.doubles.packages import make_package, new_head
from tests.doubles.plain_hub import PlainHub
from tests.doubles.power import Found, FragileDisk, FragileStore, Killed
from tests.integration.update_child import settings

SOAK = os.environ.get("EDGELOOP_SOAK") == "1"
#: Random cuts; each with its own choice of what survives of the steps that were not synced.
RANDOM_CUTS = 100 if SOAK else 40
#: After so many cuts one device goes through a whole update, to show that it is not stuck.
UPDATE_EVERY = 1 if SOAK else 8


@pytest.fixture(autouse=True)
def _audit_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def audit_here(root: Path, *, timeout_s: float, **named: Any) -> None:
        audit(root, **named)

    monkeypatch.setattr(preparing, "audit_in_child", audit_here)


@pytest.fixture(scope="module")
def hub() -> Iterator[PlainHub]:
    hub = PlainHub()
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Package]:
    folder = tmp_path_factory.mktemp("packages")
    first = make_package(folder / "1")
    made = {"first": first, "wrong": make_package(folder / "wrong", version="9", wrong_golden=True)}
    return made | {f"v{n}": new_head(first, folder / str(n), str(n)) for n in (2, 3, 4, 5)}


class Mortal(UpdateMachine):
    """Its thread may be killed at a step; then the whole process counts as killed."""

    def _run(self) -> None:
        with suppress(Killed):
            super()._run()


class Device:
    """An update machine with a data plane on a data folder."""

    def __init__(self, data: Path, disk: FragileDisk | None = None) -> None:
        self.plane = DataPlane(None, id_prefix="t")
        store = None if disk is None else FragileStore(data / "updates.db", disk)
        self.machine = Mortal(settings(data), self.plane, store=store, disk=disk)
        self.machine.start()

    @property
    def serving(self) -> str | None:
        loaded = self.plane.loaded
        return None if loaded is None else loaded.digest

    def wait(self, state: str, release: str) -> None:
        end = time.monotonic() + 30
        while ((at := self.machine.status()).state, at.release) != (state, release):
            assert time.monotonic() < end, at
            time.sleep(0.003)

    def stop(self) -> None:
        self.machine.stop()
        self.machine.close()
        self.plane.close()


def play(root: Path, hub: PlainHub, packages: dict[str, Package]) -> FragileDisk:
    """A life: a first release, a second, one that is refused, one that a person leaves, and two in a row."""
    disk = FragileDisk(root)
    device = Device(root / "data", disk)
    serial = itertools.count(1)

    def update(name: str, state: str = "committed", rollout: str | None = None) -> None:
        device.machine.follow(hub.offer(packages[name], serial=next(serial), rollout=rollout))
        device.wait(state, packages[name].digest)

    update("first")
    update("v2", rollout="r1")
    update("wrong", "rolled_back", rollout="r2")
    device.machine.go_back("a test").result(10)
    device.wait("rolled_back", packages["v2"].digest)
    update("v3")
    update("first")  # kept as the one before, so its folder is used as it is
    update("v4")
    device.stop()
    return disk


def committed_at(disk: FragileDisk, step: int) -> str | None:
    """What the device had committed when the power went."""
    stored = [what[2] for what in disk.journal.steps[:step] if what[0] == "store"]
    return stored[-1] if stored else None


def check(found: Found, root: Path, committed: str | None, then: Package | None, hub: PlainHub) -> None:
    """An agent starts after the cut: it serves what was committed, byte for byte, and takes the next release."""
    root.mkdir()
    found.write(root)
    device = Device(root / "data")
    try:
        assert device.serving == committed, "it does not serve what it had committed"
        check_bytes(device)
        assert device.machine.committed() == committed
        if then is not None:
            device.machine.follow(hub.offer(then, serial=99))
            device.wait("committed", then.digest)
            assert device.serving == then.digest
            check_bytes(device)
            assert device.machine.previous() == committed
    finally:
        device.stop()


def check_bytes(device: Device) -> None:
    """Every file of what serves is what the release's index says."""
    if (loaded := device.plane.loaded) is None:
        return
    variants = (loaded.session.variant,)
    for entry in required_paths(loaded.package.manifest, loaded.package.index, variants):
        assert hash_file(loaded.package.root / entry.path) == entry.sha256, entry.path


def check_all(cuts: Iterable[tuple[int, Found]], disk: FragileDisk, folder: Path, then: Package, hub: PlainHub) -> int:
    """Check each of the disks once, and with every few of them a whole update; returns how many there were."""
    seen: set[int] = set()
    for step, found in cuts:
        if (mark := found.fingerprint()) in seen:
            continue  # the power may go at many moments that leave the same disk
        seen.add(mark)
        whole = then if len(seen) % UPDATE_EVERY == 0 else None
        try:
            check(found, folder / f"cut-{len(list(folder.iterdir()))}", committed_at(disk, step), whole, hub)
        except AssertionError as error:
            before = disk.journal.steps[step - 1] if step else ("nothing",)
            raise AssertionError(f"cut after step {step}, {before[0]} {before[-1]!s:.80}: {error}") from error
    return len(seen)


def test_a_power_cut_at_any_step_leaves_what_was_committed(
    tmp_path: Path, hub: PlainHub, packages: dict[str, Package]
) -> None:
    """Nothing survives that was not synced."""
    (root := tmp_path / "disk").mkdir()
    (cuts := tmp_path / "cuts").mkdir()
    disk = play(root, hub, packages)
    assert len(disk.journal.steps) > 300
    assert check_all(disk.journal.disks(), disk, cuts, packages["v5"], hub) > 50


def test_a_kill_at_any_step_leaves_what_was_committed(
    tmp_path: Path, hub: PlainHub, packages: dict[str, Package]
) -> None:
    """Everything survives that was done; in the short form every fourth step is looked at."""
    (root := tmp_path / "disk").mkdir()
    (cuts := tmp_path / "cuts").mkdir()
    disk = play(root, hub, packages)
    chosen = itertools.islice(disk.journal.disks(survives=1.0), 0, None, 1 if SOAK else 4)
    assert check_all(chosen, disk, cuts, packages["v5"], hub) > 50


@pytest.mark.parametrize("seed", range(4 if SOAK else 1))
def test_whatever_survives_of_what_was_not_synced(
    tmp_path: Path, hub: PlainHub, packages: dict[str, Package], seed: int
) -> None:
    """Some steps survive and some do not, in any order, and bytes that were not synced may be anything."""
    (root := tmp_path / "disk").mkdir()
    (cuts := tmp_path / "cuts").mkdir()
    disk = play(root, hub, packages)
    chance = random.Random(seed)
    steps = set(chance.sample(range(len(disk.journal.steps) + 1), RANDOM_CUTS))
    chosen = (cut for cut in disk.journal.disks(0.5, chance) if cut[0] in steps)
    assert check_all(chosen, disk, cuts, packages["v5"], hub) > RANDOM_CUTS / 2


def test_killed_in_the_middle_then_updated_then_the_power_goes(
    tmp_path: Path, hub: PlainHub, packages: dict[str, Package]
) -> None:
    """What a killed life has done and not synced, the next one finds, and has to sync before it counts on it."""
    (cuts := tmp_path / "cuts").mkdir()
    for kill_at in itertools.count(3, 2 if SOAK else 14):
        (root := tmp_path / f"disk-{kill_at}").mkdir()
        disk = FragileDisk(root)
        if not killed_at(kill_at, root, disk, hub.offer(packages["first"])):
            break
        reached = len(disk.journal.steps)
        again = Device(root / "data", disk)
        again.machine.follow(hub.offer(packages["first"]))
        again.wait("committed", packages["first"].digest)
        again.stop()
        after = list(disk.journal.disks())[reached:]
        check_all([*after[: -1 : 9 if SOAK else 30], after[-1]], disk, cuts, packages["v5"], hub)
    assert kill_at > 80


def killed_at(step: int, root: Path, disk: FragileDisk, document: ChannelDocument) -> bool:
    """A device follows a document and is killed at a step; False when it was through before."""
    disk.journal.kill_at = step
    device: Device | None = None
    with suppress(Killed):
        device = Device(root / "data", disk)
        device.machine.follow(document)
        while device.machine._thread.is_alive() and device.machine.committed() is None:
            time.sleep(0.003)
    disk.journal.kill_at = None
    if device is not None:  # a killed process takes its sessions and connections along; this one has to be told to
        killed = not device.machine._thread.is_alive()
        device.machine._wishes.stop()
        device.machine._thread.join(10)
        device.machine._store._db.close()
        device.plane.close()
        return killed
    return True


@pytest.mark.parametrize("forgotten", ["files", "folders"])
def test_an_agent_that_forgets_to_sync_would_be_caught(
    tmp_path: Path, hub: PlainHub, packages: dict[str, Package], forgotten: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same check over an agent without its syncs fails: so it can fail."""
    if forgotten == "files":
        monkeypatch.setattr(FragileDisk, "sync_file", lambda self, path: None)
        monkeypatch.setattr("tests.doubles.power._NotedWriting.sync", Writing.sync)
    else:
        monkeypatch.setattr(FragileDisk, "sync_folder", lambda self, path: None)
    (root := tmp_path / "disk").mkdir()
    disk = play(root, hub, packages)
    step, found = list(disk.journal.disks())[-1]
    with pytest.raises(AssertionError, match="does not serve what it had committed"):
        check(found, tmp_path / "cut", committed_at(disk, step), None, hub)
