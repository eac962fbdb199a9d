"""Where gRPC listens, what it shows to who connects, and whether it still takes connections."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

import grpc

from edgemed.base.errors import ResourceError, from_os_error
from edgemed.serve.config.network import Tls
from edgemed.serve.tls import Certificates

_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS: Final = "0A"
_STUCK_LOOKS: Final = 10
"""In a row at which connections waited: gRPC takes all that there are at a time, under load, too."""


def bind(server: grpc.Server, address: str, shown: Shown | None) -> int:
    """Let a server listen; the port.

    Args:
        server: not started yet.
        address: host and port.
        shown: its certificates; `None`: without TLS.

    Raises:
        ResourceError: the port is taken, or the certificates cannot be read.
    """
    try:
        if shown is None:
            port: int = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, shown.credentials())
    except RuntimeError as error:
        raise ResourceError(f"{address} cannot be bound for gRPC.", "Choose another port, or free it.") from error
    if port == 0:
        raise ResourceError(f"{address} cannot be bound for gRPC.", "Choose another port, or free it.")
    return port


class Shown:
    """What gRPC shows to each new connection: the certificate as it lies on the disk then, where it can be used."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates  # says what is wrong with them, which gRPC does not
        self._context: ssl.SSLContext | None = None
        self._last: grpc.ServerCertificateConfiguration | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Raises `ResourceError` where they cannot be read and never were."""
        try:
            self._renew()
        except OSError as error:
            if self._last is None:
                raise from_os_error(error) from error
        return grpc.dynamic_ssl_server_credentials(
            self._last, self._renewed, require_client_authentication=self._certificates.tls.ca is not None
        )

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Of the next connection; `None`: that of the last one."""
        try:
            return self._last if self._renew() else None
        except OSError:  # it is being written: the next connection looks again
            return None

    def _renew(self) -> bool:
        """Read them where they were changed and can be used; whether that was so."""
        context = self._certificates.context
        if context is self._context:
            return False
        self._last = _configuration(self._certificates.tls)
        self._context = context
        return True


def _configuration(tls: Tls) -> grpc.ServerCertificateConfiguration:
    ca = None if tls.ca is None else tls.ca.read_bytes()
    return grpc.ssl_server_certificate_configuration([(tls.key.read_bytes(), tls.certificate.read_bytes())], ca)


class Inlet:
    """Sees from outside of gRPC whether a port takes connections: gRPC may lose it, and does not say so.

    Args:
        port: that this process listens on now.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._sockets = {inode for inode in _listeners(port) if _holds(inode)}
        self._waited = 0

    def lost(self) -> str | None:
        """Why nobody can connect, as a sentence; `None` where all is well, or the system does not tell. To be called
        each second.
        """
        if not self._sockets:
            return None
        waiting = [waiting for inode, waiting in _listeners(self._port).items() if inode in self._sockets]
        if not waiting:
            return f"gRPC does not listen on port {self._port} any more."
        self._waited = self._waited + 1 if any(waiting) else 0
        return f"gRPC takes no connections on port {self._port}." if self._waited >= _STUCK_LOOKS else None


def _listeners(port: int) -> dict[str, int]:
    """The inodes of the sockets that listen on a port, at any address of this machine; how many connections wait at
    each to be accepted.
    """
    found = {}
    wanted = f":{port:04X}"
    for table in _TABLES:
        with suppress(OSError), table.open(encoding="ascii") as lines:
            for line in lines:
                _, local, _, state, queues, *others = line.split()
                if state == _LISTENS and local.endswith(wanted):
                    found[others[4]] = int(queues.partition(":")[2], 16)
    return found


def _holds(inode: str) -> bool:
    """Whether a socket is one of this process."""
    wanted = f"socket:[{inode}]"
    with suppress(OSError):
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                if str(descriptor.readlink()) == wanted:
                    return True
    return False
