"""Audits in a real agent: its answers say so, a list names them, their labels count apart, its status shows them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.observing.policy import PolicyInForce
from edge_agent.observing.store import Store
from edgeloop.insights import drawn_rows
from edgeloop.insights.policy import KEY, InsightsPolicy, Limits
from edgeloop.package import Package
from tests.doubles import digits
from tests.doubles.installed import install
from tests.integration.agent_process import AgentProcess
from tests.integration.hub_process import wait_for

SHARE, ASKED = 0.3, 120


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that remembers what its channel asked for before its hub was gone."""
    agent = AgentProcess(tmp_path / "agent")
    digits.build(tmp_path / "digits", precision=("fp32",))
    install(Package.open(tmp_path / "digits"), agent.data)
    store = Store(agent.data / "agent.db")
    PolicyInForce(store, Limits(), InsightsPolicy, KEY).take(InsightsPolicy(audit_share=SHARE).to_wire())
    store.close(clean=True)
    agent.start(ready=True)
    yield agent
    agent.close()


def ask(agent: AgentProcess, identity: str, rows: Any) -> dict[str, Any]:
    tensor = {"name": "input", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    answer = agent.http.post("/v2/models/digits/infer", json={"id": identity, "inputs": [tensor]})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_from_the_answer_to_the_status(agent: AgentProcess) -> None:
    test = digits.splits().test
    drawn = []
    for number in range(ASKED):
        answer = ask(agent, f"p{number}", test.x[number : number + 1])
        assert (answer.get("parameters") == {"audit": True}) == bool(drawn_rows(f"p{number}", 1, SHARE))
        drawn += [number] if "parameters" in answer else []
    batch = ask(agent, "batch", test.x[:20])
    rows = drawn_rows("batch", 20, SHARE)
    assert batch["parameters"] == {"audit": True, "audit_rows": ",".join(map(str, rows))}
    asked = agent.http.get("/edgeloop/v1/audits").json()["audits"]
    expected = {(f"p{number}", 0) for number in drawn} | {("batch", row) for row in rows}
    assert {(one["id"], one["index"]) for one in asked} == expected
    labels = [{"id": f"p{number}", "label": int(test.y[number])} for number in (*drawn, drawn[0])]
    labels += [{"id": "batch", "index": row, "label": int(test.y[row])} for row in rows]
    answered = agent.http.post("/edgeloop/v1/feedback", json={"items": labels}).json()
    assert answered["accepted"] == len(expected) and answered["duplicate"] == [f"p{drawn[0]}"]
    assert agent.http.get("/edgeloop/v1/audits").json() == {"audits": []}

    def audited() -> bool:
        found = agent.status()["accuracy"]
        return found is not None and found["audits"]["labelled"] == len(expected)

    wait_for(audited, 30, "the closed windows in the status")
    found = agent.status()["accuracy"]
    assert found["audits"]["drawn"] == len(expected) and found["labels"]["plain"] is None
    right = float(np.mean([one["predicted"] == test.y[_row(one)] for one in asked]))
    assert found["audits"]["accuracy"]["low"] <= right <= found["audits"]["accuracy"]["high"]
    assert found["estimate"]["expected"]["rows"] == ASKED + 20
    # Who gave an answer is known for as long as it is kept, for whoever traces a prediction.
    told = agent.http.get("/edgeloop/v1/predictions/batch").json()
    assert told["id"] == "batch" and [row["index"] for row in told["rows"]] == list(range(20))
    assert {row["release"] for row in told["rows"]} == {agent.status()["release"]}
    assert agent.http.get("/edgeloop/v1/predictions/never").status_code == 404


def _row(one: dict[str, Any]) -> int:
    return one["index"] if one["id"] == "batch" else int(one["id"][1:])
