"""What each path is for, and who is let through: hosts, origins, tokens, and the patience with wrong ones."""

from __future__ import annotations

import base64
import binascii
import socket
import time
from collections import OrderedDict
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from edgemed.serve.audit.trail import Audit, AuditEvent
from edgemed.serve.config.inlets import HttpSection
from edgemed.serve.http.answers import HttpError
from edgemed.serve.http.tokens import Role, Token, Tokens

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
LOCAL: Final = Token("local", frozenset({"admin"}), b"")
"""Who asks where there are no tokens: only this machine can."""

_MINUTE_NS: Final = 60_000_000_000
_HOUR_NS: Final = 60 * _MINUTE_NS
_FAILURES: Final = 10  # within a minute; then an address waits for the rest of it
_ADDRESSES: Final = 4096
_HOSTS: Final = 64

_CHALLENGE: Final = [(b"www-authenticate", b'Bearer realm="edgemed", Basic realm="edgemed", charset="UTF-8"')]


def role_of(method: str, path: str) -> Role | None:
    """Whom a path is for; `None`: everybody. What is not named is for reading, and to be changed by `admin`."""
    if path.startswith("/v2/health/"):
        return None
    if path == "/v2" or path.startswith("/v2/"):
        return "infer" if method in SAFE or path.endswith(("/infer", "/index")) else "admin"
    if path.startswith("/dicom-web/") and method == "POST":
        return "store"
    if path in ("/admin", "/audit", "/api/audit") or path.startswith("/admin/"):  # the trail names studies in clear
        return "admin"
    return "read" if method in SAFE else "admin"


class Hosts:
    """Names by which this server may be called: a page of another site that has its name point here is not it."""

    def __init__(self, config: HttpSection) -> None:
        own = {"localhost", config.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        self._names = own | {name.lower() for name in config.names}
        self._ours = lru_cache(_HOSTS)(self._is_ours)  # clients have few names for us, and use them all the time

    def check(self, host: bytes | None) -> None:
        """Refuse another name than ours; an address cannot be pointed elsewhere.

        Raises:
            HttpError: 400 or 421.
        """
        if not host:
            raise HttpError(400, "The request names no host. Send a Host header.")
        if not self._ours(host):
            what = "This server has another name. Ask it by its address, or add the name to [http] names."
            raise HttpError(421, what)

    def _is_ours(self, host: bytes) -> bool:
        name = _without_port(host.decode("latin-1").lower())
        return name in self._names or _is_address(name)


def check_origin(method: str, host: bytes, origin: bytes | None, site: bytes | None) -> None:
    """Refuse what a page of another site asks a browser to change here.

    Raises:
        HttpError: 403.
    """
    if method in SAFE:
        return
    if site in (b"cross-site", b"same-site") or (origin is not None and origin.partition(b"://")[2] != host):
        raise HttpError(403, "A page of another site asks for this. Use this server's own page, or a program.")


class Logins:
    """Checks tokens; counts those that fail, by address, and writes the audit trail."""

    def __init__(self, tokens: Tokens | None, audit: Audit) -> None:
        self._tokens = tokens
        self._audit = audit
        self._failed: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], int] = OrderedDict()

    def check(self, role: Role | None, address: str, authorization: bytes | None) -> Token:
        """Who asks, where he may.

        Raises:
            HttpError: 401, 403, or 429 after too many wrong ones.
        """
        if self._tokens is None or role is None:
            return LOCAL
        if authorization is None:
            raise HttpError(401, "This is for those who have a token. Send `Authorization: Bearer TOKEN`.", _CHALLENGE)
        self._patience(address)
        secret = secret_of(authorization)
        token = self._tokens.of(secret) if secret is not None else None
        if token is None:
            self._fail(address)
            raise HttpError(401, "The token is not known. Check it.", _CHALLENGE)
        if not token.may(role):
            self._audit.record(AuditEvent("login", "minor", token.name, address, detail=f"It is not for {role}."))
            raise HttpError(403, f"This token is not for {role}. Use another one.")
        self._seen(token.name, address)
        return token

    def _patience(self, address: str) -> None:
        failures, began_ns = self._failed.get(address, (0, 0))
        left_ns = began_ns + _MINUTE_NS - time.monotonic_ns()
        if failures >= _FAILURES and left_ns > 0:
            wait = str(left_ns // 1_000_000_000 + 1).encode()
            raise HttpError(429, "Too many wrong tokens came from this address. Wait.", [(b"retry-after", wait)])

    def _fail(self, address: str) -> None:
        failures, began_ns = self._failed.pop(address, (0, 0))
        now_ns = time.monotonic_ns()
        if now_ns - began_ns > _MINUTE_NS:
            failures, began_ns = 0, now_ns
        self._failed[address] = (failures + 1, began_ns)
        if len(self._failed) > _ADDRESSES:
            self._failed.popitem(last=False)
        if failures + 1 in (1, _FAILURES):  # not each of them: who asks must not be able to fill the trail
            detail = f"A wrong token, {failures + 1} within a minute."
            self._audit.record(AuditEvent("login", "serious", "", address, detail=detail))

    def _seen(self, name: str, address: str) -> None:
        now_ns = time.monotonic_ns()
        before = self._known.get((name, address))
        if before is not None and now_ns - before < _HOUR_NS:
            return
        self._known[name, address] = now_ns
        if len(self._known) > _ADDRESSES:
            self._known.popitem(last=False)
        self._audit.record(AuditEvent("login", "success", name, address))


def secret_of(authorization: bytes) -> bytes | None:
    """The token of `Bearer TOKEN`, or of `Basic name:TOKEN`, which browsers send."""
    scheme, _, value = authorization.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() != b"basic":
        return None
    try:
        return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return None


def _is_address(name: str) -> bool:
    try:
        ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return False
    return True


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and not (name.count(":") and not name.endswith("]")) else host
