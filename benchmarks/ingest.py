"""What the hub takes in, beside a paho-mqtt client that only counts: ``python -m benchmarks.ingest``.

Many devices send recorded windows of about 1 KB through Mosquitto at QoS 1. The hub decodes, checks, merges, stores and
acknowledges every one of them; the counter only counts. Both get the same messages in turn, one stands still
while the other works, on the same processor core; broker and sender have another. Messages a second of processor time
are compared, since on the clock whatever else runs takes its share. Then the sender sends three times as many as the
hub has shown to take, and the hub's memory is watched.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import psutil

from benchmarks.kit.processes import MB, Running, cpu_seconds, running
from cloud_hub.broker import choose
from cloud_hub.broker_config import mosquitto_config
from edgeloop.insights import Observer, Profile, Window
from tests.doubles.packages import FEATURES, WIDTH, make_package
from tests.integration.brokers import free_port
from tests.integration.hub_process import FLEET, HubProcess

LEAST_OF_BARE = 0.7
#: Under overload: the most memory of the second half of the time, relative to that of the first.
MOST_GROWTH = 1.1
DEVICES, EACH, ROUNDS = 500, 40, 7
OVERLOAD, OVERLOAD_S = 3.0, 30.0
ROWS = 200
#: Different windows that the devices send, of three kinds of contents.
WINDOWS = 16
BARE_FLEET, CHANNEL = "bare", "stable"


def main() -> int:
    """Exit status: 0 when both bounds hold."""
    quick = "--quick" in sys.argv[1:]
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("one core only: hub, broker and sender would share it", file=sys.stderr)
        return 1
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        with on_core(cores[1]):
            port = stack.enter_context(broker(folder))
        with on_core(cores[0]):
            hub = HubProcess(folder / "hub", broker="none", broker_port=port, insights_interval_s=60.0).start()
            stack.callback(hub.close)
            counter = stack.enter_context(python("benchmarks.kit.counter", port, f"edgeloop/v1/{BARE_FLEET}/#"))
            counter.line()
        release, count = publish(hub, folder), 2 if quick else ROUNDS
        messages = [recorded(release, seed) for seed in range(WINDOWS)]
        (folder / "messages").write_bytes(cbor2.dumps(messages))
        size = statistics.mean(len(cbor2.dumps(message)) + 40 for message in messages)
        print(f"{DEVICES} devices, {EACH} messages of {size:,.0f} bytes each, {count} rounds")
        with on_core(cores[1]):
            flood = stack.enter_context(python("benchmarks.kit.flood", port, DEVICES, folder / "messages"))
        one_round(hub, counter, flood, show=False)  # rows are made, files grow, connections get going
        rounds = [one_round(hub, counter, flood) for _ in range(count)]
        taken, counted = (statistics.median(found) for found in zip(*rounds, strict=True))
        ratio = statistics.median(mine / theirs for mine, theirs in rounds)
        print(
            f"hub {taken:,.0f} messages a second of one core, paho-mqtt that counts {counted:,.0f}: {ratio:.2f}"
            f" (bound {LEAST_OF_BARE})"
        )
        check(hub)
        growth = overload(hub, flood, OVERLOAD * taken, 5.0 if quick else OVERLOAD_S)
    return 0 if ratio >= LEAST_OF_BARE and growth <= MOST_GROWTH else 1


def one_round(hub: HubProcess, counter: Running, flood: Running, *, show: bool = True) -> tuple[float, float]:
    """Messages a second of processor time of the hub, and of the counter: on the clock others take their share."""
    assert hub.process is not None
    total = DEVICES * EACH
    with still(counter.pid):
        used = cpu_seconds(hub.process.pid)
        flood.ask(json.dumps({"fleet": FLEET, "each": EACH, "wait": True}))
        wall = total / json.loads(flood.line())["done_s"]
        taken = total / (cpu_seconds(hub.process.pid) - used)
    with still(hub.process.pid):
        counter.ask(str(total))
        used = cpu_seconds(counter.pid)
        flood.ask(json.dumps({"fleet": BARE_FLEET, "each": EACH, "wait": False}))
        began = time.monotonic()
        counter.line()
        counter_wall = total / (time.monotonic() - began)
        counted = total / (cpu_seconds(counter.pid) - used)
        flood.line()
    if show:
        found = f"  hub {taken:,.0f} ({wall:,.0f} on the clock)  counter {counted:,.0f} ({counter_wall:,.0f})"
        print(f"{found}: {taken / counted:.2f}", flush=True)
    return taken, counted


def overload(hub: HubProcess, flood: Running, rate: float, seconds: float) -> float:
    """Send more than the hub can take; returns how much its memory grew between the two halves of the time."""
    assert hub.process is not None
    process, before = psutil.Process(hub.process.pid), outcomes(hub)
    flood.ask(json.dumps({"fleet": FLEET, "rate": rate, "seconds": seconds}))
    memory: list[float] = []
    began = time.monotonic()
    while (spent := time.monotonic() - began) < seconds:
        memory.append(process.memory_info().rss / MB)
        if len(memory) % 5 == 1:
            print(f"  after {spent:4.1f} s: {memory[-1]:.0f} MB, lag {figure(hub, LAG):.2f} s", flush=True)
        time.sleep(1.0)
    sent = json.loads(flood.line())
    after = outcomes(hub)
    applied = after.get("apply", 0) - before.get("apply", 0)
    half = len(memory) // 2
    growth = max(memory[half:]) / max(memory[:half])
    print(
        f"sent {sent['messages'] / sent['seconds']:,.0f} messages/s (wanted {rate:,.0f}), counted"
        f" {applied / seconds:,.0f}/s; memory of the second half : first half {growth:.2f} (bound {MOST_GROWTH})"
    )
    return growth


LAG = "cloud_hub_ingest_lag_seconds"


def figure(hub: HubProcess, name: str) -> float:
    """One figure of the hub."""
    lines = hub.api.get("/metrics").text.splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith(name + " ")), float("nan"))


def outcomes(hub: HubProcess) -> dict[str, float]:
    """What became of the messages so far."""
    start = 'cloud_hub_ingest_total{outcome="'
    lines = [line for line in hub.api.get("/metrics").text.splitlines() if line.startswith(start)]
    return {line[len(start) :].split('"')[0]: float(line.split()[-1]) for line in lines}


def check(hub: HubProcess) -> None:
    """Every message was counted, once."""
    totals = hub.get("insights/totals")
    if totals["predictions"] != ROWS * totals["windows"] or totals["windows"] % (DEVICES * EACH):
        raise AssertionError(f"the hub has counted {totals['predictions']} predictions in {totals['windows']} windows")


def publish(hub: HubProcess, folder: Path) -> tuple[str, Profile]:
    """A release on a channel of the hub: its digest and profile."""
    package = make_package(folder / "package")
    files = {entry.sha256: (package.root / entry.path).read_bytes() for entry in package.index.entries}
    digest = hub.publish(package.index.to_bytes(), files)
    answer = hub.api.post(f"/api/v1/channels/{CHANNEL}/releases", json={"digest": digest})
    assert answer.is_success, answer.text
    profile = package.profile()
    assert profile is not None
    return digest, profile


def recorded(release: tuple[str, Profile], seed: int) -> dict[str, Any]:
    """One window of a device that answered for a minute, as it goes out; some hold health or labels as well."""
    digest, profile = release
    random, now = np.random.default_rng(seed), time.time()
    window = Window.zero(profile.schema, digest, "cpu-fp32", "CPUExecutionProvider", now - 60.0, now)
    inputs = random.random((ROWS, WIDTH)).astype(np.float32)
    latency = random.lognormal(13.0, 0.3, ROWS).astype(np.int64)
    probabilities = random.dirichlet(np.ones(profile.schema.classes), ROWS)
    observer = Observer(profile)
    observer.observe(window, inputs, probabilities, random.random((ROWS, FEATURES)), latency)
    if seed % 2:
        observer.health(window, rss_bytes=80e6)
    if seed % 4 == 1:
        labels = random.integers(0, profile.schema.classes, 10)
        observer.feedback(window, None, probabilities[:10].argmax(axis=1), labels, np.zeros(10, bool))
    return {"channel": CHANNEL, "v": 1, "window": window.to_wire()}


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[int]:
    """The broker as the hub embeds it, with room for a whole round; its port."""
    port, config = free_port(), folder / "mosquitto.conf"
    config.write_text(mosquitto_config("127.0.0.1", port, None) + "max_queued_messages 100000\nmax_queued_bytes 0\n")
    with running([choose("mosquitto").program, "-c", str(config)]):
        until = time.monotonic() + 20.0
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                import socket

                socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
                break
            time.sleep(0.02)
        yield port


def python(module: str, *arguments: object) -> contextlib.AbstractContextManager[Running]:
    """A module of this checkout as a process."""
    return running([sys.executable, "-m", module, *map(str, arguments)], cwd=Path(__file__).parents[1])


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started meanwhile runs on one core."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextlib.contextmanager
def still(pid: int) -> Iterator[None]:
    """A process that does nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.SubprocessError as error:
        sys.exit(str(error))
