"""What a fleet costs: counted once, priced by a person, and stopped where a budget is spent."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from cloud_hub import cost_commands
from cloud_hub.access.principals import LOCAL, Principal, Role
from cloud_hub.api import costs as costs_api
from cloud_hub.api import errors
from cloud_hub.api.guard import principal
from cloud_hub.cli import app as cli
from cloud_hub.costs import Costs
from cloud_hub.costs.ledger import DAY_S
from cloud_hub.costs.prices import Amounts, Budget, Prices, all_in_cloud, money, spent
from cloud_hub.errors import BadRequest, Conflict
from cloud_hub.escalations.records import ANSWERED, EscalationRecord, EscalationRecords
from cloud_hub.insights_store import Additions
from cloud_hub.records.decision_tables import training_runs
from edgeloop.insights import Observer, Window
from edgeloop.package import Package
from examples.digits.data import CLEAN
from tests.integration.digits_package import digits_package  # noqa: F401
from tests.integration.loop_world import CHANNEL, Camera, World

PRICES = {"device_hour": 3600.0, "uplink_gb": 1e6, "downlink_gb": 1e6, "training_hour": 3600.0, "cloud_thousand": 10.0}
WINDOW_BYTES = 1500


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, package: Package) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("costs"))
    world.channels.offer(CHANNEL, world.publish(package), world.rollouts)
    world.add_device("camera-1")
    yield world
    world.close()


@pytest.fixture
def costs(world: World) -> Costs:
    """Each test begins on a day of its own."""
    world.clock.now += 3 * DAY_S
    found = Costs(world.db, world.releases, clock=world.clock)
    found.configure({"prices": PRICES})
    return found


def answer(world: World, costs: Costs, rows: int = 20, nanoseconds: int = 5_000_000) -> None:
    """A window of a device, as ingest counts it."""
    digest = world.channels.get(CHANNEL).current
    profile = world.releases.profile(digest or "")
    assert digest is not None and profile is not None
    seen = Camera(CLEAN, per_window=rows).next()
    probabilities, features = world.infer(digest, seen.x)
    window = Window.zero(profile.schema, digest, "cpu-fp32", "CPU", world.clock() - 1.0, world.clock())
    times = np.full(rows, nanoseconds)
    Observer(profile).observe(window, seen.x, probabilities, features, times, run_ns=times)
    additions = Additions()
    additions.add(CHANNEL, world.clock() // 1, window)
    with world.db.begin() as connection:
        world.insights.add(connection, additions, world.clock())
        costs.count(connection, additions, {(CHANNEL, digest): WINDOW_BYTES}, world.clock())


def escalate(world: World, name: str, cost: float, size: int = 400) -> None:
    record = EscalationRecord(
        *("camera-1", name, 0, CHANNEL, world.channels.get(CHANNEL).current or "", "", "input", 0.5, False, False, 3),
        confidence=0.4,
        bytes=size,
        received=world.clock(),
        state=ANSWERED,
        label=8,
        teacher="large",
        cost=cost,
    )
    with world.db.begin() as connection:
        EscalationRecords(world.db).write(connection, record, None, None)


def today(costs: Costs) -> dict[str, Any]:
    (found,) = [day for day in costs.report(1)["days"] if day["channel"] == CHANNEL]
    return found


def test_windows_are_counted_with_their_bytes_and_their_runs(world: World, costs: Costs, package: Package) -> None:
    for _ in range(2):
        answer(world, costs)
    found = today(costs)
    assert (found["predictions"], found["uplink_bytes"], found["model"]) == (40, 2 * WINDOW_BYTES, package.name)
    assert found["device_ns"] == pytest.approx(40 * 5_000_000, rel=0.03)
    assert found["money"]["device"] == pytest.approx(40 * 0.005, rel=0.03) and found["money"]["uplink"] == 3.0
    # An input is 64 float32: what it would have cost to send them all, and to have them answered.
    assert found["all_in_cloud"] == pytest.approx(40 * 256 / 1e9 * 1e6 + 0.4)


def test_what_other_parts_have_written_is_measured_and_not_counted_twice(world: World, costs: Costs) -> None:
    escalate(world, f"p-{world.clock()}", 0.25)
    parent = world.channels.get(CHANNEL).current
    times = {"created": world.clock() - 9, "started": world.clock() - 7, "ended": world.clock() - 3}
    texts = dict.fromkeys(("cause", "reason", "trigger", "recipe", "data"), "")
    with world.db.begin() as connection:
        values = {"channel": CHANNEL, "state": "refused", "interrupted": False, "parent": parent, "labels": 1}
        names = {column.name for column in training_runs.columns}
        extra = {name: value for name, value in {**texts, "attempts": 1}.items() if name in names}
        json = {"verdict_json": "{}", "candidate_json": "{}"}
        connection.execute(training_runs.insert().values(**values, **times, **extra, **json))
    world.sample("camera-1", "s", 600)
    costs.fetched("camera-1", 3000)
    costs.fetched("never-seen", 7)
    first = today(costs)
    assert (first["teacher_calls"], first["teacher_money"], first["escalation_bytes"]) == (1, 0.25, 400)
    assert first["sample_bytes"] == 600 and first["money"]["uplink"] == pytest.approx(1.0)
    assert first["training_s"] == pytest.approx(4.0) and first["money"]["training"] == pytest.approx(4.0)
    assert first["downlink_bytes"] == 3000 and first["money"]["downlink"] == 3.0
    assert first["storage_bytes"] > 0
    assert today(costs) == first
    unknown = [day for day in costs.report(1)["days"] if not day["channel"] and not day["model"]]
    assert [day["downlink_bytes"] for day in unknown] == [7]
    # Another life of the hub, and a day later: what was counted stays what it was.
    day = first["day"]
    world.clock.now += DAY_S
    again = Costs(world.db, world.releases, clock=world.clock)
    assert again.settings == costs.settings
    (kept,) = [row for row in again.report(2)["days"] if row["day"] == day and row["channel"] == CHANNEL]
    assert kept == first


def test_a_release_is_stored_once_and_on_no_channel(world: World, costs: Costs, package: Package) -> None:
    costs.tick()
    (found,) = [day for day in costs.report(1)["days"] if day["model"] == package.name and not day["channel"]]
    assert found["storage_bytes"] == sum({entry.sha256: entry.size for entry in package.index.entries}.values())
    assert costs.report(1, channel=CHANNEL, model="other")["days"] == []


def test_a_budget_that_is_spent_stops_what_it_says(world: World, costs: Costs) -> None:
    budgets = [
        {"channel": CHANNEL, "money": 1.0, "stops": ["escalations"]},
        {"period": "month", "money": 1e9},
        {"channel": "other", "money": 0.5},
    ]
    costs.configure({"prices": PRICES, "budgets": budgets})
    escalate(world, f"q-{world.clock()}", 0.5)
    costs.tick()
    assert costs.stopped("escalations", CHANNEL) == "", "escalations' bytes and the teacher: 0.9 of 1"
    escalate(world, f"r-{world.clock()}", 0.5)
    costs.tick()
    assert "the budget of 1 EUR a day is spent" in costs.stopped("escalations", CHANNEL)
    assert costs.stopped("training", CHANNEL) == "" and costs.stopped("escalations", "other") == ""
    assert [each["over"] for each in costs.report(1)["budgets"]] == [True, False, False]
    world.clock.now += DAY_S
    costs.tick()
    assert costs.stopped("escalations", CHANNEL) == "", "another day"


def test_a_budget_of_a_model_stops_the_channels_on_which_it_costs_something(
    world: World, costs: Costs, package: Package
) -> None:
    costs.configure({"prices": PRICES, "budgets": [{"model": package.name, "money": 0.1, "stops": ["training"]}]})
    answer(world, costs)
    costs.tick()
    assert costs.stopped("training", CHANNEL) and not costs.stopped("training", "other")
    assert not costs.stopped("escalations", CHANNEL)
    costs.configure({"prices": PRICES, "budgets": [{"model": package.name, "money": 1e6, "stops": ["training"]}]})
    assert not costs.stopped("training", CHANNEL), "it was raised"


def test_no_run_starts_while_the_budget_is_spent(world: World) -> None:
    training = world.make_training(stopped=lambda channel: "the budget is spent")
    with pytest.raises(Conflict, match="the budget is spent"):
        training.request(CHANNEL)
    assert training.outlook(CHANNEL).reason == "the budget is spent"


@pytest.mark.parametrize(
    "wrong",
    [
        {"prices": {"device_hour": -1}},
        {"prices": {"device_hour": float("nan")}},
        {"prices": {"petrol": 1}},
        {"budgets": [{"money": 1, "stops": ["everything"]}]},
        {"budgets": [{}]},
        [],
    ],
)
def test_what_are_no_prices(costs: Costs, wrong: Any) -> None:
    before = costs.settings
    with pytest.raises(BadRequest):
        costs.configure(wrong)
    assert costs.settings == before


def test_money_is_the_sum_of_its_parts() -> None:
    amounts = Amounts(1000, 3_600_000_000_000, 10**9, 2 * 10**9, 10**9 // 2, 10**9 // 2, 5, 2.5, 1800.0, 10**9)
    prices = Prices(device_hour=1, uplink_gb=1, downlink_gb=1, training_hour=1, storage_gb_month=365.25)
    assert money(amounts, prices) == pytest.approx(
        {"device": 1, "uplink": 2, "downlink": 2, "teachers": 2.5, "training": 0.5, "storage": 12, "total": 20}
    )
    assert all_in_cloud(2000, None, Prices(cloud_thousand=3, uplink_gb=9)) == 6.0
    rows = [("a", "m", amounts), ("b", "m", amounts), ("a", "n", amounts)]
    assert spent(Budget(channel="a", money=1), rows, prices) == pytest.approx(40)
    assert spent(Budget(channel="a", model="n", money=1), rows, prices) == pytest.approx(20)


def asked(costs: Costs, who: Principal, **query: Any) -> Any:
    """What the API answers somebody."""
    app = FastAPI()
    errors.install(app)
    hub: Any = SimpleNamespace(costs=costs)
    app.include_router(costs_api.router(hub), prefix="/api/v1")
    app.dependency_overrides[principal] = lambda: who
    return TestClient(app).get("/api/v1/costs", params=query)


def test_the_answer_and_the_command(
    world: World, costs: Costs, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs.configure({"prices": PRICES, "budgets": [{"channel": CHANNEL, "money": 0.1}, {"money": 1e6}]})
    answer(world, costs)
    everything = asked(costs, LOCAL, days=1)
    assert everything.status_code == 200, everything.text
    assert everything.json()["total"]["predictions"] == 20 and len(everything.json()["budgets"]) == 2
    mine = Principal("token", "mine", frozenset({Role.VIEWER}), channels=frozenset({CHANNEL}))
    theirs = asked(costs, mine, days=1, channel=CHANNEL).json()
    assert [budget["budget"]["channel"] for budget in theirs["budgets"]] == [CHANNEL]
    other = Principal("token", "other", frozenset({Role.VIEWER}), models=frozenset({"other"}))
    assert asked(costs, other, days=1).status_code == 403
    assert asked(costs, other, days=1, model="other").json()["total"]["predictions"] == 0

    monkeypatch.setattr(cost_commands, "ask", lambda config, data, method, path: everything.json())
    told = CliRunner().invoke(cli, ["costs", "--days", "1"])
    assert told.exit_code == 0, told.output
    assert f"{CHANNEL}  {package.name}  20 predictions" in told.output
    assert f"budget of channel {CHANNEL}" in told.output and "SPENT: escalations and training stopped" in told.output
    assert "budget of everything" in told.output and "not spent" in told.output
