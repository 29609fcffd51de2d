"""Run it: a hub gives an agent its model; then a scanner and a pen hand it real digits, and nobody calls it.

    python -m examples.listening

It needs the extras [demo] and [pictures], takes half a minute, and fails when an answer is missing or too many of them
are wrong.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from examples.digits.data import load
from examples.digits.fleet import CHANNEL, FLEET, Fleet
from examples.digits.model import write_sources
from examples.digits.processes import ProcessFailed, Program, command, environment, free_port
from examples.listening.world import House, Pen, Scanner, logged, named

SETTINGS = Path(__file__).with_name("agent.toml")
DIGITS = 60
#: Share of right answers, on digits that the model has never seen.
LEAST_RIGHT = 0.9


def main() -> int:
    """Exit status: 0 when every digit was answered and enough are right, else 1; 2 when it could not be run."""
    with tempfile.TemporaryDirectory(prefix="edgeloop-listening-", ignore_cleanup_errors=True) as temporary:
        try:
            return listen(Path(temporary))
        except ProcessFailed as error:
            print(f"the example could not go on: {error}", file=sys.stderr)
            return 2


def listen(folder: Path) -> int:
    """Tell the story in a folder; returns the exit status."""
    # The house and the fleet share a broker here; one with certificates would let no device hear a pen.
    fleet = Fleet(folder, devices=0, insecure=True)
    device = folder / "sorter-1"
    device.mkdir()
    shutil.copy(SETTINGS, device)
    settings = environment(insecure=True) | {
        "EDGE_AGENT_FLEET": FLEET,
        "EDGE_AGENT_HUB": fleet.hub_url,
        "EDGE_AGENT_BROKER_PORT": str(fleet.broker_port),
        "EDGE_AGENT_LISTEN_PORT": str(free_port()),
    }
    argv = [command("edge-agent"), "run", "--config", "agent.toml"]
    agent = Program("sorter-1", argv, device / "log", settings, cwd=device)
    try:
        print("a hub, and a model on its channel …")
        fleet.start_hub()
        publish(fleet, folder)
        print("an agent that listens …")
        agent.start()
        return show(fleet, device)
    finally:
        agent.stop()
        fleet.stop()


def publish(fleet: Fleet, folder: Path) -> None:
    """Train a model on digits, and offer it on the channel."""
    model, data = write_sources(load(), folder)
    package = str(folder / "package")
    options = ["--data", str(data), "--name", "digits", "--version", "1", "--trust-source"]
    fleet.people.export("build", str(model), "-o", package, *options)
    fleet.people.export("publish", package, "--hub", fleet.hub_url, "--channel", CHANNEL)


def show(fleet: Fleet, device: Path) -> int:
    """Have digits scanned and written, and hear what comes of them; returns the exit status."""
    digits = load().judge
    house, pen, scanner = House(fleet.broker_port), Pen(fleet.broker_port), Scanner(device / "inbox")
    try:
        # The first stroke may come before the agent has subscribed: it is repeated until it was heard.
        fleet.wait(
            "the agent to hear", lambda: pen.write(digits.x[0], "first") and logged(device / "results.jsonl"), 90
        )
        begin = time.monotonic()
        truth = {}
        for number, (image, label) in enumerate(zip(digits.x[:DIGITS], digits.y, strict=False)):
            name = f"{'scan' if number % 2 else 'pen'}-{number}"
            truth[name] = str(label)
            if number % 2:
                scanner.scan(image, name)
            else:
                fleet.wait("the broker", lambda image=image, name=name: pen.write(image, name))  # type: ignore[misc]
        heard = fleet.wait("every answer", lambda: (found := answers(house)).keys() >= truth.keys() and found)
        right = sum(heard[name] == label for name, label in truth.items())
        print(f"{DIGITS} digits, scanned and written, in {time.monotonic() - begin:.1f} s: {right} right")
        for sensor in house.sensors().values():
            print(f"Home Assistant sees {sensor['name']}: {sensor['state_topic']}")
        return 0 if right >= LEAST_RIGHT * DIGITS else 1
    finally:
        pen.close()
        house.close()


def answers(house: House) -> dict[str, str]:
    """What the house has heard, by name of the digit."""
    return {named(result): str(result["state"]) for result in house.results()}


if __name__ == "__main__":
    sys.exit(main())
