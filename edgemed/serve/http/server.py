"""The HTTP and gRPC servers, each in threads of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, cast

import uvicorn

from edgemed.base.errors import ResourceError, from_os_error
from edgemed.base.quantity import SECOND
from edgemed.serve.config.inlets import HttpSection
from edgemed.serve.http.access import Logins
from edgemed.serve.http.app import gathering, make_app
from edgemed.serve.http.connection import Patience, Place, reading
from edgemed.serve.http.inlet import Inlet
from edgemed.serve.http.tokens import Tokens
from edgemed.serve.loops import Beat
from edgemed.serve.readiness import Finding
from edgemed.serve.renewal import teller
from edgemed.serve.services import Services
from edgemed.serve.tls import Certificates

if TYPE_CHECKING:
    from edgemed.serve.http.oip.rpc import RpcServer

log = logging.getLogger(__name__)

_START_S: Final = 30.0
_END_S: Final = 5.0
_WATCHERS: Final = 64
"""Connections besides those of requests: pages that are looked at, probes."""

_WRITERS: Final = 4
_LOOK: Final = "http look"
_LOOK_S: Final = 1.0
_LOOK_NS: Final = 60 * SECOND  # to end, and to begin anew, takes its time
_SILENT_NS: Final = 10_000_000_000


class HttpServer:
    """The HTTP and gRPC servers.

    Attributes:
        port: that HTTP is served on, once started.
        grpc_port: the same of gRPC; `None` where there is none.
    """

    name = "http"

    def __init__(self, services: Services) -> None:
        self._services = services
        self._config = services.config.http
        self._rpc: RpcServer | None = None
        self._disk = ThreadPoolExecutor(_WRITERS, thread_name_prefix="http-disk")
        self._tokens: Tokens | None = None
        self._certificates: Certificates | None = None
        self._draining = False
        self.port = 0
        self.grpc_port: int | None = None

    def start(self) -> None:
        """Begin.

        Raises:
            InputError: tokens, certificate or key are not as they must be.
            ResourceError: the port is taken.
        """
        config = self._config
        alarms = self._services.alarms
        if config.tokens is not None:
            self._tokens = Tokens(config.tokens, teller(alarms, "file of tokens"))
        if config.tls is not None:
            self._certificates = Certificates(config.tls, teller(alarms, "certificate of http"))
        self._logins = Logins(self._tokens, self._services.audit)
        self._begin(config.port)
        self._services.readiness.register("http", self._check, live=True)
        log.info("http listens on %s, port %d", config.host, self.port)
        if config.grpc_port is not None:
            from edgemed.serve.http.oip.rpc import RpcServer  # a tenth of a second that most starts need not wait

            self._rpc = RpcServer(self._services, self._logins, self._certificates)
            self.grpc_port = self._rpc.start()
            log.info("grpc listens on %s, port %d", config.host, self.grpc_port)
        self._services.loops.start(_LOOK, self._looks, limit_ns=_LOOK_NS)

    def _begin(self, port: int) -> None:
        """Serve in a thread; all that belongs to its loop is made anew.

        Raises:
            ResourceError: the port is taken.
        """
        config = self._config
        self._gate = make_app(self._services, self._logins, self._disk)
        self._gate.draining = self._draining  # the end may come while one server takes another's place
        settings = _settings(config, self._gate, gathering(self._services.models), self._certificates)
        with ExitStack() as stack:
            listener = stack.enter_context(_listen(config.host, port))
            self.port = listener.getsockname()[1]
            self._server = server = _Server(settings)
            self._thread = thread = threading.Thread(target=_serve, args=(server, listener), name="http", daemon=True)
            thread.start()
            stack.pop_all()  # it is the thread's now
        if not server.up.wait(_START_S) or server.failed is not None:
            raise server.failed or RuntimeError("the HTTP server did not start")
        self._inlet = Inlet("HTTP", self.port)

    def addresses(self) -> list[str]:
        """Where it can be reached."""
        scheme = "http" if self._config.tls is None else "https"
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        rpc = [] if self.grpc_port is None else [f"grpc://{host}:{self.grpc_port}"]
        return [f"{scheme}://{host}:{self.port}/", *rpc]

    def reload(self) -> None:
        """Look at tokens and certificates; also done each second."""
        if self._tokens is not None:
            self._tokens.refresh()
        if self._certificates is not None:
            _ = self._certificates.context

    def _looks(self, beat: Beat) -> None:
        """In a loop of its own: what fails there must neither end the server nor hold up its requests."""
        while beat.wait(_LOOK_S):
            self.reload()
            self._look()
            rpc = self._rpc
            if rpc is not None:
                rpc.look()

    def _look(self) -> None:
        """Serve anew where the server has ended, or nobody can connect any more."""
        if self._draining:
            return
        alarms = self._services.alarms
        lost = self._inlet.lost(self._server.taken) if self._thread.is_alive() else "The HTTP server ended."
        if lost is None:
            alarms.clear("inlet-lost", self.name)
            return
        if not alarms.stands("inlet-lost", self.name):
            alarms.raise_("inlet-lost", f"{lost} It listens anew.", self.name)
        try:
            socket.socket().close()  # where no more files may be open, who is connected keeps what there is
            self._end()
            if not self._draining:
                self._begin(self.port)
        except (OSError, ResourceError) as error:  # the port was ours a moment ago; the next look tries again
            log.warning("http does not listen yet: %s", type(error).__name__)

    def _end(self) -> None:
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(2 * _END_S)

    def drain(self) -> None:
        """Take nothing new; who asks is told to come back."""
        self._draining = True
        self._gate.draining = True
        if self._rpc is not None:
            self._rpc.draining = True

    def stop(self) -> None:
        """End."""
        if self._rpc is not None:
            self._rpc.stop(_END_S)
            self._rpc = None
        self._end()
        self._disk.shutdown(wait=True, cancel_futures=True)

    def _check(self) -> Finding | None:
        silent_ns = time.monotonic_ns() - self._server.beat_ns
        return None if silent_ns < _SILENT_NS else Finding("http", "The HTTP server does not answer.")


class _Server(uvicorn.Server):
    """Tells when it is up, that it goes on, why it ended, and how many connections it has taken."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()
        self.beat_ns = time.monotonic_ns()
        self.failed: Exception | None = None
        self._made = config.http_protocol_class
        config.http_protocol_class = self._take  # type: ignore[assignment]
        self.taken = 0

    def _take(self, **others: Any) -> asyncio.Protocol:
        self.taken += 1
        return self._made(**others)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    async def main_loop(self) -> None:
        try:
            await super().main_loop()
        except Exception as error:  # it ends as when it is asked to: a loop that is left with open sockets may not end
            self.failed = error
            log.exception("the HTTP server ends")

    async def on_tick(self, counter: int) -> bool:
        self.beat_ns = time.monotonic_ns()
        return await super().on_tick(counter)


def _serve(server: _Server, listener: socket.socket) -> None:
    try:
        with listener:
            server.run(sockets=[listener])
    except Exception as error:
        server.failed = error
        log.exception("the HTTP server ended")
    finally:
        server.up.set()


def _settings(config: HttpSection, app: Any, place: Place, certificates: Certificates | None) -> uvicorn.Config:
    patience = Patience(
        config.request_ns, config.max_requests + _WATCHERS, place=place, gathered_bytes=config.max_body_bytes
    )
    settings = uvicorn.Config(
        app,
        http=cast("Any", reading(patience)),
        ws="none",
        loop="uvloop",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=max(1, config.request_ns // 1_000_000_000),
        timeout_graceful_shutdown=int(_END_S),
    )
    settings.load()
    settings.ssl = None if certificates is None else _renewing(certificates)
    return settings


def _renewing(certificates: Certificates) -> ssl.SSLContext:
    """A context that shows the certificate as it is now, for the server has one for as long as it runs."""
    context = certificates.context

    def show(connection: ssl.SSLSocket | ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        connection.context = certificates.context

    context.sni_callback = show
    return context


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise from_os_error(error, f"{host}, port {port}") from error
    return listener
