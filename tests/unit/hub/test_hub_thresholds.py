"""Thresholds by a target, in a real hub: from validation sets, from answers, and honest about what is not known."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cloud_hub import cli
from cloud_hub.escalations.records import EscalationRecord
from cloud_hub.escalations.thresholds import FEWEST_ANSWERS, MOST_ANSWERS
from cloud_hub.records.teaching_tables import escalations
from edgeloop.cascade.drawing import chances
from edgeloop.cascade.hardness import log_odds
from edgeloop.cascade.policy import EscalationPolicy
from tests.doubles.packages import duller, make_package
from tests.unit.hub.api_kit import ApiHub

#: A vendor that nobody may ask about a whole set.
VENDOR = {"kind": "openai", "url": "http://127.0.0.1:9", "model": "m"}


class FittingHub(ApiHub):
    """A hub with releases and teachers."""

    dull: str
    better: str
    blind: str

    def asks(self, name: str, release: str, *, teachers: tuple[str, ...] = ("right",), **escalation: Any) -> None:
        """A channel of its own with a policy, and its release."""
        policy = {"escalation": {"mode": "async", **escalation}, "teaching": {"teachers": teachers}}
        self.put(f"channels/{name}", {"policy": policy})
        if self.hub.channels.get(name).current is None:
            self.post(f"channels/{name}/releases", {"digest": release})

    def fitted(self, name: str) -> dict[str, Any]:
        """What the hub says of the channel's only threshold, once it has looked."""
        self.hub.teaching.thresholds.tick()
        (found,) = self.get("thresholds", channel=name)
        return dict(found)

    def told(self, name: str) -> EscalationPolicy:
        """What devices are told."""
        return EscalationPolicy.from_wire(self.hub.channels.document(name).policy["escalation"])

    def answer(self, name: str, release: str, threshold: float, count: int, *, hard: float) -> None:
        """Rows of a world: the teacher differs as often as the row is hard. Those that are drawn are written down."""
        random = np.random.default_rng(count)
        hardness = random.beta(1.0, 1.0 / hard - 1.0, count)
        probability = chances(log_odds(hardness), float(log_odds(np.array(threshold))), 0.1, 0.02)
        whose = {"device": "camera-1", "row": 0, "channel": name, "release": release, "segment": "", "form": "input"}
        what = {
            "audit": False,
            "wait": False,
            "predicted": 1,
            "confidence": 0.5,
            "bytes": 100,
            "received": self.clock(),
        }
        said = {"state": "answered", "answered": self.clock(), "sure": 0.9, "teacher": "right"}
        rows = []
        for row in np.flatnonzero(random.random(count) < probability):
            drawn = {"prediction": f"p-{next(_NUMBERS)}", "probability": float(probability[row])}
            label = 1 + int(random.random() < hardness[row])
            record = EscalationRecord(**whose, **what, **said, **drawn, label=label, hardness=float(hardness[row]))
            rows.append({name: value for name, value in vars(record).items() if name != "number"})
        with self.hub.db.begin() as connection:
            connection.execute(escalations.insert(), rows)


_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FittingHub]:
    folder = tmp_path_factory.mktemp("thresholds")
    hub = FittingHub(folder / "data")
    right = make_package(folder / "right", name="right")
    hub.dull = hub.publish(duller(right, folder / "dull", 0.5))
    hub.better = hub.publish(duller(right, folder / "better", 0.2))
    hub.blind = hub.publish(make_package(folder / "blind", name="blind", seed=4, validation=False))
    hub.put("teachers/right", {"kind": "package", "release": hub.publish(right)})
    hub.put("teachers/dull", {"kind": "package", "release": hub.dull})
    hub.put("teachers/vendor", VENDOR)
    yield hub
    hub.close()


def test_a_share_is_fitted_to_the_validation_set_and_told_to_devices(api: FittingHub) -> None:
    api.asks("share", api.dull, target={"share": 0.2}, max_share=0.5)
    before = api.hub.channels.document("share")
    assert before.policy["escalation"]["threshold"] == 0.3 and before.policy["escalation"]["thresholds"] == {}
    fit = api.fitted("share")
    assert fit["fitted"] and fit["source"] == "validation" and fit["role"] == "current"
    assert fit["share"] == pytest.approx(0.2, abs=0.02)
    assert (fit["teacher"], fit["teacher_accuracy"]) == ("right", 1.0)
    told = api.told("share")
    assert told.threshold == told.thresholds[api.dull] == fit["threshold"] != 0.3
    assert told.of_release(api.dull).threshold == told.of_release("sha256:" + "0" * 64).threshold == fit["threshold"]
    assert api.hub.channels.document("share").serial > before.serial
    written = [one for one in api.get("audit", about="share") if one["what"] == "channel.threshold"]
    assert written[0]["after"]["threshold"] == fit["threshold"] and written[0]["who"] == "hub:hub"
    serial = api.hub.channels.document("share").serial
    api.hub.teaching.thresholds.tick()
    assert api.hub.channels.document("share").serial == serial, "what has been fitted is not fitted again"


def test_the_next_release_is_fitted_while_it_is_rolled_out(api: FittingHub) -> None:
    api.asks("next", api.dull, target={"share": 0.2}, max_share=0.5)
    first = api.fitted("next")
    api.post("channels/next/releases", {"digest": api.better})
    api.hub.rollouts.tick()
    api.hub.teaching.thresholds.tick()
    by_role = {one["role"]: one for one in api.get("thresholds", channel="next")}
    assert by_role["current"]["threshold"] == first["threshold"]
    assert by_role["candidate"]["release"] == api.better
    assert by_role["candidate"]["threshold"] != first["threshold"]
    assert by_role["candidate"]["share"] == pytest.approx(0.2, abs=0.02)
    told = api.told("next")
    assert told.threshold == first["threshold"]
    assert told.thresholds == {api.dull: first["threshold"], api.better: by_role["candidate"]["threshold"]}
    api.hub.channels.set_current("next", api.better)
    assert api.told("next").threshold == by_role["candidate"]["threshold"], "from the first moment on"


def test_an_accuracy_takes_the_least_share_that_gives_it(api: FittingHub) -> None:
    api.asks("modest", api.dull, target={"accuracy": 0.85}, max_share=0.9)
    api.asks("keen", api.dull, target={"accuracy": 0.95}, max_share=0.9)
    modest, keen = api.fitted("modest"), api.fitted("keen")
    for fit, wanted in ((modest, 0.85), (keen, 0.95)):
        assert wanted <= fit["accuracy"] < wanted + 0.02
    assert modest["share"] < keen["share"]
    assert keen["curve"][0][1] < modest["accuracy"] < keen["curve"][-1][1]


def test_an_accuracy_that_is_out_of_reach_leaves_the_budget_to_rule(api: FittingHub) -> None:
    api.asks("dreams", api.better, teachers=("dull",), target={"accuracy": 0.999}, max_share=0.3)
    fit = api.fitted("dreams")
    assert "0.999 is out of reach" in fit["reason"] and "the budget rules, a share of 0.3" in fit["reason"]
    assert fit["teacher_accuracy"] < 0.9 and fit["share"] <= 0.3
    api.asks("poor", api.dull, target={"accuracy": 0.97}, max_share=0.1)
    fit = api.fitted("poor")
    assert "an accuracy of 0.97 takes a share of" in fit["reason"] and "the budget rules" in fit["reason"]
    assert 0.05 < fit["share"] <= 0.1


def test_a_teacher_whose_accuracy_nobody_knows_is_said_to_be_one(api: FittingHub) -> None:
    api.asks("vendor", api.dull, teachers=("vendor",), target={"accuracy": 0.95}, max_share=0.9)
    fit = api.fitted("vendor")
    assert (fit["teacher"], fit["teacher_accuracy"]) == ("", None)
    assert "the teacher's accuracy on it is not known, and taken for 1" in fit["reason"]
    assert api.get("teachers/vendor")["outcomes"] == {}, "nobody pays for a validation set"


def test_answers_move_a_threshold_at_a_bounded_rate_and_only_where_it_matters(api: FittingHub) -> None:
    api.asks("answers", api.blind, target={"share": 0.2, "refit_s": 600.0}, max_share=0.6)
    fit = api.fitted("answers")
    assert (fit["source"], fit["fitted"], fit["threshold"], fit["share"]) == ("nothing", False, 0.3, None)
    assert "no validation set" in fit["reason"] and "the policy's threshold 0.3 stands" in fit["reason"]
    api.clock.now += 601
    assert f"0 answers of the {FEWEST_ANSWERS}" in api.fitted("answers")["reason"]
    # Of what lies beyond the threshold next to all is drawn, and of the rest a fiftieth.
    api.answer("answers", api.blind, 0.3, 1200, hard=0.25)
    assert api.fitted("answers")["source"] == "nothing", "not before its time"
    api.clock.now += 601
    first = api.fitted("answers")
    assert first["source"] == "answers" and first["teacher"] == "right" and first["fitted"]
    assert first["rows"] <= MOST_ANSWERS and first["effective"] < first["rows"]
    assert first["share"] == pytest.approx(0.2, abs=0.03) and first["threshold"] > 0.3
    assert "accuracy is as the teacher counts" in first["reason"]
    serial = api.hub.channels.document("answers").serial
    # More of the same world changes nothing that devices are told; another world does.
    api.answer("answers", api.blind, first["threshold"], 2500, hard=0.25)
    api.clock.now += 601
    same = api.fitted("answers")
    assert same["threshold"] == first["threshold"] and "no reason to change it" in same["reason"]
    assert api.hub.channels.document("answers").serial == serial
    api.answer("answers", api.blind, first["threshold"], 1000, hard=0.6)
    api.clock.now += 601
    moved = api.fitted("answers")
    assert moved["threshold"] > first["threshold"] and moved["changed"] > first["changed"]
    assert api.told("answers").threshold == moved["threshold"]


def test_another_target_or_teacher_is_another_fit(api: FittingHub) -> None:
    api.asks("again", api.dull, target={"share": 0.1}, max_share=0.5)
    first = api.fitted("again")
    api.asks("again", api.dull, target={"share": 0.3}, max_share=0.5)
    assert api.get("thresholds", channel="again") == [] and api.told("again").threshold == 0.3
    second = api.fitted("again")
    assert second["threshold"] < first["threshold"]
    api.asks("again", api.dull, max_share=0.5)
    api.hub.teaching.thresholds.tick()
    assert api.get("thresholds", channel="again") == [] and api.told("again").thresholds == {}


@pytest.mark.parametrize(
    ("escalation", "said"),
    [
        ({"target": {}}, "a target has either accuracy or share"),
        ({"target": {"accuracy": 0.9, "share": 0.1}}, "a target has either accuracy or share"),
        ({"target": {"share": 0.3}, "max_share": 0.2}, "target.share is 0.3, and max_share allows 0.2"),
        ({"target": {"share": 0.05}, "floor": 0.1}, "target.share is 0.05, and floor alone sends 0.1"),
        ({"target": {"accuracy": 1.5}}, "accuracy"),
    ],
)
def test_targets_that_cannot_be_are_refused(api: FittingHub, escalation: dict[str, Any], said: str) -> None:
    refused = api.http.put("/api/v1/channels/refused", json={"policy": {"escalation": escalation}})
    assert refused.status_code == 422 and said in refused.json()["error"]


def test_a_release_that_cannot_be_run_keeps_the_policys_threshold(
    api: FittingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = api.hub.releases.open(api.dull)
    broken = replace(package.variants["cpu-fp32"], weights_uri="sha256:absent")
    monkeypatch.setattr(type(package), "variants", {"cpu-fp32": broken})
    api.asks("broken", api.dull, target={"share": 0.1})
    fit = api.fitted("broken")
    assert not fit["fitted"] and "its validation set cannot be run" in fit["reason"]


def test_the_command_and_the_metrics_say_it(api: FittingHub) -> None:
    api.asks("shown", api.dull, target={"share": 0.2}, max_share=0.5)
    fit = api.fitted("shown")
    api.hub.access.local.write(str(api.http.base_url).rstrip("/"))

    def run(*arguments: str) -> str:
        found = CliRunner().invoke(cli.app, ["thresholds", *arguments, "--data", str(api.hub.settings.data)])
        assert found.exit_code == 0, found.output
        return found.stdout

    api.asks("nobody", api.dull)
    told = run("--channel", "shown")
    assert told.startswith(f"shown  current {api.dull[:19]}…  for share 0.2\n  threshold {fit['threshold']:.4f}: share")
    assert json.loads(run("--channel", "shown", "--json")) == [fit]
    assert "set escalation.target" in run("--channel", "nobody")
    metrics = api.http.get("/metrics").text
    labels = f'{{channel="shown",release="{api.dull}"}}'
    assert f"cloud_hub_threshold{labels} {fit['threshold']}" in metrics
    assert f"cloud_hub_threshold_expected_share{labels} {fit['share']}" in metrics
