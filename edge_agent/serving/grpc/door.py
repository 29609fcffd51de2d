"""The gRPC door: calls, codes, limits and the life of grpcio's server. What is answered is `service`'s.

grpcio's own threads do the calls: its asyncio server ends for good on one call whose path is not UTF-8
(docs/decisions/grpc-door.md). Whatever a client does is bounded: connections, calls, streams, bytes, and its time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from edge_agent.logs import Log
from edge_agent.serving.errors import (
    BadRequest,
    Busy,
    Conflict,
    DeadlinePassed,
    Forbidden,
    ModelFailed,
    NotFound,
    NotReady,
    ServingError,
)
from edge_agent.serving.grpc import inference_pb2 as pb
from edge_agent.serving.grpc.limits import Budget, Patience
from edge_agent.serving.grpc.service import NotOffered, Service

log = Log(__name__)

SERVICE = "inference.GRPCInferenceService"
CODES: Mapping[type[ServingError], grpc.StatusCode] = {
    BadRequest: grpc.StatusCode.INVALID_ARGUMENT,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ModelFailed: grpc.StatusCode.INTERNAL,
    NotReady: grpc.StatusCode.UNAVAILABLE,
    Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    NotOffered: grpc.StatusCode.UNIMPLEMENTED,
}
#: Calls at once, each in a thread that is made when it is needed; more are refused. Streams are among them.
MOST_CALLS, MOST_STREAMS = 64, 16
#: Calls whose requests are being received at once; others wait for their turn. grpcio does not say how large a request
#: will be, so each may become as large as max_body_bytes.
MOST_RECEIVING = 16
#: All requests that are held at once, as a multiple of the largest that one may be; as in the HTTP door.
BODIES_AT_ONCE = 4
MOST_CONNECTIONS, MOST_CALLS_PER_CONNECTION = 128, 32
MAX_METADATA_BYTES = 16 << 10
#: The largest request of any call but inference.
MAX_SMALL_BYTES = 1 << 20
#: Clients take no more than 8 KiB of metadata by default, and an error's text is in it.
MAX_ERROR = 1000
#: A client has so long to send a request, and to read an answer; and so long to send while others wait for its place.
RECEIVE_TIMEOUT_S = READ_TIMEOUT_S = 30.0
PRESSED_TIMEOUT_S = 1.0
#: A deadline that is further away is none: grpcio says that a call without one ends in the year 292,277,026,596.
FAR_S = 1e8


class GrpcDoor:
    """Serves the protocol on grpcio's threads until it is closed."""

    def __init__(self, service: Service, max_body_bytes: int) -> None:
        """Prepare; nothing listens yet."""
        self._service, self._max_body = service, max_body_bytes
        self._receiving = threading.Semaphore(MOST_RECEIVING)
        self._streams: set[Any] = set()
        self._waiting: set[Any] = set()
        self._lock = threading.Lock()
        self._closing = False
        self._budget = Budget(BODIES_AT_ONCE * max_body_bytes)
        self._patience = Patience()
        self._threads = ThreadPoolExecutor(MOST_CALLS, thread_name_prefix="grpc")
        self._server = grpc.server(
            self._threads,
            handlers=[grpc.method_handlers_generic_handler(SERVICE, self._handlers())],
            options=_options(max_body_bytes),
            maximum_concurrent_rpcs=MOST_CALLS,
        )

    def open(self, *addresses: str) -> list[int]:
        """Listen at addresses in gRPC's form: ``host:port`` (port 0 chooses one), or ``unix:path``.

        Returns:
            The port of each; of a path it means nothing.

        Raises:
            OSError: nothing can listen at one; the message names it.
        """
        ports = []
        for address in addresses:
            try:
                ports.append(int(self._server.add_insecure_port(address)))
            except RuntimeError as error:
                raise OSError(f"{address} is taken, or not this machine's") from error
        self._server.start()
        return ports

    def close(self, timeout_s: float) -> None:
        """Take no more calls, let those that are under way end for so long, then end them."""
        stopped = self._server.stop(timeout_s)
        with self._lock:
            self._closing = True
            waiting = list(self._waiting)
        for context in waiting:  # streams whose clients have nothing to ask just now
            context.cancel()
        stopped.wait(timeout_s + 5)
        self._patience.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # ── handlers ──────────────────────────────────────────────────────────────────────────────

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        found = {name: self._unary(*handler) for name, handler in self._service.handlers.items()}
        # A unary call is, on the wire, a stream of one request. As such it is read here, with a limit of time.
        found["ModelInfer"] = grpc.stream_unary_rpc_method_handler(
            self._infer, response_serializer=pb.ModelInferResponse.SerializeToString
        )
        found["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._stream, response_serializer=pb.ModelStreamInferResponse.SerializeToString
        )
        return found

    def _unary(self, request_type: Any, answer: Callable[[Any], Any]) -> grpc.RpcMethodHandler:
        def handle(requests: Iterator[bytes], context: Any) -> Any:
            with _errors(context):
                message = self._receive(requests, context)
                if len(message) > MAX_SMALL_BYTES:
                    raise BadRequest(f"the message has {len(message)} bytes; this call takes {MAX_SMALL_BYTES}")
                try:
                    request = request_type.FromString(message)
                except DecodeError as error:
                    raise BadRequest(f"the message is no {request_type.DESCRIPTOR.name}") from error
                return answer(request)

        return grpc.stream_unary_rpc_method_handler(handle, response_serializer=_serialize)

    def _infer(self, requests: Iterator[bytes], context: Any) -> Any:
        with _errors(context):
            message = self._receive(requests, context)
            size = len(message)
            self._budget.take(size)
            # The call is over when the client has read its answer, or is gone.
            _at_the_end(context, lambda: self._over(context, size))
            answer = self._service.infer(message, _seconds_left(context), lambda work: _at_the_end(context, work))
            self._patience.expect(context, READ_TIMEOUT_S)
            if not context.is_active():  # it was over before anything was expected of it
                self._patience.met(context)
            return answer

    def _over(self, context: Any, size: int) -> None:
        self._patience.met(context)
        self._budget.give(size)

    def _receive(self, requests: Iterator[bytes], context: Any) -> bytes:
        """The only request of a call."""
        if not self._receiving.acquire(blocking=False):
            with self._patience.pressing():
                if not self._receiving.acquire(timeout=RECEIVE_TIMEOUT_S):
                    raise Busy(f"{MOST_RECEIVING} slow requests are being received already; try again in a moment")
        self._patience.expect(context, RECEIVE_TIMEOUT_S, PRESSED_TIMEOUT_S)
        try:
            message = next(requests, None)
        finally:
            self._patience.met(context)
            self._receiving.release()
        if message is None:
            raise BadRequest("the call has no request")
        return message

    # ── streams ───────────────────────────────────────────────────────────────────────────────

    def _stream(self, requests: Iterator[bytes], context: Any) -> Iterator[Any]:
        """One answer or error for each request, in their order."""
        under_way: list[Callable[[], object]] = []
        _at_the_end(context, lambda: [cancel() for cancel in under_way])

        def begun(cancel: Callable[[], object]) -> None:
            under_way[:] = [cancel]
            if not context.is_active():  # its end has come and gone
                cancel()

        with _errors(context), self._one_stream(context):
            while (message := self._next(requests, context)) is not None:
                try:
                    self._budget.take(len(message))
                except Busy as error:
                    yield _failed(error)
                    continue
                try:
                    yield self._streamed(message, context, begun)
                finally:
                    self._patience.met(context)
                    self._budget.give(len(message))

    def _streamed(self, message: bytes, context: Any, begun: Callable[[Callable[[], object]], None]) -> Any:
        try:
            answer = self._service.infer(message, _seconds_left(context), begun)
            # A client that waits for several answers to a request looks for the last one; here each is.
            answer.parameters["triton_final_response"].bool_param = True
            return pb.ModelStreamInferResponse(infer_response=answer)
        except ServingError as error:
            return _failed(error)
        finally:
            self._patience.expect(context, READ_TIMEOUT_S)

    @contextlib.contextmanager
    def _one_stream(self, context: Any) -> Iterator[None]:
        with self._lock:
            if len(self._streams) >= MOST_STREAMS:
                raise Busy(f"{MOST_STREAMS} streams are open already; close one, or send single requests")
            self._streams.add(context)
        try:
            yield
        finally:
            with self._lock:
                self._streams.discard(context)

    def _next(self, requests: Iterator[bytes], context: Any) -> bytes | None:
        """The next request of a stream, however long its client takes; None at its end."""
        with self._lock:
            if self._closing:
                raise NotReady("the agent stops")
            self._waiting.add(context)
        try:
            return next(requests, None)
        finally:
            with self._lock:
                self._waiting.discard(context)


@contextlib.contextmanager
def _errors(context: Any) -> Iterator[None]:
    """Give the client a code and a reason for what goes wrong."""
    try:
        yield
    except ServingError as error:
        code, text = CODES[type(error)], _text(error)
    except CancelledError:
        code, text = grpc.StatusCode.CANCELLED, "the client has gone"
    except grpc.RpcError:  # the call is over already
        raise
    except Exception:
        log.exception("a call failed through a fault of the agent")
        code, text = grpc.StatusCode.INTERNAL, "the agent has a fault; its log says which"
    else:
        return
    context.abort(code, text)


def _at_the_end(context: Any, work: Callable[[], object]) -> None:
    """Do something when a call is over; at once, if it is."""
    if not context.add_callback(work):
        work()


def _seconds_left(context: Any) -> float:
    """Seconds that the client of a call waits; 0: it does not say."""
    left = float(context.time_remaining())
    if left > FAR_S:
        return 0.0
    if left <= 0:
        raise DeadlinePassed("the call's deadline has passed")
    return left


def _text(error: ServingError) -> str:
    text = str(error)
    return text if len(text) <= MAX_ERROR else text[: MAX_ERROR - 1] + "…"


def _failed(error: ServingError) -> Any:
    """What a stream says instead of an answer."""
    return pb.ModelStreamInferResponse(error_message=_text(error))


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _options(max_body_bytes: int) -> list[tuple[str, int]]:
    """Channel arguments: https://github.com/grpc/grpc/blob/master/include/grpc/impl/channel_arg_names.h."""
    return [
        ("grpc.so_reuseport", 0),  # else a second agent could listen at the same port, and get half of the calls
        ("grpc.max_receive_message_length", max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.max_allowed_incoming_connections", MOST_CONNECTIONS),
        ("grpc.max_concurrent_streams", MOST_CALLS_PER_CONNECTION),
        ("grpc.server_handshake_timeout_ms", int(RECEIVE_TIMEOUT_S * 1000)),
        # Peers that have vanished are found by pings; clients may ping as well, and not much more often.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
