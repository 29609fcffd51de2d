"""docs/reference/asyncapi.yaml says what the code does, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from edgeloop.protocol.inputs import TeacherAnswer, Tensor
from edgeloop.protocol.messages import (
    DEVICE_MESSAGES,
    ChannelDocument,
    Desired,
    DeviceAlarm,
    ReleaseRef,
    RolloutRef,
    UpdateReport,
)
from edgeloop.protocol.parts import schema_of
from edgeloop.protocol.topics import DEVICE_KINDS, RETAINED_KINDS, Topics
from edgeloop.protocol.trials import TrialReport, TrialRequest, TrialRow

PATH = Path(__file__).resolve().parents[3] / "docs" / "reference" / "asyncapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))


def without_descriptions(value: Any) -> Any:
    """Field descriptions are for readers. A property that is itself called description is not among ours."""
    if isinstance(value, dict):
        return {key: without_descriptions(item) for key, item in value.items() if key != "description"}
    if isinstance(value, list):
        return [without_descriptions(item) for item in value]
    return value


def test_it_is_asyncapi_3() -> None:
    assert DOCUMENT["asyncapi"].startswith("3.")
    assert DOCUMENT["info"]["title"] == "edgeloop"


def test_schemas_are_those_of_the_messages() -> None:
    inside = [Desired, ChannelDocument, UpdateReport, DeviceAlarm, ReleaseRef, RolloutRef, TeacherAnswer, Tensor]
    inside += [TrialRequest, TrialRow, TrialReport]
    parts = [*DEVICE_MESSAGES.values(), *inside]
    assert without_descriptions(DOCUMENT["components"]["schemas"]) == {part.__name__: schema_of(part) for part in parts}


def test_every_field_is_described() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for field, rule in schema["properties"].items():
            assert rule.get("description") or "$ref" in rule, f"{name}.{field}"


def test_channels_are_those_of_the_topics() -> None:
    topics, channels = Topics("FLEET"), DOCUMENT["channels"]
    assert set(channels) == {*DEVICE_KINDS, "channel"}
    for kind, channel in channels.items():
        built = topics.channel("NAME") if kind == "channel" else topics.device(kind, "NAME")
        named = channel["address"].replace("{fleet}", "FLEET").replace("{device}", "NAME").replace("{channel}", "NAME")
        assert named == built
        assert channel["x-retained"] == (kind in RETAINED_KINDS)
        messages = [DEVICE_MESSAGES[kind].__name__] if kind in DEVICE_MESSAGES else []
        assert list(channel.get("messages", {})) == messages


def test_every_reference_leads_somewhere() -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                target: Any = DOCUMENT
                for step in value["$ref"].removeprefix("#/").split("/"):
                    target = target[step]
            for item in value.values():
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)

    check(DOCUMENT)
