"""The Open Inference Protocol over gRPC."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from edgemed.base.errors import EdgemedError, ResourceError
from edgemed.serve.http.access import Logins
from edgemed.serve.http.answers import HttpError, busy, late, log_bug
from edgemed.serve.http.inlet import Inlet
from edgemed.serve.http.oip.infer import Desk, outcome_of, translated
from edgemed.serve.http.oip.listening import Shown, bind
from edgemed.serve.http.oip.messages import asked_of, fill_metadata, most_message, response_of
from edgemed.serve.http.oip.rest import Rest, Room, too_much
from edgemed.serve.http.proto import SERVICE, Proto
from edgemed.serve.http.tokens import Role
from edgemed.serve.services import Services
from edgemed.serve.tls import Certificates

log = logging.getLogger(__name__)

_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_GRACE_S: Final = 0.5
_RECEIVED: Final = 4
"""Messages that come in at a time: how long one is, is not known before it is there, so each may be the longest."""

_REFUSED_LOOKS: Final = 3
"""In a row at which our own port was not free; gRPC may take a moment to give it back."""

_PUBLIC: Final = frozenset({"ServerLive", "ServerReady"})
"""For everybody. Their messages have no fields, and are not even received."""

Handler = Callable[[Any, Any, grpc.ServicerContext], Any]


class RpcServer:
    """The service `inference.GRPCInferenceService`."""

    def __init__(self, services: Services, logins: Logins, certificates: Certificates | None) -> None:
        self._config = services.config.http
        self._models = services.models
        self._alarms = services.alarms
        self._shown = None if certificates is None else Shown(certificates)
        self._rest = Rest(services)
        self._desk: Desk = self._rest.desk
        self._logins = logins
        self._proto = Proto()
        self._receiver = _Receiver(self._config.request_ns, self._rest.room)
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None
        self._inlet: Inlet | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._longest = 0
        self._port = 0
        self._refused = 0
        self.draining = False

    def start(self) -> int:
        """Begin; the port.

        Raises:
            ResourceError: it is taken.
            InputError: certificate or key are not as they must be.
        """
        assert self._config.grpc_port is not None
        pool = _Pool(self._config.max_requests, thread_name_prefix="grpc")
        with self._lock:  # who looks meanwhile would open a second port, and gRPC ends a server that nobody holds
            self._port = self._listen(pool, self._config.grpc_port)
            self._pool = pool
        return self._port

    def _listen(self, pool: ThreadPoolExecutor, port: int) -> int:
        config = self._config
        self._longest = self._most()
        server = grpc.server(
            pool,
            maximum_concurrent_rpcs=config.max_requests,
            options=[
                ("grpc.max_receive_message_length", self._longest),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.max_metadata_size", 16 << 10),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
        )
        server.add_generic_rpc_handlers((self._handlers(),))
        address = f"[{config.host}]" if ":" in config.host else config.host
        port = bind(server, f"{address}:{port}", self._shown)
        server.start()
        self._server, self._inlet = server, Inlet("gRPC", port)
        return port

    def _most(self) -> int:
        """Bytes of the longest message that a model could take, and no more than the site allows."""
        allowed = self._config.max_body_bytes
        asked = (most_message(self._models.get(name)) for name in self._models.names())
        return min(allowed, max((allowed if most is None else most for most in asked), default=allowed))

    def look(self) -> None:
        """Let clients go whose messages do not come; listen anew where nobody can connect any more, or where a model
        that answers now takes longer messages.

        To be called each second.
        """
        self._receiver.look()
        with self._lock:
            if self._pool is None or self.draining:
                return
            if self._server is not None and self._has_to_listen_anew():
                self._server.stop(self._config.request_ns / 1e9)  # what is under way goes on
                self._server = None
            if self._server is None:
                self._listen_anew(self._pool)

    def _has_to_listen_anew(self) -> bool:
        lost = None if self._inlet is None else self._inlet.lost()
        if lost is not None:
            self._alarms.raise_("inlet-lost", f"{lost} It listens anew.", "grpc")
            return True
        self._alarms.clear("inlet-lost", "grpc")
        if self._most() <= self._longest:
            return False
        log.info("a model takes longer messages: grpc listens anew")
        return True

    def _listen_anew(self, pool: ThreadPoolExecutor) -> None:
        try:
            self._listen(pool, self._port)
            self._refused = 0
        except ResourceError as error:  # it was ours a moment ago
            self._refused += 1
            log.warning("grpc does not listen yet: %s", error.what)
            if self._refused >= _REFUSED_LOOKS:
                self._alarms.raise_("inlet-lost", f"gRPC does not listen: {error.what}", "grpc")

    def stop(self, grace_s: float) -> None:
        """End; requests under way may go on for a moment."""
        with self._lock:
            server, pool = self._server, self._pool
            self._server = self._pool = None
        if server is not None:
            server.stop(grace_s).wait(2 * grace_s)
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _handlers(self) -> grpc.GenericRpcHandler:
        bodies: dict[str, Handler] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        table = {
            name: grpc.stream_unary_rpc_method_handler(  # on the wire it is the same, and we say when to receive
                self._guarded(name, bodies[name], request, response),
                response_serializer=response.SerializeToString,
            )
            for name, (request, response) in self._proto.methods.items()
        }
        handlers: grpc.GenericRpcHandler = grpc.method_handlers_generic_handler(SERVICE, table)
        return handlers

    def _guarded(
        self, name: str, body: Handler, request: Any, response: Any
    ) -> Callable[[Iterator[bytes], grpc.ServicerContext], Any]:
        """One method: who may, only then what is asked, and errors as the protocol has them."""
        role: Role | None = None if name in _PUBLIC else "infer"

        def call(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            try:
                self._logins.check(role, _address(context), _authorization(context))
                if name in _PUBLIC:
                    return body(request(), response(), context)
                with self._receiver.message(messages, context) as data:
                    return body(_parsed(request, data), response(), context)
            except HttpError as error:
                context.abort(_CODES.get(error.status, grpc.StatusCode.INTERNAL), error.text)
            except EdgemedError as error:
                said = translated(error)
                context.abort(_CODES.get(said.status, grpc.StatusCode.INTERNAL), said.text)
            except Exception as error:
                if context.is_active():
                    log_bug(error)
                    context.abort(grpc.StatusCode.INTERNAL, "The server failed. Its log says where.")
                raise

        return call

    # -- methods ---------------------------------------------------------------------------------------------------

    def _live(self, _: Any, response: Any, __: Any) -> Any:
        response.live = self._rest.live()[0] == 200
        return response

    def _ready(self, _: Any, response: Any, __: Any) -> Any:
        response.ready = self._rest.ready()[0] == 200
        return response

    def _model_ready(self, request: Any, response: Any, _: Any) -> Any:
        response.ready = self._rest.model_ready(request.name, request.version)[0] == 200
        return response

    def _metadata(self, _: Any, response: Any, __: Any) -> Any:
        about = self._rest.server()
        response.name, response.version = about["name"], about["version"]
        response.extensions.extend(about["extensions"])
        return response

    def _model_metadata(self, request: Any, response: Any, _: Any) -> Any:
        return fill_metadata(response, self._rest.metadata(request.name, request.version))

    def _infer(self, request: Any, response: Any, context: grpc.ServicerContext) -> Any:
        began_ns = time.monotonic_ns()
        outcome = "failed"
        try:
            filled = self._answer(request, response, context)
            outcome = "answered"
            return filled
        except CancelledError:  # nobody is there to be answered
            outcome = "gone"
            return response
        except HttpError as error:
            outcome = outcome_of(error)
            raise
        finally:
            self._desk.count(request.model_name, "grpc", outcome, began_ns)

    def _answer(self, request: Any, response: Any, context: grpc.ServicerContext) -> Any:
        if self.draining:
            raise busy("The server is ending. Try again later.")
        served = self._desk.served(request.model_name, request.model_version)
        deadline_ns: int | None = None
        try:
            asked = asked_of(self._desk, served, request)
            deadline_ns = asked.deadline_ns
            future = asked.submit()
            if not context.add_callback(future.cancel):
                future.cancel()
            left_s = (deadline_ns - time.monotonic_ns()) / 1e9
            reply = future.result(max(0.0, left_s) + _GRACE_S)
            return response_of(response, asked, reply, raw=bool(request.raw_input_contents))
        except FutureTimeoutError as error:
            future.cancel()
            raise late() from error
        except EdgemedError as error:
            raise translated(error, deadline_ns) from error


class _Pool(ThreadPoolExecutor):
    """Refuses in the future where there can be no more threads: an error in the one thread that hands requests on would
    end it, and nobody was answered any more."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **others: Any) -> Future[Any]:
        try:
            return super().submit(work, *args, **others)
        except RuntimeError as error:  # it waits still: the next thread that is free takes it
            log.warning("a request waits: %s", error)
            refused: Future[Any] = Future()
            refused.set_exception(error)
            return refused


class _Receiver:
    """Receives messages: few at a time, each within its time, and no more of them in memory than fit."""

    def __init__(self, request_ns: int, room: Room) -> None:
        self._request_ns = request_ns
        self._room = room
        self._places = threading.Semaphore(_RECEIVED)
        self._awaited: dict[grpc.ServicerContext, int] = {}

    @contextmanager
    def message(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """The one message of a call, for as long as it is needed.

        Raises:
            HttpError: there is none, or no room for it.
            grpc.RpcError: the client went away, or did not send it in time.
        """
        if not self._places.acquire(timeout=self._request_ns / 1e9):
            raise too_much()
        self._awaited[context] = time.monotonic_ns()
        try:
            data = next(messages, None)
        finally:
            del self._awaited[context]
            self._places.release()
        if data is None:
            raise HttpError(400, "There is no message. Send one.")
        with self._room.taken(len(data)):
            yield data

    def look(self) -> None:
        """Let those go whose messages do not come."""
        now_ns = time.monotonic_ns()
        for context, began_ns in list(self._awaited.items()):
            if now_ns - began_ns > self._request_ns:
                context.cancel()


def _parsed(message: Any, data: bytes) -> Any:
    """A message; read here and not by gRPC, which would call it our fault, and before it is known who asks."""
    try:
        return message.FromString(data)
    except DecodeError as error:
        name = message.DESCRIPTOR.name
        raise HttpError(400, f"This is no {name}. Send one as the protocol describes it.") from error


def _address(context: grpc.ServicerContext) -> str:
    """Of the client: `ipv4:127.0.0.1:4711` is 127.0.0.1."""
    family, _, rest = str(context.peer()).partition(":")
    return rest.rpartition(":")[0].strip("[]").replace("%5B", "").replace("%5D", "") if family[:3] == "ipv" else ""


def _authorization(context: grpc.ServicerContext) -> bytes | None:
    for key, value in context.invocation_metadata():
        if key == "authorization":
            return value if isinstance(value, bytes) else value.encode("latin-1", "replace")
    return None
