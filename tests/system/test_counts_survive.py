"""Every count arrives exactly once, whatever is killed, cut, doubled or late. `make soak` runs the long form."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.packages import make_package, new_head
from tests.integration.hub_process import wait_for
from tests.system.chaos import Chaos
from tests.system.fleet import COUNTS, Device, Fleet, add_up

SOAK = os.environ.get("EDGELOOP_SOAK") == "1"
DEVICES, PREDICTIONS, ROUNDS, RUNS = (10, 10_000, 6, 3) if SOAK else (3, 1_000, 1, 1)
#: While a device has no release loaded (it starts) it says so, and counts nothing.
NOT_READY = {0, 404, 503}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(RUNS))
def test_what_clients_were_answered_is_what_the_hub_has_counted(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make_package(tmp_path / "one")
    fleet = Fleet(tmp_path, first, DEVICES)
    try:
        chaos = Chaos(fleet, seed)
        for device in fleet.devices:
            device.caller.start()
        rounds = 0
        while rounds < ROUNDS or min(device.caller.answered.rows for device in fleet.devices) < PREDICTIONS:
            if rounds == ROUNDS // 2:  # a switch of the release in the middle of it all
                fleet.publish(new_head(first, tmp_path / "two", "2"))
            chaos.round(agents=max(2, DEVICES // 2))
            rounds += 1
        for device in fleet.devices:
            device.caller.stop()
        fleet.drain(120)
        if SOAK:
            with capsys.disabled():
                print(table(fleet, chaos, seed))

        ledgers = [device.ledger() for device in fleet.devices]
        found = fleet.hub.get("insights/totals")["by_release"]
        assert comparable(add_up([found])) == comparable(add_up(ledgers)), "the hub's totals are the ledgers'"
        assert fleet.hub.get("quarantine")["counts"] == {}, "nothing was set aside"
        for device, ledger in zip(fleet.devices, ledgers, strict=True):
            check(device, ledger, fleet)
        tricks = sum((device.cable.tricks for device in fleet.devices), start=type(fleet.devices[0].cable.tricks)())
        assert tricks["twice"] and tricks["later"], tricks
    finally:
        fleet.close()


def check(device: Device, ledger: dict[str, dict[str, Any]], fleet: Fleet) -> None:
    """One device's account: what its client was answered, its ledger, and what the hub counted for it."""
    for life in device.lives:
        life.check()
    assert set(device.caller.refused) <= NOT_READY, device.caller.refused
    own = fleet.hub.get(f"devices/{device.name}")["totals"]
    for name in COUNTS:
        assert own[name] == sum(counts[name] for counts in ledger.values()), (device.name, name)
    assert (own["gaps"], own["quarantined"]) == (0, 0), device.name
    restarts = device.agent.status()["unclean_restarts"]
    # A kill before the agent had opened its database has lost nothing and is none to report.
    assert device.serving_kills <= restarts <= device.kills, device.name
    wait_for(
        lambda: fleet.hub.get(f"devices/{device.name}")["unclean_restarts"] == restarts,
        30,
        "the report of its restarts",
    )


def comparable(totals: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {release: {**counts, "classes": counts["classes"].tolist()} for release, counts in totals.items()}


def table(fleet: Fleet, chaos: Chaos, seed: int) -> str:
    """The totals, for people: what was answered, lost with kills, kept by the devices and counted by the hub."""
    head = ("device", "answered", "unsure", "lost", "in the ledger", "in the hub", "labels", "in the hub", "kills")
    rows: list[tuple[object, ...]] = []
    for device in fleet.devices:
        answered, own = device.caller.answered, fleet.hub.get(f"devices/{device.name}")["totals"]
        ledger = add_up([device.ledger()]).values()
        rows.append(
            (
                device.name,
                answered.rows,
                answered.unsure,
                sum(life.lost for life in device.lives),
                sum(counts["predictions"] for counts in ledger),
                own["predictions"],
                answered.labels,
                own["feedback"],
                device.kills,
            )
        )
    rows.append(("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
    lines = ["".join(f"{cell:>14}" for cell in row) for row in (head, *rows)]
    tricks = {kind: sum(device.cable.tricks[kind] for device in fleet.devices) for kind in ("twice", "later")}
    happened = ", ".join(f"{count} × {kind}" for kind, count in sorted(chaos.happened.items()))
    lives = [life for device in fleet.devices for life in device.lives]
    rows, seconds = max(life.lost for life in lives), max(life.lost_s for life in lives)
    lines.append(f"seed {seed}: {happened}; windows sent twice: {tricks['twice']}, out of order: {tricks['later']}")
    lines.append(f"the most that one kill has cost: {rows} predictions; the longest stretch: {seconds:.1f} s")
    return "\n" + "\n".join(lines)
