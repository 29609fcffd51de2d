from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.protocol.errors import ProtocolError
from edgeloop.protocol.topics import DEVICE_KINDS, Address, Topics

names = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)


@given(names, names, st.sampled_from(DEVICE_KINDS))
def test_every_device_topic_is_read_back(fleet: str, device: str, kind: str) -> None:
    topics = Topics(fleet)
    topic = getattr(topics, kind)(device)
    assert topic == f"edgeloop/v1/{fleet}/d/{device}/{kind}"
    assert topics.parse(topic) == Address(kind, device=device)  # type: ignore[arg-type]


@given(names, names)
def test_a_channel_topic_is_read_back(fleet: str, channel: str) -> None:
    topics = Topics(fleet)
    assert topics.channel(channel) == f"edgeloop/v1/{fleet}/c/{channel}"
    assert topics.parse(topics.channel(channel)) == Address("channel", channel=channel)


@given(st.text(max_size=80))
def test_any_other_topic_is_a_protocol_error(topic: str) -> None:
    with pytest.raises(ProtocolError):
        Topics("fleet").parse(topic)


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "a b", "ä", "x" * 65, "a\n", "$SYS"])
def test_a_name_that_could_leave_its_level_is_refused(name: str) -> None:
    topics = Topics("fleet")
    for build in (Topics, topics.presence, topics.channel):
        with pytest.raises(ProtocolError):
            build(name)


@pytest.mark.parametrize(
    "topic",
    [
        "edgeloop/v1/other/d/dev/ack",
        "edgeloop/v2/fleet/d/dev/ack",
        "edgeloop/v1/fleet/d/dev/ack/more",
        "edgeloop/v1/fleet/d/dev",
        "edgeloop/v1/fleet/d/dev/unheard",
        "edgeloop/v1/fleet/d//ack",
        "edgeloop/v1/fleetd/dev/ack",
        "edgeloop/v1/fleet/c/a/b",
    ],
)
def test_a_topic_of_another_shape_is_refused(topic: str) -> None:
    with pytest.raises(ProtocolError):
        Topics("fleet").parse(topic)


def test_filters_for_all_devices_and_channels() -> None:
    assert Topics("f").every("insights") == "edgeloop/v1/f/d/+/insights"
    assert Topics("f").every("channel") == "edgeloop/v1/f/c/+"
    assert Topics("any").every("ack") == "edgeloop/v1/any/d/+/ack"
