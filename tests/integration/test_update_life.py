"""The update machine with the real data plane, real packages and a real HTTP server."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.ports import UpdateStatus
from edge_agent.serving.calls import Answer, Call
from edge_agent.serving.dataplane import DataPlane
from edge_agent.updates import UpdateMachine, UpdateSettings, disk, rules
from edge_agent.updates.fetch import FetchLimits
from edge_agent.updates.rules import MOST_ENDS
from edge_agent.updates.testing import TestingRules
from edgeloop.package import Package, required_paths
from tests.doubles.packages import make_package, new_head
from tests.doubles.plain_hub import PlainHub
from tests.integration.update_child import settings


@pytest.fixture
def hub() -> Iterator[PlainHub]:
    hub = PlainHub()
    yield hub
    hub.close()


class Device:
    def __init__(self, data: Path, own: UpdateSettings | None = None, clock: Callable[[], float] = time.time) -> None:
        self.plane = DataPlane(None, id_prefix="t")
        self.machine = UpdateMachine(own or settings(data), self.plane, clock=clock)
        self.machine.start()

    def wait(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.machine.status()
            time.sleep(0.02)

    def wait_committed(self, package: Package) -> None:
        self.wait(lambda: self.machine.committed() == package.digest and self.serves(package))

    def wait_status(self, wanted: Callable[[UpdateStatus], bool]) -> UpdateStatus:
        """A status that is as wanted: one and the same, since the next may be another."""
        seen = [self.machine.status()]

        def looked() -> bool:
            seen[0] = self.machine.status()
            return wanted(seen[0])

        self.wait(looked)
        return seen[0]

    def wait_state(self, state: str, word: str = "") -> str:
        return self.wait_status(lambda status: status.state == state and word in status.reason).reason

    def serves(self, package: Package) -> bool:
        loaded = self.plane.loaded
        return loaded is not None and loaded.digest == package.digest

    def ask(self) -> Answer:
        answer = self.plane.infer(Call("digits", None, "", {"x": np.zeros((1, 64), np.float32)}))
        assert isinstance(answer, Answer)
        return answer

    def stop(self) -> None:
        self.machine.stop()
        self.machine.close()
        self.plane.close()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path / "device")
    yield device
    device.stop()


def test_an_update_fetches_only_what_changed_and_goes_back_without_fetching(
    tmp_path: Path, hub: PlainHub, device: Device
) -> None:
    first = make_package(tmp_path / "one")
    second = new_head(first, tmp_path / "two", "2")
    device.machine.follow(hub.offer(first))
    device.wait_committed(first)
    validation = {e.sha256 for e in first.index.entries} - {
        e.sha256 for e in required_paths(first.manifest, first.index)
    }
    assert validation and not any(path.rsplit("/", 1)[-1] in validation for path, _ in hub.requests)

    hub.requests.clear()
    device.machine.follow(hub.offer(second, serial=2))
    device.wait_committed(second)
    had = {entry.sha256 for entry in first.index.entries}
    changed = {entry.sha256 for entry in second.index.entries} - had
    fetched = {path.rsplit("/", 1)[-1] for path, _ in hub.requests if "/blobs/" in path}
    assert fetched == changed
    assert device.machine.previous() == first.digest
    sizes = sum(e.size for e in second.index.entries if e.sha256 in changed) + len(second.index.to_bytes())
    assert device.machine.last_update_bytes == sizes

    hub.requests.clear()
    device.machine.follow(hub.offer(first, serial=3))
    device.wait_committed(first)
    assert hub.requests == [], "the release before is kept"


def test_wrong_golden_outputs_are_refused_while_every_request_is_answered(
    tmp_path: Path, hub: PlainHub, device: Device
) -> None:
    good, wrong = make_package(tmp_path / "good"), make_package(tmp_path / "wrong", version="2", wrong_golden=True)
    other = new_head(good, tmp_path / "other", "3")
    device.machine.follow(hub.offer(good))
    device.wait_committed(good)
    failures: list[BaseException] = []
    answered = 0
    end = threading.Event()

    def hammer() -> None:
        nonlocal answered
        while not end.wait(0.002):  # some hundred a second; without a pause it would take the update its processor
            try:
                device.ask()
                answered += 1
            except BaseException as error:
                failures.append(error)

    thread = threading.Thread(target=hammer)
    thread.start()
    device.machine.follow(hub.offer(wrong, serial=2, rollout="r1"))
    reason = device.wait_state("rolled_back", "golden")
    assert "probabilities" in reason
    assert device.machine.committed() == good.digest and device.serves(good)
    attempts = device.machine.status().attempt
    device.machine.follow(hub.offer(wrong, serial=3, rollout="r1"))
    time.sleep(0.3)
    assert device.machine.status().attempt == attempts, "the same offer is not tried twice"
    device.machine.follow(hub.offer(wrong, serial=4, rollout="r2"))
    device.wait_status(lambda status: (status.rollout, status.state) == ("r2", "rolled_back"))
    for serial, package in enumerate([other, good] * 4, start=5):
        device.machine.follow(hub.offer(package, serial=serial))
        device.wait_committed(package)
    end.set()
    thread.join()
    assert not failures and answered > 100


def test_a_cut_file_is_continued_and_a_hub_that_is_not_there_is_waited_for(
    tmp_path: Path, hub: PlainHub, device: Device
) -> None:
    package = make_package(tmp_path / "one")
    document = hub.offer(package)
    hub.cut_after = 3000  # the index is shorter, the largest tensor longer
    device.machine.follow(document)
    device.wait(lambda: any(asked for _, asked in hub.requests))
    hub.cut_after = None
    device.wait_committed(package)

    nowhere = dataclasses.replace(
        hub.offer(new_head(package, tmp_path / "two", "2"), serial=2), hub="http://127.0.0.1:9"
    )
    device.machine.follow(nowhere)
    assert "trying again" in device.wait_state("fetching", "the hub cannot be reached")
    assert device.serves(package)
    device.ask()


@pytest.mark.parametrize("how", ["reserve", "ENOSPC"])
def test_a_full_disk_is_said_and_waited_for(
    tmp_path: Path, hub: PlainHub, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    own, package = settings(tmp_path / "device"), make_package(tmp_path / "one")
    if how == "reserve":
        own = dataclasses.replace(own, limits=FetchLimits(1 << 30, 1 << 60))
    device = Device(tmp_path / "device", own)
    if how == "ENOSPC":

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(disk.os, "fsync", full)
    try:
        device.machine.follow(hub.offer(package))
        assert "make room" in device.wait_state("fetching", "the disk is full")
    finally:
        monkeypatch.undo()
        device.stop()


def test_a_clock_that_jumps_hinders_nothing(tmp_path: Path, hub: PlainHub) -> None:
    """1970, far ahead, back again, before the epoch: it is written down, and nothing waits by it."""
    times = itertools.cycle([12.0, 4e9, 0.0, 1.7e9, -5.0])
    device = Device(tmp_path / "device", clock=lambda: next(times))
    good, wrong = make_package(tmp_path / "one"), make_package(tmp_path / "wrong", version="2", wrong_golden=True)
    device.machine.follow(hub.offer(good))
    device.wait_committed(good)
    device.machine.follow(hub.offer(wrong, serial=2, rollout="r1"))
    device.wait_state("rolled_back", "golden")
    device.machine.follow(hub.offer(new_head(good, tmp_path / "two", "3"), serial=3))
    device.wait(lambda: device.machine.previous() == good.digest)
    assert device.machine.go_back("a test").result(60).state == "rolled_back"
    assert device.serves(good)
    device.stop()


def test_weeks_without_a_hub_let_nothing_grow(tmp_path: Path, hub: PlainHub, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    monkeypatch.setattr(rules, "wait_s", lambda failures, *_: waits.append(failures) or 0.0)
    # To read what the system trusts takes the processor far longer than all else of an attempt.
    trust = ssl.create_default_context()
    device = Device(tmp_path / "device", dataclasses.replace(settings(tmp_path / "device"), tls=lambda: trust))
    document = dataclasses.replace(hub.offer(make_package(tmp_path / "one")), hub="http://127.0.0.1:9")
    device.machine.follow(document)
    device.wait(lambda: len(waits) > 300)
    assert device.machine.status().attempt == 1 and "cannot be reached" in device.wait_state("fetching", "reached")
    assert waits == list(range(1, len(waits) + 1)), "each wait is longer than the one before, up to its bound"
    assert sum(path.stat().st_size for path in device.machine.settings.data.rglob("*") if path.is_file()) < 8 << 20
    device.machine.follow(hub.offer(make_package(tmp_path / "other", seed=3), serial=2))
    device.wait(lambda: device.plane.loaded is not None)
    device.stop()


def test_a_required_provider_that_is_missing_is_named(tmp_path: Path, hub: PlainHub) -> None:
    tests = TestingRules(required_providers=("CUDAExecutionProvider",))
    device = Device(tmp_path / "device", dataclasses.replace(settings(tmp_path / "device"), tests=tests))
    device.machine.follow(hub.offer(make_package(tmp_path / "one")))
    assert "CUDAExecutionProvider" in device.wait_state("rolled_back")
    device.stop()


@pytest.mark.parametrize("kill_at", range(2, 8))
def test_killed_at_every_state_it_serves_the_committed_release(tmp_path: Path, hub: PlainHub, kill_at: int) -> None:
    """Stored in this order: the start, fetching, verifying, staged, testing, probation, committed."""
    data, good = tmp_path / "device", make_package(tmp_path / "good")
    new = new_head(good, tmp_path / "new", "2")
    device = Device(data)
    device.machine.follow(hub.offer(good))
    device.wait_committed(good)
    device.stop()
    offer = tmp_path / "offer"
    offer.write_bytes(hub.offer(new, serial=2, rollout="r1").to_bytes())

    killed = child(data, offer, kill_at)
    assert killed.returncode == -9
    again = child(data, offer, 0)
    start, *rest = said(again)
    committed = new if kill_at == 7 else good
    assert start == f"serving at start: {committed.digest}"
    assert rest == ["committed"], again


def test_a_release_that_kills_the_agent_again_and_again_is_refused(tmp_path: Path, hub: PlainHub) -> None:
    data, good = tmp_path / "device", make_package(tmp_path / "good")
    device = Device(data)
    device.machine.follow(hub.offer(good))
    device.wait_committed(good)
    device.stop()
    offer = tmp_path / "offer"
    offer.write_bytes(hub.offer(new_head(good, tmp_path / "new", "2"), serial=2, rollout="r1").to_bytes())
    # The first child stores its start, fetching … testing; each later one also that the restart rolled it back.
    assert [child(data, offer, n).returncode for n in (5, *[6] * (MOST_ENDS - 1))] == [-9] * MOST_ENDS
    last = child(data, offer, 0)
    assert said(last) == [f"serving at start: {good.digest}", "refused"], last


def child(data: Path, offer: Path, kill_at: int = 0, poison: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tests.integration.update_child", str(data), str(offer), str(kill_at), poison]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the child itself printed, without its log."""
    words = ("serving at start", "committed", "refused")
    return [line for line in done.stdout.splitlines() if line.startswith(words)]
