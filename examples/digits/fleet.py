"""The hub and its devices as processes, and the few calls to the hub's API that the story needs."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import httpx

from examples.digits.people import People
from examples.digits.processes import ProcessFailed, Program, command, environment, free_port
from examples.digits.traffic import Client

T = TypeVar("T")

FLEET = "demo"
CHANNEL = "stable"

#: What ledgers and hub both count.
COUNTS = ("predictions", "errors", "feedback", "escalations")

#: How this channel is steered: quick steps, since a demo's day lasts a minute. Each field is explained in
#: docs/reference/cloud-hub.md.
POLICY: dict[str, Any] = {
    "rollout": {"steps": [{"devices": 1}, {"share": 1.0}], "bake_s": 1.0, "timeout_s": 60.0},
    "drift": {"min_predictions": 150, "interval_s": 1.0, "consecutive": 2},
    "retraining": {"trigger": "drift", "min_labels": 600, "statistics": "since_alarm", "cooldown_s": 5.0},
    # The cameras have moved for good: this fleet may forget the old world.
    "gate": {"validation_floor": 0.0, "min_improvement": 0.0},
}


class Hub:
    """A small client of the hub's HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=10.0)

    def trust(self, ca: Path) -> None:
        """Know the hub by its own authority from now on."""
        self._http.close()
        self._http = httpx.Client(base_url=self.url, timeout=10.0, verify=ssl.create_default_context(cafile=ca))

    def sign_in(self, token: str) -> None:
        """Show a token from now on."""
        self._http.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **query: str) -> Any:
        """GET below /api/v1, decoded; asks again for a while when the hub is just being restarted."""
        answer = patiently(lambda: self._http.get(f"/api/v1/{path}", params=query))
        answer.raise_for_status()
        return answer.json()

    def put(self, path: str, body: Any) -> Any:
        """PUT below /api/v1, decoded; sent again for a while when the hub is just being restarted."""
        answer = patiently(lambda: self._http.put(f"/api/v1/{path}", json=body))
        answer.raise_for_status()
        return answer.json()

    def ready(self) -> bool:
        """Whether the hub says that it can work."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


class Fleet:
    """One hub, its embedded broker, and a number of agents, all below one folder."""

    def __init__(self, folder: Path, devices: int = 3, *, insecure: bool = False, more: str = "") -> None:
        """Write the settings of every program.

        Args:
            folder: where data and logs go.
            devices: number of agents.
            insecure: without signatures, certificates and tokens.
            more: lines of TOML for the agents.
        """
        self.folder, self.insecure, self._more = folder, insecure, more
        self.hub_port, self.broker_port = free_port(), free_port()
        self.hub_url = f"http{'' if insecure else 's'}://127.0.0.1:{self.hub_port}"
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        hub_settings = folder / "hub.toml"
        hub_settings.write_text(
            f'fleet = "{FLEET}"\nlisten_host = "127.0.0.1"\nlisten_port = {self.hub_port}\n'
            f'broker_host = "127.0.0.1"\nbroker_port = {self.broker_port}\ninsights_interval_s = 1.0\n'
        )
        argv = [command("cloud-hub"), "serve", "--config", str(hub_settings), "--data", str(folder / "hub")]
        self.hub = Program("cloud-hub", argv, folder / "logs" / "cloud-hub.log", environment(insecure=insecure))
        self.agents = [self._agent(f"camera-{number}") for number in range(1, devices + 1)]
        self.api = Hub(self.hub_url)
        self.people = People(folder / "people", self.hub_url, folder / "hub")

    def _agent(self, device: str) -> Agent:
        port = free_port()
        settings = self.folder / f"{device}.toml"
        settings.write_text(
            f'device = "{device}"\ndata = "{self.folder / device}"\n'
            f'listen_host = "127.0.0.1"\nlisten_port = {port}\nwindow_s = 1.0\ncheckpoint_s = 1.0\nreport_s = 2.0\n'
            f"probation_s = 1.0\nprobation_min_predictions = 5\n{self._more}"
        )
        argv = [command("edge-agent"), "run", "--config", str(settings)]
        program = Program(device, argv, self.folder / "logs" / f"{device}.log", environment(insecure=self.insecure))
        return Agent(device, program, port, settings)

    def start_hub(self) -> None:
        """Start the hub and wait until it is ready (a hub without its broker is not)."""
        if not self.hub.alive:
            self.hub.start()
        if not self.insecure:
            self.wait("the hub's certificates", self.people.ca.exists)
            self.api.trust(self.people.ca)
        self.wait("the hub to be ready", self.api.ready, timeout_s=60)
        if self.insecure:
            return
        self.people.take_admin_token(self.hub.tail())
        self.api.sign_in(self.people.token)

    @property
    def mutual_tls(self) -> bool:
        """Whether the broker asks who its clients are; aMQTT, where Mosquitto is not installed, does not."""
        return "mosquitto" in self.hub.tail()

    def enrol_agents(self) -> None:
        """Every device makes a key, and gets a certificate for it."""
        self.people.enrol([agent.settings for agent in self.agents], "camera-*")

    def start_agents(self) -> None:
        """Start every agent; they know the hub from their enrolment, and find their release by themselves."""
        for agent in self.agents:
            agent.program.start()

    def wait(self, what: str, condition: Callable[[], T], timeout_s: float = 60.0) -> T:
        """Poll ``condition`` until it is true and return its value.

        Raises:
            ProcessFailed: a program ended meanwhile, or the time is over.
        """
        end = time.monotonic() + timeout_s
        while True:
            try:
                if value := condition():
                    return value
            except httpx.HTTPError:
                pass  # a program that starts; the time limit decides
            for program in self.programs:
                program.check()
            if time.monotonic() > end:
                logs = "\n".join(f"--- {program.name}\n{program.tail(12)}" for program in self.programs)
                raise ProcessFailed(f"waited {timeout_s:.0f} s for {what}, in vain\n{logs}")
            time.sleep(0.1)

    @property
    def programs(self) -> list[Program]:
        """Hub and agents."""
        return [self.hub, *(agent.program for agent in self.agents)]

    def on_release(self, digest: str, least: int) -> bool:
        """Whether at least ``least`` devices have committed ``digest``."""
        return sum(device["release"] == digest for device in self.api.get("devices")) >= least

    def device_totals(self) -> dict[str, Any]:
        """The sum of the devices' own ledgers of committed windows."""
        ledgers = [agent.status()["ledger"]["by_release"] for agent in self.agents]
        return normal_totals(
            {f"{n}/{release}": totals for n, own in enumerate(ledgers) for release, totals in own.items()}
        )

    def hub_totals(self) -> dict[str, Any]:
        """The hub's totals over everything that it has merged, in the ledger's terms."""
        return normal_totals(self.api.get("insights/totals")["by_release"])

    def drain(self, timeout_s: float = 60.0) -> None:
        """Close every open window and wait until the hub has acknowledged all."""
        for agent in self.agents:
            agent.flush()
        self.wait(
            "every window to be acknowledged",
            lambda: all(agent.status()["outbox"]["windows"] == 0 for agent in self.agents),
            timeout_s,
        )

    def stop(self) -> dict[str, int]:
        """Stop everything, agents first, in an orderly way; returns each program's exit status."""
        ended = {}
        for agent in self.agents:
            agent.close()
            ended[agent.device] = agent.program.stop()
        self.api.close()
        return {**ended, self.hub.name: self.hub.stop()}


class Agent:
    """One device: its process and a client of its HTTP door."""

    def __init__(self, device: str, program: Program, port: int, settings: Path) -> None:
        self.device, self.program, self.port, self.settings = device, program, port, settings
        self.url = f"http://127.0.0.1:{port}"
        self._client = Client(self.url)

    def status(self) -> dict[str, Any]:
        """The agent's status document."""
        return patiently(self._client.status)

    def flush(self) -> None:
        """Close the open window now."""
        patiently(self._client.flush)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def patiently(call: Callable[[], T], timeout_s: float = 15.0) -> T:
    """Call until it is answered: a program that is being restarted refuses connections for a moment.

    Raises:
        httpx.TransportError: nobody answered within ``timeout_s``.
    """
    end = time.monotonic() + timeout_s
    while True:
        try:
            return call()
        except httpx.TransportError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def normal_totals(by_release: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Sums over releases of the counts that ledgers and hub both keep, in all and for each class."""
    totals: dict[str, Any] = dict.fromkeys(COUNTS, 0)
    classes: list[int] = []
    for release in by_release.values():
        for name in COUNTS:
            totals[name] += release[name]
        classes = [a + b for a, b in zip_longest(classes, release["classes"], fillvalue=0)]
    return {**totals, "classes": classes}
