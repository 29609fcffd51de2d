"""From a release or a prediction back to everything that led to it, and forward: told by API and command alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from cloud_hub.access.principals import Principal, Role, on_behalf_of
from cloud_hub.api.lineage import LineageAnswer, _theirs
from cloud_hub.cli import app
from cloud_hub.errors import BadRequest, Forbidden, NotFound
from cloud_hub.escalations.records import ANSWERED, EscalationRecord, EscalationRecords
from cloud_hub.lineage import Lineages, plain
from cloud_hub.lineage.story import story
from edgeloop.package import Package
from edgeloop.trust.names import ROOT, TARGETS
from examples.digits.data import CLEAN, FIRST_SLIP
from tests.doubles.people import People
from tests.integration.digits_package import digits_package  # noqa: F401
from tests.integration.loop_world import CHANNEL, POLICY, Camera, World

PUBLISHER = Principal("token", "publisher", frozenset({Role.PUBLISHER}))
APPROVER = Principal("person", "ada", frozenset({Role.APPROVER}))
ESCALATED, SAMPLED, SHARED = "0a1b2c3d4e5f-7", "0a1b2c3d4e5f-8", "door-7"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, package: Package) -> Iterator[World]:
    """A signed fleet whose loop has closed once, with an approval."""
    world = World(tmp_path_factory.mktemp("lineage") / "hub", signed=True)
    people = People(
        {"fleet": "test", "versions": {}, "named": [], "online": world.trust.view().online},
        world.clock.now,
        package.name,
    )
    for role in (ROOT, TARGETS):
        world.trust.accept(role, people.file(role))
    with on_behalf_of(PUBLISHER):
        world.trust.accept(*people.release(package))
        world.channels.offer(CHANNEL, world.publish(package), world.rollouts)
    steps = POLICY.rollout.model_copy(update={"approvals": 1})
    world.channels.set_policy(CHANNEL, POLICY.model_copy(update={"rollout": steps}))
    world.add_device("camera-1")
    world.run(Camera(CLEAN), 5)
    camera, first = Camera(FIRST_SLIP), world.channels.get(CHANNEL).current
    for _ in range(60):
        world.run(camera, 1, labelled=True)
        if (waiting := world.rollouts.active(CHANNEL)) is not None and waiting.step < 0:
            with on_behalf_of(APPROVER):
                world.rollouts.approve(waiting.id, "it saw what I saw")
        if world.channels.get(CHANNEL).current != first:
            break
    escalations = EscalationRecords(world.db)
    record = EscalationRecord(
        *("camera-1", ESCALATED, 0, CHANNEL, last(world), "", "input", 0.5, False, False, 3, 0.4, 300),
        received=world.clock.now,
    )
    answered = dataclasses.replace(record, state=ANSWERED, label=8, teacher="large", cost=0.001)
    others = [dataclasses.replace(answered, prediction=SHARED, device=f"camera-{number}") for number in (1, 2)]
    with world.db.begin() as connection:
        for each in (answered, *others):
            escalations.write(connection, each, None, None)
    world.sample("camera-1", SAMPLED)
    yield world
    world.close()


def first(world: World) -> str:
    return next(release.digest for release in world.releases.all() if release.parent is None)


def last(world: World) -> str:
    current = world.channels.get(CHANNEL).current
    assert current is not None
    assert current != first(world), (world.training.newest(), world.rollouts.newest())
    return current


def asked(world: World, reference: str, device: str | None = None) -> dict[str, Any]:
    found = plain(Lineages(world.db, world.folder / "attestations").of(reference, device))
    LineageAnswer.model_validate(found)
    return found


def test_the_whole_chain_of_the_last_release(world: World, package: Package) -> None:
    found = asked(world, last(world))
    made, base = found["chain"]
    assert (made["release"]["digest"], base["release"]["digest"]) == (last(world), package.digest)
    assert (made["release"]["source"], base["release"]["source"]) == ("retrained", "published")
    assert base["release"]["published_by"] == "token:publisher"
    assert base["signed"]["path"] == f"releases/{package.name}/1" and len(base["signed"]["keys"]) == 1
    assert made["signed"]["path"].startswith(f"retrained/{package.name}/1/")
    assert made["signed"]["keys"] and made["signed"]["keys"] == made["made"]["keys"]
    assert made["made"]["builder"] == "cloud-hub"
    assert package.digest.removeprefix("sha256:") in made["made"]["materials"].values()

    run, alarm = made["run"], made["alarm"]
    assert run["state"] == "released" and run["release"] == last(world) and run["alarm"] == alarm["id"]
    assert run["candidate"]["trainer"] == "head" and run["candidate"]["data"]["labels"] >= 400
    assert run["verdict"]["passed"] and "of the mass moved" in alarm["summary"]
    (rollout,) = made["rollouts"]
    assert rollout["id"] == run["rollout"] and rollout["state"] == "finished" and rollout["current"] == package.digest
    assert [(each["who"], each["reason"]) for each in rollout["approvals"]] == [("person:ada", "it saw what I saw")]
    assert [entry["decision"] for entry in rollout["history"]][-1] == "finish"
    assert [each["channel"] for each in made["assigned"]] == [CHANNEL]
    assert [(each["channel"], each["who"]) for each in base["assigned"]] == [(CHANNEL, "token:publisher")]
    assert base["run"] is None and base["alarm"] is None and base["rollouts"] == []

    assert found["uses"] == [{"channel": CHANNEL, "role": "current"}] and found["devices"] == 1
    assert found["successors"] == [] and found["unknown"] == []


def test_forward_from_the_first_release(world: World, package: Package) -> None:
    found = asked(world, package.digest)
    assert [each["digest"] for each in found["successors"]] == [last(world)]
    assert found["uses"] == [{"channel": CHANNEL, "role": "previous"}] and found["devices"] == 0
    assert len(found["chain"]) == 1


def test_some_digits_are_enough(world: World) -> None:
    digits = last(world).removeprefix("sha256:")
    assert asked(world, digits[:8])["chain"] == asked(world, f"sha256:{digits[:12]}")["chain"]
    with pytest.raises(NotFound, match="no release"):
        asked(world, "sha256:" + "0" * 64)


def test_a_prediction_that_was_escalated(world: World) -> None:
    found = asked(world, ESCALATED)
    (seen,) = found["prediction"]["sightings"]
    assert (seen["device"], seen["release"], seen["record"]) == ("camera-1", last(world), "escalation")
    assert seen["facts"]["label"] == 8 and seen["facts"]["teacher"] == "large"
    assert found["chain"] == asked(world, last(world))["chain"]
    assert asked(world, ESCALATED, "camera-1") == found


def test_a_prediction_that_was_sampled(world: World) -> None:
    found = asked(world, SAMPLED)
    (seen,) = found["prediction"]["sightings"]
    assert (seen["device"], seen["release"], seen["record"]) == ("camera-1", last(world), "sample")
    assert seen["facts"]["strategy"] == "random" and len(found["chain"]) == 2


def test_an_id_that_several_devices_were_given(world: World) -> None:
    found = asked(world, SHARED)
    assert [seen["device"] for seen in found["prediction"]["sightings"]] == ["camera-1", "camera-2"]
    assert "more than once" in found["unknown"][0] and len(found["chain"]) == 2, "one release has answered both"
    assert [seen["device"] for seen in asked(world, SHARED, "camera-2")["prediction"]["sightings"]] == ["camera-2"]


def test_what_a_hub_cannot_know_is_said(world: World) -> None:
    with pytest.raises(NotFound, match="no prediction that this hub has a record of") as refused:
        asked(world, "never-heard-of")
    assert "/edgeloop/v1/predictions/" in refused.value.hint
    found = asked(world, "never-heard-of", "camera-1")
    assert found["chain"] == [] and found["prediction"]["sightings"] == []
    assert f"camera-1 runs {last(world)} now" in found["unknown"][0]
    with pytest.raises(NotFound, match="no device"):
        asked(world, "never-heard-of", "camera-9")


def test_digits_of_several_releases(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [dataclasses.replace(each, digest="sha256:" + "ab" * 32) for each in world.releases.all()]
    monkeypatch.setattr("cloud_hub.lineage.lineages.releases.every", lambda connection: twice)
    with pytest.raises(BadRequest, match="2 releases begin with abababab"):
        asked(world, "abababab")


def test_releases_whose_parents_make_a_circle(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = world.releases.all()
    circle = [dataclasses.replace(one, parent=other.digest), dataclasses.replace(other, parent=one.digest)]
    monkeypatch.setattr("cloud_hub.lineage.lineages.releases.every", lambda connection: circle)
    found = asked(world, one.digest)
    assert len(found["chain"]) == 2 and [each["digest"] for each in found["successors"]] == [other.digest]


def test_a_base_that_this_hub_does_not_have(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [each for each in world.releases.all() if each.parent is not None]
    monkeypatch.setattr("cloud_hub.lineage.lineages.releases.every", lambda connection: alone)
    found = asked(world, alone[0].digest)
    assert len(found["chain"]) == 1 and f"does not have {alone[0].parent}" in found["unknown"][0]


def test_the_story(world: World, package: Package) -> None:
    text = "\n".join(story(asked(world, ESCALATED)))
    for told in (
        f"prediction {ESCALATED}",
        "row 0: camera-1 on stable",
        f"{package.name} {package.version}  {package.digest}",
        "by token:publisher",
        f"signed      as releases/{package.name}/1 by key ",
        "vouches for that",
        "run 1",
        "trainer head",
        "gate        passed",
        "approved ",
        "by person:ada: it saw what I saw",
        "finish (100%)",
        "of the mass moved",
        "current     on stable",
        "made of it  nothing yet",
    ):
        assert told in text, text
    assert "nobody" not in text


def test_the_command_reads_the_records_themselves(world: World) -> None:
    asking = ["lineage", last(world), "--data", str(world.folder)]
    told = CliRunner().invoke(app, asking)
    assert told.exit_code == 0, told.output
    assert told.output.splitlines() == list(story(asked(world, last(world))))
    as_json = CliRunner().invoke(app, [*asking, "--json"])
    assert LineageAnswer.model_validate_json(as_json.output) == LineageAnswer.model_validate(asked(world, last(world)))
    refused = CliRunner().invoke(app, ["lineage", "never-heard-of", "--data", str(world.folder)])
    assert refused.exit_code != 0


def limited(**limits: frozenset[str]) -> Principal:
    return Principal("token", "somebody", frozenset({Role.VIEWER}), **limits)


def test_who_is_limited_sees_what_is_theirs(world: World, package: Package) -> None:
    everything = asked(world, ESCALATED)
    assert _theirs(asked(world, ESCALATED), limited(models=frozenset({package.name}))) == everything
    with pytest.raises(Forbidden):
        _theirs(asked(world, last(world)), limited(models=frozenset({"other"})))
    with pytest.raises(Forbidden):
        _theirs(asked(world, ESCALATED), limited(channels=frozenset({"other"})))
    found = _theirs(asked(world, last(world)), limited(channels=frozenset({"other"})))
    made = found["chain"][0]
    assert made["run"] is None and made["alarm"] is None and made["rollouts"] == [] and made["assigned"] == []
    assert found["uses"] == [] and found["devices"] == 0
