"""TLS as BCP 195 asks (RFC 9325, RFC 8996): 1.2 and 1.3, forward secrecy, authenticated encryption; certificates that
are changed on the disk are taken up without a restart.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Final

from edgemed.base.errors import InputError, from_os_error
from edgemed.serve.config.network import Tls
from edgemed.serve.renewal import Renewed, Told, untold

log = logging.getLogger(__name__)

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; those of 1.3 are all good."""


def server_context(tls: Tls) -> ssl.SSLContext:
    """What a server of ours shows, and asks of its clients: where there is a `ca`, a certificate that it has signed.

    Raises:
        InputError: certificate and key are none, or do not belong together.
        ResourceError: they cannot be read.
    """
    context = _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls)
    if tls.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """What we show to a server and ask of it.

    Its certificate must be signed by the site's `ca`, or one of the system's where there is none, and name the host
    that was called: whatever else the `ca` has signed is not that server. Only `verify_host = false` lets that be.

    Raises:
        InputError: certificate and key are none, or do not belong together.
        ResourceError: they cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = tls.verify_host
    if tls.ca is None:
        context.load_default_certs()
    return _load(context, tls)


def outgoing_context(tls: Tls | None, ca: Path | None) -> ssl.SSLContext:
    """What we ask of a server where a section may have `tls`, or a `ca` alone: then we show no certificate.

    Raises:
        InputError: certificate and key are none, or do not belong together; the `ca` is none.
        ResourceError: they cannot be read.
    """
    if tls is not None:
        return client_context(tls)
    context = _by_policy(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    if ca is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise InputError(f"{ca} holds no certificates.", "Give a PEM file.") from error
    except OSError as error:
        raise from_os_error(error, ca) from error
    return context


def files_of(tls: Tls | None, ca: Path | None = None) -> list[Path]:
    """Those that a context is made of."""
    named = (ca,) if tls is None else (tls.certificate, tls.key, tls.ca)
    return [path for path in named if path is not None]


class Certificates:
    """The context of a server; made anew when one of its files was changed. What cannot be used leaves the old one.

    Args:
        tls: the files.
        told: whether what has changed can be used.

    Attributes:
        tls: the files.

    Raises:
        EdgemedError: they cannot be used.
    """

    def __init__(self, tls: Tls, told: Told = untold) -> None:
        self.tls = tls
        self._renewed = Renewed(files_of(tls), self._make, told)

    @property
    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        return self._renewed.now()

    def _make(self) -> ssl.SSLContext:
        context = server_context(self.tls)
        log.info("the certificate of %s is shown from now on", self.tls.certificate)
        return context


def _by_policy(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def _load(context: ssl.SSLContext, tls: Tls) -> ssl.SSLContext:
    _by_policy(context)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_nobody_to_ask)
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
    except ssl.SSLError as error:
        raise InputError(
            f"{tls.certificate} and {tls.key} cannot be used for TLS: {error.reason or 'no PEM'}.",
            "Give a certificate chain and its key as PEM files.",
        ) from error
    except OSError as error:
        raise from_os_error(error, error.filename or tls.certificate) from error
    return context


def _nobody_to_ask() -> str:
    raise InputError("The private key wants a passphrase.", "Store it without one, for the daemon alone to read.")
