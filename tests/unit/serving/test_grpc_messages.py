"""The gRPC door's messages are the protocol's own: each name, number and type as another project's client has them."""

from __future__ import annotations

from typing import Any

import pytest

pb: Any = pytest.importorskip("edge_agent.serving.grpc.inference_pb2", reason="pip install 'edgeloop[agent,grpc]'")
service_pb2: Any = pytest.importorskip("tritonclient.grpc.service_pb2", reason="pip install 'tritonclient[grpc]'")

THEIRS = service_pb2.DESCRIPTOR.pool
MESSAGES = sorted(pb.DESCRIPTOR.message_types_by_name)


def nested(message: Any) -> list[Any]:
    """A message's descriptor and those inside it."""
    return [message, *(inner for child in message.nested_types for inner in nested(child))]


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_the_protocols(name: str) -> None:
    for ours in nested(pb.DESCRIPTOR.message_types_by_name[name]):
        theirs = THEIRS.FindMessageTypeByName(ours.full_name)
        for field in ours.fields:
            other = theirs.fields_by_name[field.name]
            assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated)
            for kind in ("message_type", "enum_type", "containing_oneof"):
                mine, its = getattr(field, kind), getattr(other, kind)
                assert (mine and mine.full_name) == (its and its.full_name), field.full_name


def test_all_of_what_requests_can_say_is_there() -> None:
    """Only in ModelConfig, which the agent writes itself, fields are left out."""
    config = nested(THEIRS.FindMessageTypeByName("inference.ModelConfig"))
    ours_alone = {m for m in MESSAGES if m.startswith("Model") and m.endswith(("Config", "Group", "Input", "Output"))}
    for name in set(MESSAGES) - ours_alone - {m.name for m in config}:
        ours = pb.DESCRIPTOR.message_types_by_name[name]
        assert set(ours.fields_by_name) == set(THEIRS.FindMessageTypeByName(ours.full_name).fields_by_name), name


@pytest.mark.parametrize("name", sorted(pb.DESCRIPTOR.enum_types_by_name))
def test_an_enumeration_is_the_protocols(name: str) -> None:
    ours, theirs = pb.DESCRIPTOR.enum_types_by_name[name], THEIRS.FindEnumTypeByName(f"inference.{name}")
    assert {value.name: value.number for value in ours.values} == {v.name: v.number for v in theirs.values}


def test_the_calls_are_the_protocols() -> None:
    theirs = THEIRS.FindServiceByName("inference.GRPCInferenceService")
    ours = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in ours.methods:
        other = theirs.methods_by_name[method.name]
        assert method.input_type.full_name == other.input_type.full_name
        assert method.output_type.full_name == other.output_type.full_name
        assert method.client_streaming == other.client_streaming
        assert method.server_streaming == other.server_streaming
    # What is missing sets up a server's logs and traces, which belong to whoever runs the agent.
    assert set(theirs.methods_by_name) - set(ours.methods_by_name) == {"TraceSetting", "LogSettings"}


def test_the_door_answers_every_call() -> None:
    from edge_agent.serving.grpc.service import Service

    answered: Any = {*Service(None, None, None, ()).handlers, "ModelInfer", "ModelStreamInfer"}  # type: ignore[arg-type]
    assert answered == set(pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name)
