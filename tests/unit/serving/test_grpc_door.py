"""The gRPC door: codes, deadlines, clients that go away, streams, limits and an orderly stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("grpc", reason="pip install 'edgeloop[agent,grpc]'")

import grpc

from edge_agent.serving import errors
from edge_agent.serving.calls import Answer, Call
from edge_agent.serving.grpc import door as door_module
from edge_agent.serving.grpc import inference_pb2 as pb
from edge_agent.serving.grpc.door import CODES, MAX_ERROR, MOST_STREAMS, SERVICE, GrpcDoor
from edge_agent.serving.grpc.limits import Budget, Patience
from tests.doubles.grpc_door import MAX_BODY, Caller, Echo, GrpcKit, Pending, Undescribed, calling, request

GOOD = request(("x", "FP32", [1], b"\0\0\x80?"), id="i").SerializeToString()


def until(holds: Any) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def echo() -> Iterator[GrpcKit]:
    kit = GrpcKit(Echo())
    yield kit
    kit.close()


class Raising(Undescribed):
    """A plane that fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def infer(self, call: Call) -> Answer:
        raise self.error


@pytest.mark.parametrize("kind", [kind for kind in CODES if kind.__module__ == errors.__name__])
def test_each_kind_of_error_has_its_code(kind: type[errors.ServingError]) -> None:
    kit = GrpcKit(Raising(kind("why: ‘ä’\n")))
    with calling(kit.port) as caller:
        assert caller.outcome(GOOD) == (CODES[kind].name, "why: ‘ä’\n")
    kit.close()


def test_every_error_that_serving_knows_has_a_code() -> None:
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and value is not errors.ServingError]
    assert set(kinds) <= set(CODES)


def test_a_long_reason_is_cut_so_that_clients_take_it() -> None:
    kit = GrpcKit(Raising(errors.BadRequest("x" * 100_000)))
    with calling(kit.port) as caller:
        code, reason = caller.outcome(GOOD)
    assert (code, len(reason)) == ("INVALID_ARGUMENT", MAX_ERROR)
    kit.close()


def test_a_fault_of_the_agent_is_said_and_logged_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    kit = GrpcKit(Raising(RuntimeError("a secret")))
    with calling(kit.port) as caller:
        assert caller.outcome(GOOD) == ("INTERNAL", "the agent has a fault; its log says which")
    assert "a secret" in caplog.text
    kit.close()


# ── clients that wait, and that do not ────────────────────────────────────────────────────────


@pytest.fixture
def pending() -> Iterator[tuple[GrpcKit, Pending]]:
    plane = Pending()
    kit = GrpcKit(plane)
    yield kit, plane
    kit.close()
    assert kit.door._budget.held == 0


def test_a_deadline_is_the_calls_and_ends_the_run(pending: tuple[GrpcKit, Pending]) -> None:
    kit, plane = pending
    with calling(kit.port) as caller:
        assert caller.outcome(GOOD, timeout=0.5)[0] == "DEADLINE_EXCEEDED"
        call, future = plane.asked[0]
        assert 0 < call.timeout_s < 0.51, "gRPC counts milliseconds"
        until(future.cancelled)


def test_a_client_that_cancels_ends_the_run(pending: tuple[GrpcKit, Pending]) -> None:
    kit, plane = pending
    with calling(kit.port) as caller:
        waiting = caller.infer.future(GOOD)
        until(lambda: plane.asked)
        waiting.cancel()
        call, future = plane.asked[0]
        assert call.timeout_s == 0, "it said nothing"
        until(future.cancelled)


def test_a_client_whose_connection_ends_ends_the_run(pending: tuple[GrpcKit, Pending]) -> None:
    kit, plane = pending
    caller = Caller(kit.port)
    waiting = caller.infer.future(GOOD)
    until(lambda: plane.asked)
    caller.channel.close()
    until(plane.asked[0][1].cancelled)
    assert waiting.done()


def test_a_stream_that_ends_ends_its_run(pending: tuple[GrpcKit, Pending]) -> None:
    kit, plane = pending
    with calling(kit.port) as caller:
        stream = caller.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter([GOOD, GOOD]))
        until(lambda: plane.asked)
        stream.cancel()
        until(plane.asked[0][1].cancelled)
    assert len(plane.asked) == 1, "one after the other"


def test_an_answer_that_comes_later(pending: tuple[GrpcKit, Pending]) -> None:
    kit, plane = pending
    with calling(kit.port) as caller:
        waiting = caller.infer.future(GOOD)
        until(lambda: plane.asked)
        plane.asked[0][1].set_result(Answer("i", "m", "1", ()))
        assert pb.ModelInferResponse.FromString(waiting.result(20)).id == "i"
        waiting = caller.infer.future(GOOD)
        until(lambda: len(plane.asked) == 2)
        plane.asked[1][1].set_exception(errors.Busy("too many"))
        assert waiting.exception(20).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# ── streams ───────────────────────────────────────────────────────────────────────────────────


def streamed(caller: Caller, messages: Iterator[bytes], **options: Any) -> Any:
    method = caller.channel.stream_stream(
        f"/{SERVICE}/ModelStreamInfer", response_deserializer=pb.ModelStreamInferResponse.FromString
    )
    return method(messages, **options)


def test_a_stream_answers_each_request_in_order(echo: GrpcKit) -> None:
    messages = [request(("x", "FP32", [1], b"\0\0\0\0"), id=str(i)).SerializeToString() for i in range(50)]
    messages[7] = b"\xff"
    messages[9] = request(("x", "FP32", [2], b"")).SerializeToString()
    with calling(echo.port) as caller:
        found = list(streamed(caller, iter(messages), timeout=20))
    assert [answer.infer_response.id for answer in found] == [str(i) if i not in (7, 9) else "" for i in range(50)]
    assert [bool(answer.error_message) for answer in found] == [i in (7, 9) for i in range(50)]
    assert "no ModelInferRequest" in found[7].error_message
    assert not echo.door._streams and echo.door._budget.held == 0


def test_streams_are_bounded_and_single_requests_go_on(echo: GrpcKit) -> None:
    stop = threading.Event()

    def asking() -> Iterator[bytes]:
        yield GOOD
        stop.wait(20)

    with calling(echo.port) as caller:
        open_streams = [streamed(caller, asking()) for _ in range(MOST_STREAMS)]
        assert all(next(stream).infer_response.id == "i" for stream in open_streams)
        with pytest.raises(grpc.RpcError) as refused:
            next(streamed(caller, iter([GOOD])))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "streams are open already" in refused.value.details()
        assert caller.outcome(GOOD)[0] == "OK"
        stop.set()
        for stream in open_streams:
            assert list(stream) == []
        until(lambda: not echo.door._streams)
        assert next(streamed(caller, iter([GOOD]))).infer_response.id == "i"


# ── limits ────────────────────────────────────────────────────────────────────────────────────


def test_more_calls_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "MOST_CALLS", 4)
    plane = Pending()
    kit = GrpcKit(plane)
    with calling(kit.port) as caller:
        waiting = [caller.infer.future(GOOD) for _ in range(4)]
        until(lambda: len(plane.asked) == 4)
        assert caller.outcome(GOOD) == ("RESOURCE_EXHAUSTED", "Concurrent RPC limit exceeded!")
        for _, future in plane.asked:
            future.set_result(Answer("i", "m", "1", ()))
        assert all(one.result(20) for one in waiting)
    kit.close()


def test_all_requests_together_are_bounded(pending: tuple[GrpcKit, Pending]) -> None:
    kit, plane = pending
    large = request(("x", "UINT8", [900_000], bytes(900_000))).SerializeToString()
    with calling(kit.port) as caller:
        waiting = []
        for count in range(1, 5):
            waiting.append(caller.infer.future(large))
            until(lambda count=count: len(plane.asked) == count)
        code, reason = caller.outcome(large)
        assert code == "RESOURCE_EXHAUSTED"
        assert "are under way already" in reason
        assert caller.outcome(b"\xff")[0] == "INVALID_ARGUMENT", "there is room for a small one"
        for _, future in plane.asked:
            future.set_result(Answer("i", "m", "1", ()))
        assert all(one.result(20) for one in waiting)
        until(lambda: kit.door._budget.held == 0)


def test_a_stream_survives_a_moment_without_room(pending: tuple[GrpcKit, Pending]) -> None:
    kit, plane = pending
    kit.door._budget.take(4 * MAX_BODY - 1)
    with calling(kit.port) as caller:
        more = threading.Event()

        def asking() -> Iterator[bytes]:
            yield GOOD
            more.wait(20)
            yield GOOD

        answers = streamed(caller, asking())
        assert "are under way already" in next(answers).error_message
        kit.door._budget.give(4 * MAX_BODY - 1)
        more.set()
        until(lambda: plane.asked)
        plane.asked[0][1].set_result(Answer("i", "m", "1", ()))
        assert next(answers).infer_response.id == "i"
        assert list(answers) == []


def test_a_request_larger_than_the_budget_is_taken_when_it_is_alone() -> None:
    budget = Budget(100)
    budget.take(500)
    with pytest.raises(errors.Busy):
        budget.take(1)
    budget.give(500)
    budget.take(60)
    budget.take(40)
    with pytest.raises(errors.Busy):
        budget.take(1)


def test_patience_ends_only_those_who_are_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.serving.grpc.limits.LOOK_EVERY_S", 0.01)

    class Noting:
        ended = 0

        def cancel(self) -> None:
            self.ended += 1

    patience = Patience()
    late, met, patient = Noting(), Noting(), Noting()
    patience.expect(met, 0.0)
    patience.met(met)
    patience.expect(patient, 100.0)
    patience.expect(late, 0.0)
    until(lambda: late.ended)
    pressed = Noting()
    patience.expect(pressed, 100.0, pressed_s=0.0)
    late.ended = 0
    patience.expect(late, 0.0)
    until(lambda: late.ended)
    assert not pressed.ended, "nobody waits"
    with patience.pressing():
        until(lambda: pressed.ended)
    patience.close()
    assert (late.ended, met.ended, patient.ended, pressed.ended) == (1, 0, 0, 1)


# ── the end ───────────────────────────────────────────────────────────────────────────────────


def test_what_is_under_way_ends_before_the_door_closes() -> None:
    plane = Pending()
    kit = GrpcKit(plane)
    with calling(kit.port) as caller:
        waiting = caller.infer.future(GOOD)
        until(lambda: plane.asked)
        closing = threading.Thread(target=kit.door.close, args=(20.0,))
        closing.start()
        until(lambda: caller.outcome(GOOD, timeout=1)[0] == "UNAVAILABLE")
        plane.asked[0][1].set_result(Answer("i", "m", "1", ()))
        assert pb.ModelInferResponse.FromString(waiting.result(20)).id == "i"
        closing.join(20)
        assert not closing.is_alive()


def test_what_does_not_end_is_ended() -> None:
    plane = Pending()
    kit = GrpcKit(plane)
    with calling(kit.port) as caller:
        waiting = caller.infer.future(GOOD)
        until(lambda: plane.asked)
        kit.door.close(0.2)
        assert waiting.exception(20) is not None
        until(plane.asked[0][1].cancelled)


def test_a_second_door_at_the_same_address_is_refused(echo: GrpcKit) -> None:
    with pytest.raises(OSError, match=f"127.0.0.1:{echo.port} is taken, or not this machine's"):
        GrpcDoor(echo.door._service, 1024).open(f"127.0.0.1:{echo.port}")
