"""Differential privacy through all of it: the hub's policy reaches a real agent; the hub counts what left."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeloop.insights.privacy.rule import PrivacyRule
from tests.doubles.packages import make_package
from tests.integration.hub_process import wait_for
from tests.system.fleet import Fleet, add_up

pytest.importorskip("dp_accounting", reason="pip install 'edgeloop[privacy]'")

#: A quarter of an hour, which has room for more windows of 0.7 s than are closed here.
RULE = PrivacyRule(epsilon=3.0, days=0.01)


def test_a_noised_fleet_balances_its_books(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, make_package(tmp_path / "package"), 1)
    (device,) = fleet.devices
    try:
        policy = {"insights": {"privacy": RULE.to_wire()}}
        answer = fleet.hub.api.put("/api/v1/channels/stable", json={"policy": policy})
        assert answer.status_code == 200, answer.text
        wait_for(lambda: device.agent.status()["privacy"]["epsilon"] == RULE.epsilon, 60, "the policy")
        device.caller.start()
        wait_for(lambda: device.caller.answered.rows > 300, 60, "some answers")
        device.caller.stop()
        with device.caller.still() as answered:
            assert device.agent.http.post("/edgeloop/v1/flush").status_code == 200
        wait_for(lambda: device.agent.status()["outbox"]["windows"] == 0, 60, "the windows to arrive")

        ledger, found = add_up([device.ledger()]), add_up([fleet.hub.get("insights/totals")["by_release"]])
        (release,) = ledger
        assert ledger[release]["predictions"] == found[release]["predictions"] == answered.rows, "volumes are exact"
        assert ledger[release]["classes"].tolist() == found[release]["classes"].tolist(), "the books say what left"
        assert found[release]["classes"].tolist() != answered.classes.tolist(), "and that is not what was answered"
        assert fleet.hub.get("quarantine")["counts"] == {}
        status = device.agent.status()["privacy"]
        windows = RULE.windows(0.7, 1)
        assert 0 < status["left"] < windows and (status["withheld"], status["trouble"]) == (0, "")
    finally:
        fleet.close()
