"""TLS as BCP 195 has it: 1.2 and 1.3, forward secrecy, authenticated encryption."""

from __future__ import annotations

import ssl
from typing import Final

from edgemed.base.errors import InputError, from_os_error
from edgemed.serve.config import Tls

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; all of 1.3 are good."""


def server_context(tls: Tls) -> ssl.SSLContext:
    """What a server of ours shows, and asks its clients for.

    Raises:
        InputError: certificate and key do not belong together, or are none.
        ResourceError: they cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_passphrase)
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        raise InputError(
            f"{tls.certificate} and {tls.key} cannot be used for TLS: {error.reason}.", "Give a PEM chain and its key."
        ) from error
    except OSError as error:
        raise from_os_error(error, error.filename or tls.certificate) from error
    return context


def _no_passphrase() -> str:
    """A daemon has nobody to ask."""
    raise InputError("The private key wants a passphrase.", "Store it without one, readable by the daemon alone.")
