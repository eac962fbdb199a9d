"""Where gRPC listens, and what it shows to who connects."""

from __future__ import annotations

import ssl

import grpc

from edgemed.base.errors import ResourceError, from_os_error
from edgemed.serve.config.network import Tls
from edgemed.serve.tls import Certificates


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
