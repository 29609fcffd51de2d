"""What signatures cost a device, in a model into which 1,000 releases were published: bytes of metadata and time.

A publisher's role names the newest 64 of them, the hub's the newest 16 that it retrained; a channel rolls a retrained
release out beside a publisher's. Bytes are those that python-tuf's client asks for; time is that of the agent's own
verification of the channel's message, the first in a process. The bounds: 40 KB for a
device that has only its root, 2 KB when nothing is new, 50 ms of a processor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent.trust.anchor import Anchor
from edge_agent.trust.asking import Examiner, Question
from edgeloop.protocol import ChannelDocument, RolloutRef, SignedChannel
from edgeloop.trust import repository
from edgeloop.trust.names import RETRAINED, ReleasePath
from tests.doubles.secure_fleet import SecureFleet, reference

RELEASES, RETRAINED_RELEASES, INDEX_BYTES = 1_000, 100, 4_096
FULL_BOUND, NOTHING_NEW_BOUND, TIME_BOUND_MS = 40_000, 2_000, 50.0


class Counting(FetcherInterface):
    """Gives the fleet's files, and counts what was asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.bytes, self.names = files, 0, list[str]()

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        if name not in self.files:
            raise DownloadHTTPError(name, 404)
        self.bytes += len(self.files[name])
        self.names.append(name)
        yield self.files[name]


def publish(fleet: SecureFleet) -> tuple[ReleasePath, ReleasePath]:
    """Publish and retrain; the newest of both."""
    for number in range(RELEASES):
        published = fleet.release("digits", f"sha256:{number:064x}", INDEX_BYTES)
    for number in range(RETRAINED_RELEASES):
        retrained = fleet.retrain(published, f"sha256:{RELEASES + number:064x}", INDEX_BYTES)
    draft = fleet.draft(RETRAINED)
    repository.prune(draft.signed, (), repository.KEPT[RETRAINED])
    fleet.put(RETRAINED, draft)
    return published, retrained


def channel(fleet: SecureFleet, published: ReleasePath, retrained: ReleasePath, serial: int) -> SignedChannel:
    """The channel's message."""
    candidate = reference(retrained, f"sha256:{RELEASES + RETRAINED_RELEASES - 1:064x}", INDEX_BYTES)
    current = reference(published, f"sha256:{RELEASES - 1:064x}", INDEX_BYTES)
    return fleet.channel(ChannelDocument("stable", serial, current, RolloutRef("r1", candidate, 0.5), "http://hub"))


def refresh(fleet: SecureFleet, cache: Path, paths: list[str]) -> Counting:
    """What a client with this cache asks for until it knows every path."""
    fetcher = Counting(fleet.files)
    updater = Updater(str(cache), "http://hub/tuf", fetcher=fetcher, bootstrap=fleet.pinned)
    for path in paths:
        if updater.get_targetinfo(path) is None:
            raise SystemExit(f"nothing names {path}")
    return fetcher


def verification_ms(
    fleet: SecureFleet, message: SignedChannel, paths: list[str], rounds: int
) -> tuple[float, float, float]:
    """Medians: processor time and time of a first verification, and all the time that the agent waits for its child."""
    worked, inside, waited = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            request = {
                "root": _text(fleet.pinned),
                "cache": f"{cache}/bare",
                "identity": None,
                "hub": "http://127.0.0.1:9",
                "paths": paths,
                "metadata": {name: _text(data) for name, data in message.metadata.items()},
                "ask_for_root": False,
                "signed": None,
                "limits": {},
            }
            bare = subprocess.run(
                [sys.executable, "-c", _BARE], input=json.dumps(request), capture_output=True, text=True, check=True
            )
            worked.append(1e3 * float(bare.stdout))
            examiner, began = Examiner(Anchor(fleet.pinned, 0.0), Path(cache) / "agent"), time.perf_counter()
            found = examiner.examine(Question(paths=paths, metadata=message.metadata), "http://127.0.0.1:9")
            waited.append(1e3 * (time.perf_counter() - began))
            inside.append(found.ms)
            if found.fetched or any(named.problem for named in found.named.values()):
                raise SystemExit("the message did not carry everything")
    return statistics.median(worked), statistics.median(inside), statistics.median(waited)


_BARE = """
import json, sys, time
from edge_agent.trust.child import examine
request = json.load(sys.stdin)
began = time.process_time()
assert "roles" in examine(request)
print(time.process_time() - began)
"""


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def main() -> int:
    """Exit status: 0 when every bound holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust_overhead", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    rounds = 5 if parser.parse_args().quick else 25
    fleet = SecureFleet.make("digits")
    published, retrained = publish(fleet)
    message = channel(fleet, published, retrained, 1)
    paths = ["channels/stable", str(published), str(retrained)]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        full = refresh(fleet, cache, paths)
        nothing_new = refresh(fleet, cache, paths)
        new = fleet.release("digits", "sha256:" + "f" * 64, INDEX_BYTES)
        message = channel(fleet, new, retrained, 2)
        one_new = refresh(fleet, cache, ["channels/stable", str(new), str(retrained)])
    paths = ["channels/stable", str(new), str(retrained)]
    worked, inside, waited = verification_ms(fleet, message, paths, rounds)
    print(f"{RELEASES} releases published, {RETRAINED_RELEASES} retrained")
    rows = [
        ("only the root known", full.bytes, f"in {len(full.names)} files; bound {FULL_BOUND:,}"),
        ("nothing new", nothing_new.bytes, f"in {len(nothing_new.names)} file; bound {NOTHING_NEW_BOUND:,}"),
        ("one new release", one_new.bytes, f"in {len(one_new.names)} files"),
        ("the channel's message", len(message.to_bytes()), "over MQTT, with all that a device needs"),
    ]
    for what, count, note in rows:
        print(f"{what:22} {count:7,} bytes ({note})")
    print(f"{'verification':22} {worked:7.1f} ms of a processor (bound {TIME_BOUND_MS:.0f})")
    print(f"{'on this machine, now':22} {inside:7.1f} ms; {waited:.0f} ms from the question to the child's answer")
    held = full.bytes <= FULL_BOUND and nothing_new.bytes <= NOTHING_NEW_BOUND and worked <= TIME_BOUND_MS
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
