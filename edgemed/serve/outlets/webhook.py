"""Any HTTP service: the result as JSON, with a signature that says who sent it, and when.

`Edgemed-Signature: t=UNIX_SECONDS,v1=HEX`, HEX being HMAC-SHA-256 under the shared secret of the decimal seconds, a
full stop, and the body's bytes. `Idempotency-Key` is the same for each try of one result.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from edgemed.serve.clock import utc
from edgemed.serve.config.destinations import WebhookDestination
from edgemed.serve.outlets.courier import Done, Outcome, Parcel, Pulse
from edgemed.serve.outlets.file import one_by_one
from edgemed.serve.outlets.http import HttpClient, check_secret, read_secret, refusal


class WebhookCourier:
    """Posts one result after the other."""

    most = 16

    def __init__(self, destination: WebhookDestination) -> None:
        check_secret(destination.secret, destination.name)
        self._destination = destination
        self._client = HttpClient(destination)

    @property
    def address(self) -> str:
        return self._client.address

    def carry(self, parcels: Sequence[Parcel], done: Done, pulse: Pulse) -> None:
        """See `Courier`."""
        one_by_one(parcels, done, pulse, self._post)

    def _post(self, parcel: Parcel) -> Outcome:
        body = parcel.path.read_bytes()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Idempotency-Key": idempotency_key(self._destination.name, parcel.sha256),
        }
        if self._destination.secret is not None:
            secret = read_secret(self._destination.secret)
            headers["Edgemed-Signature"] = signature(secret, int(utc().timestamp()), body)
        answer = self._client.post("", body, headers, parcel)
        return refusal(answer) or Outcome("delivered")

    def close(self) -> None:
        self._client.close()


def idempotency_key(destination: str, sha256: str) -> str:
    """The same for the same content to the same destination, also after a restart."""
    return hashlib.sha256(f"{destination} {sha256}".encode()).hexdigest()[:32]


def signature(secret: str, seconds: int, body: bytes) -> str:
    """Value of the header `Edgemed-Signature`.

    Args:
        secret: shared with the receiver.
        seconds: since 1970, UTC: receivers refuse old ones, so that nothing can be played back.
        body: that is sent.
    """
    mac = hmac.new(secret.encode(), str(seconds).encode() + b"." + body, hashlib.sha256)
    return f"t={seconds},v1={mac.hexdigest()}"
