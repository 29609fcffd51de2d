"""What the cascade costs a client: over the teacher's own time, with the network cut, and while it is off.

    python -m benchmarks.escalation

A real agent, Mosquitto and a hub that does nothing but answer after 20 ms, all on loopback.

1. Every answer is escalated and its client waits (`wait`); of each latency the time is taken away that the teacher
   itself took. Small inputs go over MQTT, large ones over HTTP. The bound: 10 ms, the local answer included.
2. A fifth of the answers is escalated, and the broker hears nothing any more: its process is stopped, so that nobody is
   told (a half-open connection). Beside it two agents whose owner lets nothing travel; all are asked in turn. The
   bound: a p99 of 1.1 times that of the first of them, from the cut on. What the second has beside the first says what
   chance alone does to such a figure.
3. The same with the policy off: requests a second of one as a share of the other's.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.kit import mlp
from benchmarks.kit.agent import agent
from benchmarks.kit.load import Clients, Load
from benchmarks.kit.requests import binary
from edge_agent.escalating.carriers import MQTT_BYTES
from edgeloop.cascade.policy import EscalationPolicy
from edgeloop.protocol import Escalation, TeacherAnswer
from tests.doubles.teacher_hub import TeacherHub
from tests.integration.brokers import BrokerProcess, find_mosquitto

FLEET, TEACHER_S = "default", 0.02
ADDED_BOUND_MS, CUT_BOUND = 10.0, 1.1
LARGE = MQTT_BYTES // 4 + 1
#: Everything is drawn.
ALL = EscalationPolicy(mode="wait", threshold=0.0, softness=1e-6, floor=1.0, max_share=1.0, deadline_ms=10_000)
FIFTH = EscalationPolicy(mode="wait", threshold=0.0, max_share=0.2, floor=0.2, deadline_ms=1000)
OFF = EscalationPolicy()


class World:
    """A broker and a hub whose teacher takes its time, noted in ``took``, seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = BrokerProcess("mosquitto", folder, more="set_tcp_nodelay true").start()
        self.took: list[float] = []
        self.hub = TeacherHub(FLEET, self.broker.port, self.teach)
        while not self.hub.link.subscribed:
            time.sleep(0.01)

    def teach(self, asked: Escalation) -> TeacherAnswer:
        """Think."""
        began = time.perf_counter()
        time.sleep(TEACHER_S)
        answer = TeacherAnswer(asked.id, asked.index, 3, 0.9, "big")
        self.took.append(time.perf_counter() - began)
        return answer

    @contextlib.contextmanager
    def agent(self, name: str, policy: EscalationPolicy | None, inputs: int = mlp.INPUTS) -> Iterator[int]:
        """An agent that follows a policy, or one whose owner lets nothing travel; gives its port."""
        package = mlp.package(self.folder / f"{name}-package", inputs)
        settings = {"insecure": True, "broker_port": self.broker.port, "hub": self.hub.url, "device": name}
        if policy is not None:
            self.hub.ask_for(policy, name)
            settings |= {"channel": name, "escalation_travels": ["input"]}
        with agent(self.folder / name, package, **settings) as server:
            until = time.monotonic() + 20
            while not _follows(server.port, policy):
                if time.monotonic() > until:
                    raise SystemExit("the agent does not follow the policy")
                time.sleep(0.05)
            yield server.port

    def close(self) -> None:
        """End it all."""
        self.hub.stop()
        self.broker.kill()


def _follows(port: int, policy: EscalationPolicy | None) -> bool:
    import json

    found = json.loads(_ask(http.client.HTTPConnection("127.0.0.1", port), "GET", "/edgeloop/v1/status", b"", {}))
    if policy is None:
        return bool(found["messaging"]["connected"])
    return bool(found["messaging"]["connected"] and found["escalation"]["policy"] == policy.to_wire())


def _ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    connection.request(method, path, body, headers)
    return connection.getresponse().read()


def added_ms(world: World, name: str, inputs: int, count: int) -> tuple[float, float, float]:
    """Median, least and 95th percentile of what an escalation takes longer than its teacher, milliseconds."""
    row = np.random.default_rng(0).random((1, inputs), dtype=np.float32).tobytes()
    headers = {"Inference-Header-Content-Length": "0"}
    with world.agent(name, ALL, inputs) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        added = []
        for _ in range(count + 10):
            world.took.clear()
            began = time.perf_counter()
            body = _ask(connection, "POST", "/v2/models/mlp/infer", row, headers)
            spent = time.perf_counter() - began
            if b'"teacher":"big"' not in body.replace(b" ", b"") or len(world.took) != 1:
                raise SystemExit(f"this was not the teacher's answer: {body[:300]!r}")
            added.append(1e3 * (spent - world.took[0]))
    way = {way for _, way in world.hub.got}
    world.hub.got.clear()
    if way != {name}:
        raise SystemExit(f"these went over {way}")
    return statistics.median(added[10:]), min(added[10:]), float(np.quantile(added[10:], 0.95))


@dataclass(frozen=True)
class Beside:
    """An agent beside one that never escalates: requests a second, and p99, as shares of the other's."""

    rate: float
    p99: float

    @classmethod
    def of(cls, mine: list[Load], others: list[Load]) -> Beside:
        """The medians over turns."""
        pairs = list(zip(mine, others, strict=True))
        return cls(
            statistics.median(one.per_second / other.per_second for one, other in pairs),
            statistics.median(one.p99 / other.p99 for one, other in pairs),
        )


def beside(
    world: World, name: str, policy: EscalationPolicy, turns: int, turn_s: float, *, cut: bool
) -> tuple[Beside, Beside]:
    """An agent with a policy, and one without, each beside another one that never escalates."""
    request = binary("/v2/models/mlp/infer", "x", np.random.default_rng(0).random((1, mlp.INPUTS), dtype=np.float32))
    with contextlib.ExitStack() as stack:
        ports = [
            stack.enter_context(world.agent(f"{name}-{number}", one)) for number, one in enumerate((policy, None, None))
        ]
        clients = [stack.enter_context(Clients(port, 4, request)) for port in ports]
        for client in clients:
            client.run(1.0)
        if cut:
            world.broker.pause()
            stack.callback(world.broker.resume)
        found: list[list[Load]] = [[], [], []]
        for turn in range(turns):
            for place in ((turn + step) % 3 for step in range(3)):
                found[place].append(clients[place].run(turn_s))
    mine, other, another = found
    return Beside.of(mine, other), Beside.of(another, other)


def main() -> int:
    """Exit status: 0 when the bounds hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.escalation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    quick = parser.parse_args().quick
    if find_mosquitto() is None:
        print("Mosquitto is not installed; on Debian: apt-get install mosquitto", file=sys.stderr)
        return 1
    count, turns = (50, 7) if quick else (300, 21)
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            added = {name: added_ms(world, name, inputs, count) for name, inputs in (("mqtt", 64), ("http", LARGE))}
            off, _ = beside(world, "off", OFF, turns, 0.5, cut=False)
            cut, chance = beside(world, "cut", FIFTH, turns, 1.0, cut=True)
        finally:
            world.close()
    for name, (median, least, high) in added.items():
        print(
            f"over the teacher's {TEACHER_S * 1e3:.0f} ms, {name}: {median:.1f} ms, "
            f"the least {least:.1f} ms, 95 % of them below {high:.1f} ms"
        )
    print(f"policy off: {off.rate:.3f} of the requests a second of an agent that never escalates")
    print(f"network cut: p99 {cut.p99:.2f} times, and {cut.rate:.3f} of the requests a second")
    print(f"of two agents that never escalate: p99 {chance.p99:.2f} times, {chance.rate:.3f} of the requests a second")
    return 0 if max(median for median, _, _ in added.values()) <= ADDED_BOUND_MS and cut.p99 <= CUT_BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
