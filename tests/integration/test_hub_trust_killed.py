"""A hub that is killed at any moment has told devices nothing that they would not believe, and goes on above it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from edgeloop.protocol import SignedChannel
from edgeloop.trust.names import ONLINE, ROOT, TARGETS
from tests.doubles.people import People
from tests.doubles.verifier import Verifier
from tests.integration.hub_process import wait_for
from tests.integration.trust_child import CHANNEL

KILLS = 30 if os.environ.get("EDGELOOP_SOAK") else 2


def spawn(folder: Path) -> subprocess.Popen[bytes]:
    (folder / "started").unlink(missing_ok=True)
    return subprocess.Popen([sys.executable, "-m", "tests.integration.trust_child", str(folder)])


def test_killed_between_any_two_steps(tmp_path: Path) -> None:
    folder, chance = tmp_path / "hub", random.Random(20261126)
    folder.mkdir()
    # Killed while keys are made: what is half made is no key, and the next start makes the rest.
    first = spawn(folder)
    wait_for(lambda: list((folder / "trust").glob("keys/*")) or first.poll() is not None, 60, "the first key")
    first.kill()
    first.wait()
    assert spawn(folder).wait(120) == 0
    assert sorted(key.name for key in (folder / "trust" / "keys").iterdir()) == sorted(f"{r}.1.pem" for r in ONLINE)

    people = People(json.loads((folder / "online.json").read_text()), time.time())
    (folder / "people").mkdir()
    for role in (ROOT, TARGETS):
        (folder / "people" / f"{role}.json").write_bytes(people.file(role))
    device, serial = Verifier(tmp_path / "device", people.fleet.pinned), 0
    for _ in range(KILLS):
        hub = spawn(folder)
        try:
            wait_for(lambda hub=hub: (folder / "started").exists() or hub.poll() is not None, 60, "the hub to start")
            time.sleep(chance.uniform(0.0, 0.4))
            assert hub.poll() is None, "it was to be killed, and has ended by itself"
        finally:
            hub.kill()
            hub.wait()
        if (folder / "sent").exists():
            payload = (folder / "sent").read_bytes()
            assert SignedChannel.from_bytes(payload).metadata
            document = device.open(CHANNEL, payload)
            assert document.serial >= serial
            serial = document.serial
    assert serial, "nothing was ever sent"
