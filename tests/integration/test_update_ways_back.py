"""Ways back to the release before: a person says so, or a committed release kills the agent again and again."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.updates.probation import ProbationRules
from edge_agent.updates.rules import CrashLoop
from edge_agent.updates.store import UpdateStore
from edgeloop.package import Package
from tests.doubles.installed import install
from tests.doubles.packages import make_package, new_head
from tests.doubles.plain_hub import PlainHub
from tests.integration.test_update_life import Device, child, said
from tests.integration.update_child import settings


@pytest.fixture
def hub() -> Iterator[PlainHub]:
    hub = PlainHub()
    yield hub
    hub.close()


@pytest.fixture
def two(tmp_path: Path) -> tuple[Package, Package]:
    first = make_package(tmp_path / "one")
    return first, new_head(first, tmp_path / "two", "2")


def test_by_hand_it_goes_back_without_losing_a_request_and_stays_until_another_is_offered(
    tmp_path: Path, hub: PlainHub, two: tuple[Package, Package]
) -> None:
    first, second = two
    device = Device(tmp_path / "device")
    device.machine.follow(hub.offer(first))
    device.wait_committed(first)
    device.machine.follow(hub.offer(second, serial=2, rollout="r1"))
    device.wait_committed(second)
    failures: list[BaseException] = []
    end = threading.Event()

    def hammer() -> None:
        while not end.is_set():
            try:
                device.ask()
            except BaseException as error:
                failures.append(error)

    thread = threading.Thread(target=hammer)
    thread.start()
    at = device.machine.go_back("it mistakes sevens").result(20)
    end.set()
    thread.join()
    assert not failures
    assert (at.state, at.release, at.rollout) == ("rolled_back", second.digest, "r1")
    assert "by hand: it mistakes sevens" in at.reason
    assert device.serves(first) and device.machine.committed() == first.digest and device.machine.previous() is None
    with pytest.raises(LookupError, match="no release is kept"):
        device.machine.go_back("again").result(20)

    device.machine.follow(hub.offer(second, serial=3, rollout="r2"))
    device.stop()
    device = Device(tmp_path / "device")  # it is remembered across a restart
    device.machine.follow(hub.offer(second, serial=4))
    time.sleep(0.3)
    assert device.serves(first) and device.machine.status().state == "rolled_back"
    device.machine.follow(hub.offer(first, serial=5))
    time.sleep(0.1)
    device.machine.follow(hub.offer(second, serial=6))
    device.wait_committed(second)
    device.stop()


def test_by_hand_a_release_on_probation_is_left_for_the_committed_one(
    tmp_path: Path, hub: PlainHub, two: tuple[Package, Package]
) -> None:
    first, second = two
    own = settings(tmp_path / "device")
    device = Device(tmp_path / "device", own)
    device.machine.follow(hub.offer(first))
    device.wait_committed(first)
    device.machine.use(dataclasses.replace(own, probation=ProbationRules(1000.0, 0, 2000.0)))
    device.machine.follow(hub.offer(second, serial=2))
    device.wait_state("probation")
    device.wait(lambda: device.serves(second))
    at = device.machine.go_back("no").result(20)
    assert (at.state, at.release) == ("rolled_back", second.digest)
    assert device.serves(first) and device.machine.committed() == first.digest
    device.machine.follow(hub.offer(second, serial=3, rollout="r2"))
    time.sleep(0.3)
    assert device.serves(first) and device.machine.status().state == "rolled_back"
    device.stop()


def test_a_committed_release_that_kills_the_agent_is_left(
    tmp_path: Path, hub: PlainHub, two: tuple[Package, Package]
) -> None:
    """Real processes that die of SIGSEGV whenever the new release serves."""
    first, second = two
    data, offer = tmp_path / "device", tmp_path / "offer"
    device = Device(data)
    device.machine.follow(hub.offer(first))
    device.wait_committed(first)
    device.stop()
    offer.write_bytes(hub.offer(second, serial=2, rollout="r1").to_bytes())
    for life in range(CrashLoop().ends):
        died = child(data, offer, poison=second.digest)
        assert died.returncode == -11, (life, died)
        serving = first if life == 0 else second
        assert said(died)[0] == f"serving at start: {serving.digest}"
    well = child(data, offer, poison=second.digest)
    assert said(well) == [f"serving at start: {first.digest}", "refused"], well
    store = UpdateStore(data / "updates.db")
    assert "3 times" in store.position().reason and store.position().rollout == "r1"
    store.close()
    # The rollout may end and make it the current release: that is the same release still.
    offer.write_bytes(hub.offer(second, serial=3).to_bytes())
    assert said(child(data, offer, poison=second.digest)) == [f"serving at start: {first.digest}", "refused"]


def test_orderly_ends_and_ends_long_after_the_commit_are_not_counted(
    tmp_path: Path, hub: PlainHub, two: tuple[Package, Package]
) -> None:
    data = tmp_path / "device"
    device = Device(data)
    for serial, package in enumerate(two, start=1):
        device.machine.follow(hub.offer(package, serial=serial))
        device.wait_committed(package)
    device.stop()
    for _ in range(5):
        Device(data).stop()
    store = UpdateStore(data / "updates.db")
    assert store.life().young == two[1].digest and store.life().ends == 0
    store.close()

    own = dataclasses.replace(settings(data), crash_loop=CrashLoop(seconds=0.2))
    device = Device(data, own)
    store = device.machine._store
    device.wait(lambda: time.monotonic() - device.machine._active.since > 0.2)
    device.machine.use(own)  # wakes it
    device.machine.use(own)
    device.wait(lambda: store.life().young is None)
    device.stop()
    store = UpdateStore(data / "updates.db")
    for _ in range(5):
        assert store.starts() == 0  # and no orderly end
    store.close()


def test_a_release_that_cannot_be_loaded_any_more_is_installed_again(
    tmp_path: Path, hub: PlainHub, two: tuple[Package, Package]
) -> None:
    """The disk has damaged it, and there is none before it: nothing serves until the channel offers it again."""
    data, package = tmp_path / "device", two[0]
    device = Device(data)
    device.machine.follow(hub.offer(package))
    device.wait_committed(package)
    device.stop()
    manifest = next((data / "releases").rglob("manifest.json"))
    blob = next(path for path in (data / "blobs").iterdir() if path.samefile(manifest))
    blob.write_bytes(bytes(manifest.stat().st_size))
    device = Device(data)
    assert device.plane.loaded is None and device.machine.committed() == package.digest
    device.machine.follow(hub.offer(package, serial=2))
    device.wait_committed(package)
    device.ask()
    device.stop()


def test_what_a_power_cut_has_left_of_a_file_is_not_blamed_on_the_hub(
    tmp_path: Path, hub: PlainHub, two: tuple[Package, Package]
) -> None:
    data, package = tmp_path / "device", two[0]
    (data / "blobs").mkdir(parents=True)
    for entry in package.index.entries:
        (data / "blobs" / f"{entry.sha256}.part").write_bytes(bytes(max(1, entry.size - 7)))
    device = Device(data)
    device.machine.follow(hub.offer(package))
    device.wait(lambda: device.serves(package), 60)
    device.stop()


def test_a_release_that_kills_the_agent_stays_where_the_one_before_cannot_be_loaded(
    tmp_path: Path, hub: PlainHub, two: tuple[Package, Package]
) -> None:
    data = tmp_path / "device"
    first, second = (install(package, data) for package in two)
    index = data / "releases" / f"{first.removeprefix('sha256:')}.index"
    index.write_bytes(b"damaged")
    for life in range(CrashLoop().ends + 1):
        device = Device(data)
        assert device.plane.loaded is not None and device.plane.loaded.digest == second, life
        device.machine._wishes.stop()  # it ends without a word
        device.machine._thread.join(60)
        device.machine._store.close()
        device.plane.close()
