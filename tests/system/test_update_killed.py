"""A real process that updates itself is killed at random moments, with its audit child, and started again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeloop.package import Package, required_paths
from edgeloop.package.index import hash_file
from tests.doubles.packages import make_package, new_head
from tests.doubles.plain_hub import PlainHub
from tests.integration.test_update_life import Device, said

SOAK = os.environ.get("EDGELOOP_SOAK") == "1"
KILLS = 200 if SOAK else 4


@pytest.fixture
def hub() -> Iterator[PlainHub]:
    hub = PlainHub()
    yield hub
    hub.close()


@pytest.mark.timeout(3600)
def test_killed_at_random_moments_it_serves_what_was_committed_and_ends_up_updated(
    tmp_path: Path, hub: PlainHub
) -> None:
    data, chance = tmp_path / "device", random.Random(4)
    releases = [first := make_package(tmp_path / "one"), new_head(first, tmp_path / "two", "2")]
    device = Device(data)
    device.machine.follow(hub.offer(first))
    device.wait_committed(first)
    device.stop()
    offer, committed, kills, serial = tmp_path / "offer", first, 0, 1
    longest = 1.0
    while kills < KILLS:
        wanted = releases[1 - releases.index(committed)]
        serial += 1
        # Another rollout each time: the killed life before may have been the one too many for the offer.
        offer.write_bytes(hub.offer(wanted, serial=serial, rollout=f"r{serial}").to_bytes())
        began = time.monotonic()
        process = start(data, offer)
        try:
            out, _ = process.communicate(timeout=chance.uniform(0, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
            kills += 1
        else:
            longest = 1.2 * (time.monotonic() - began)  # kills are spread over a whole update, start and all
        found = said(subprocess.CompletedProcess([], 0, out))
        serving = found[0].removeprefix("serving at start: ") if found else committed.digest
        assert serving in {release.digest for release in releases}, out
        committed = next(release for release in releases if release.digest == serving)
        if "committed" in found:
            committed = wanted
        check_bytes(data, committed)
    # The last one is let through.
    wanted = releases[1 - releases.index(committed)]
    offer.write_bytes(hub.offer(wanted, serial=serial + 1, rollout="last").to_bytes())
    for _ in range(2):  # the killed life before may have committed it already: then the other one was offered
        out, _ = start(data, offer).communicate(timeout=120)
    assert said(subprocess.CompletedProcess([], 0, out))[0] == f"serving at start: {wanted.digest}"
    check_bytes(data, wanted)


def start(data: Path, offer: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tests.integration.update_child", str(data), str(offer), "0", ""]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def check_bytes(data: Path, release: Package) -> None:
    """Every file of a release on the device is what its index says."""
    folder = data / "releases" / release.digest.removeprefix("sha256:")
    for entry in required_paths(release.manifest, release.index):
        assert hash_file(folder / entry.path) == entry.sha256, entry.path
