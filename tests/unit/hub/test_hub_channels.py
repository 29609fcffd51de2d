"""Channels: one retained document, a serial that only grows, a policy that is checked."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_hub.channels import ActiveRollout
from cloud_hub.errors import Conflict
from edgeloop.insights.policy import InsightsPolicy
from edgeloop.package import Package
from edgeloop.protocol import ChannelDocument, Desired, Topics
from tests.doubles.sealed import channel_document
from tests.unit.hub.api_kit import ApiHub

TOPICS = Topics("default")


def documents(api: ApiHub, channel: str = "stable") -> list[ChannelDocument]:
    found = [m for m in api.sent.messages if m[0] == TOPICS.channel(channel)]
    assert all(retain for _, _, retain in found), "channel documents are retained"
    return [channel_document(payload) for _, payload, _ in found]


def test_the_first_release_is_current_at_once(api: ApiHub, package: Package) -> None:
    digest = api.publish(package)
    answer = api.post("channels/stable/releases", {"digest": digest})
    assert answer["rollout"] is None
    channel = api.get("channels/stable")
    assert channel["current"]["digest"] == digest and channel["serial"] == answer["serial"]
    assert channel["policy"]["rollout"]["steps"][-1] == {"devices": None, "share": 1.0}
    document = documents(api)[-1]
    assert (document.serial, document.rollout) == (answer["serial"], None)
    assert document.current == api.hub.releases.get(digest).ref
    assert document.hub == "http://127.0.0.1:8800"
    assert [item["channel"] for item in api.get("channels")] == ["stable"]


def test_the_same_release_again_changes_nothing(api: ApiHub, package: Package) -> None:
    digest = api.publish(package)
    first = api.post("channels/stable/releases", {"digest": digest})
    count = len(documents(api))
    assert api.post("channels/stable/releases", {"digest": digest}) == first
    assert len(documents(api)) == count


class Starter:
    """Stands for the rollouts."""

    def __init__(self, api: ApiHub) -> None:
        self.api, self.started = api, 0

    def start(self, channel: str, digest: str) -> str:
        if self.api.hub.channels.get(channel).rollout is not None:
            raise Conflict("a rollout is under way")
        self.started += 1
        self.api.hub.channels.set_rollout(channel, ActiveRollout("r1", digest, 0.0))
        return "r1"


def revised(api: ApiHub, digest: str) -> str:
    """Another release record with the same content, for the channel's point of view."""
    from cloud_hub.records.tables import releases

    other = "sha256:" + "c" * 64
    with api.hub.db.begin() as connection:
        row = dict(connection.execute(releases.select().where(releases.c.digest == digest)).mappings().one())
        connection.execute(releases.insert().values(**{**row, "digest": other, "version": "2"}))
    return other


def test_another_release_starts_a_rollout(api: ApiHub, package: Package) -> None:
    first = api.publish(package)
    channels, starter = api.hub.channels, Starter(api)
    channels.offer("stable", first, starter)
    second = revised(api, first)
    offered = channels.offer("stable", second, starter)
    assert (offered.rollout, starter.started) == ("r1", 1)
    assert channels.offer("stable", second, starter).rollout == "r1", "sent twice: the first one is under way"
    assert starter.started == 1
    with pytest.raises(Conflict):
        channels.offer("stable", first, starter)
    channels.set_rollout("stable", ActiveRollout("r1", second, 0.5))
    document = documents(api)[-1]
    assert document.rollout is not None
    assert (document.rollout.id, document.rollout.candidate.digest, document.rollout.fraction) == ("r1", second, 0.5)
    assert api.get("channels/stable")["rollout"]["fraction"] == 0.5
    channels.set_current("stable", second)
    channel = channels.get("stable")
    assert (channel.current, channel.previous, channel.rollout) == (second, first, None)


def test_serials_only_grow_and_what_changes_nothing_is_not_published(api: ApiHub, package: Package) -> None:
    digest = api.publish(package)
    channels = api.hub.channels
    channels.ensure("stable")
    for step in (ActiveRollout("r", digest, 0.1), ActiveRollout("r", digest, 0.1), None, None):
        channels.set_rollout("stable", step)
    channels.set_current("stable", digest)
    channels.set_current("stable", digest)
    assert [document.serial for document in documents(api)] == [1, 2, 3, 4]


def test_all_documents_are_sent_again_on_a_connect(api: ApiHub, package: Package) -> None:
    digest = api.publish(package)
    for name in ("a", "b"):
        api.post(f"channels/{name}/releases", {"digest": digest})
    api.hub.devices.set_desired("camera-1", Desired(channel="a", pin=digest))
    api.sent.messages.clear()
    for source in api.hub.announcer._sources:
        source()
    assert {topic for topic, _, retain in api.sent.messages if retain} == {
        TOPICS.channel("a"),
        TOPICS.channel("b"),
        TOPICS.desired("camera-1"),
    }


def test_a_change_that_is_rolled_back_is_not_published(api: ApiHub, package: Package) -> None:
    digest = api.publish(package)
    api.hub.channels.ensure("stable")
    before = len(documents(api))
    with pytest.raises(ZeroDivisionError), api.hub.db.begin():
        api.hub.channels.set_current("stable", digest)
        raise ZeroDivisionError
    assert len(documents(api)) == before
    assert api.hub.channels.get("stable").current is None


def test_a_policy_is_kept_and_defaults_fill_it(api: ApiHub) -> None:
    policy = {"rollout": {"steps": [{"devices": 1}, {"share": 1.0}], "bake_s": 2.0}, "gate": {"validation_floor": 0.0}}
    answer = api.put("channels/night-shift", {"policy": policy})
    assert answer["policy"]["rollout"]["bake_s"] == 2.0
    assert answer["policy"]["drift"]["alpha"] == 0.001
    assert api.get("channels/night-shift")["policy"] == answer["policy"]


def test_devices_are_told_the_part_of_the_policy_that_concerns_them(api: ApiHub) -> None:
    insights = {"aspects": ["latency"], "bytes_per_day": 150_000, "segment_field": "camera", "min_group": 5}
    api.put("channels/stable", {"policy": {"insights": insights, "drift": {"alpha": 0.01}}})
    told = InsightsPolicy.from_wire(documents(api)[-1].policy["insights"])
    assert (told.aspects, told.bytes_per_day, told.segment_field) == (("latency",), 150_000, "camera")
    assert (told.min_group, told.drift.alpha, told.drift.min_predictions) == (5, 0.01, 500)
    serial = documents(api)[-1].serial
    api.put("channels/stable", {"policy": {"insights": insights, "drift": {"alpha": 0.01}, "gate": {}}})
    assert documents(api)[-1].serial == serial, "the rest of the policy is no device's business"
    api.put("channels/stable", {"policy": {}})
    assert documents(api)[-1].serial == serial + 1
    assert InsightsPolicy.from_wire(documents(api)[-1].policy["insights"]) == InsightsPolicy()


@pytest.mark.parametrize(
    "policy",
    [
        {"insights": {"aspects": ["colour"]}},
        {"insights": {"bytes_per_day": 1}},
        {"insights": {"segment_values": ["north"]}},
        {"insights": {"segment_field": "camera", "segment_values": ["x"] * 9}},
        {"insights": {"audit_share": 2}},
        {"rollout": {"steps": []}},
        {"rollout": {"steps": [{"devices": 1}]}},
        {"rollout": {"steps": [{"devices": 1, "share": 0.5}, {"share": 1.0}]}},
        {"rollout": {"steps": [{"share": 1.5}]}},
        {"drift": {"alpha": 0}},
        {"drift": {"false_alarms_per_year": 5e-324}},
        {"drift": {"min_predictions": 2**63}},
        {"drift": {"consecutive": 1001}},
        {"gate": {"validation_floor": 2}},
        {"retraining": {"trigger": "moon"}},
        {"retraining": {"trainer": "command"}, "samples": {"strategies": {"random": 1.0}, "travels": "features"}},
        {"roolout": {}},
        {"rollout": {"bake_seconds": 3}},
        7,
        None,
    ],
)
def test_a_wrong_policy_is_refused_and_changes_nothing(shared: ApiHub, policy: Any) -> None:
    shared.put("channels/stable", {"policy": policy}, 422)
    shared.get("channels/stable", 404)


@pytest.mark.parametrize("name", ["a b", "x" * 65, "ä", "a+b", "a%23"])
def test_a_name_that_cannot_be_in_a_topic_is_refused(shared: ApiHub, name: str) -> None:
    shared.put(f"channels/{name}", {"policy": {}}, 422)


def test_an_unknown_release_is_not_offered(shared: ApiHub) -> None:
    shared.post("channels/stable/releases", {"digest": "sha256:" + "0" * 64}, 404)
    shared.get("channels/stable", 404)
