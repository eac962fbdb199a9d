"""What `edgemed serve --check` looks at: all that can be known before the daemon runs. Nothing is changed."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from edgemed.base.errors import EdgemedError, InputError
from edgemed.bundle.trust import open_trusted
from edgemed.evaluate.bundled import reader_of
from edgemed.serve.config import Config
from edgemed.serve.config.models import ModelSection
from edgemed.serve.config.network import is_loopback
from edgemed.serve.folder import check_folders
from edgemed.serve.matching import check_matches
from edgemed.serve.models.trusted import trust_of
from edgemed.serve.outlets.outlets import check_destination
from edgemed.serve.watch import certificates_of, days_left

_PLAIN_STREAMS: Final = ("rtsp", "rtmp", "http", "tcp", "udp")


@dataclass(frozen=True)
class Line:
    """One thing that was looked at.

    Attributes:
        what: it is.
        verdict: `ok`, `warning`, or `error`: the daemon would not start.
        text: a sentence.
        error: of an `error`.
    """

    what: str
    verdict: Literal["ok", "warning", "error"]
    text: str
    error: EdgemedError | None = None


def check(config: Config) -> list[Line]:
    """Look at state, models, ports, certificates and destinations, in this order."""
    return [*_state(config), *_models(config), *_ports(config), *_certificates(config), *_others(config)]


def _state(config: Config) -> Iterator[Line]:
    state = config.daemon.state
    parent = next((each for each in (state, *state.parents) if each.exists()), Path("/"))
    if not parent.is_dir():
        yield Line(
            "state", "error", f"{parent} is no directory.", InputError(f"{parent} is no directory.", "Change state.")
        )
    else:
        yield Line("state", "ok", f"{state}{'' if state.exists() else ', to be made'}.")


def _models(config: Config) -> Iterator[Line]:
    for section in config.models:
        what = f"model {section.name}"
        try:
            yield Line(what, *_model(section, config))
        except EdgemedError as error:
            yield Line(what, "error", str(error), error)


def _model(section: ModelSection, config: Config) -> tuple[Literal["ok", "warning"], str]:
    trust = trust_of(config.trust)
    bundle, signed = open_trusted(section.bundle, trust)
    hot = [] if section.hot is None else [open_trusted(section.hot, trust)[0]]
    reader_of(bundle)
    for one in (bundle, *hot):
        if one.manifest.recipe.assumed:
            raise InputError(f"The recipe of {one.path.name} is assumed.", "Build it with --recipe.")
    text = f"{bundle.manifest.name}, {section.precision or bundle.manifest.precision}, sha256 {bundle.digest[:12]}"
    if signed is None:
        return "warning", f"{text}; anybody's: it is not signed by a key that is named, and allow_unsigned is set."
    return "ok", f"{text}, sequence {signed.release.sequence} of key {signed.key[:12]}."


def _ports(config: Config) -> Iterator[Line]:
    ports = [("http", config.http.host, config.http.port)]
    if config.http.grpc_port is not None:
        ports.append(("grpc", config.http.host, config.http.grpc_port))
    if config.dicom is not None:
        ports.append(("dicom", config.dicom.host, config.dicom.port))
    for what, host, port in ports:
        error = _taken(host, port)
        if error is None:
            yield Line(what, "ok", f"{host}:{port or 'any free port'}.")
        else:
            yield Line(what, "warning", f"{host}:{port} cannot be had now: {error}. Perhaps the daemon runs.")
    if config.dicom is not None and not config.dicom.peers:
        yield Line("dicom", "warning", "No peer is named: every association will be rejected.")
    yield from (Line(what, "warning", text) for what, text in _in_clear(config))


def _in_clear(config: Config) -> Iterator[tuple[str, str]]:
    """What leaves this machine, or comes to it, unencrypted."""
    if config.http.tls is None and not is_loopback(config.http.host):
        yield "http", f"Tokens and results travel in clear on {config.http.host}: give [http] tls."
    if config.dicom is not None and config.dicom.tls is None and not is_loopback(config.dicom.host):
        yield "dicom", f"Images travel in clear on {config.dicom.host}: give [dicom] tls."
    for live in config.live:
        parts = urlsplit(live.source)
        if parts.scheme in _PLAIN_STREAMS and not is_loopback(parts.hostname or ""):
            yield f"live {live.name}", "Its pictures travel in clear: give an rtsps:// or https:// address."
    for each in config.destinations:
        what = f"destination {each.name}"
        if each.kind in ("dicom", "hl7") and each.tls is None and not is_loopback(each.host):
            yield what, f"What it is sent travels in clear to {each.host}: give it tls."
        elif each.kind in ("dicomweb", "webhook") and _is_plain_http(each.url):
            yield what, "What it is sent travels in clear, its token or signature too: give an https:// address."


def _taken(host: str, port: int) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((host, port))
    except OSError as error:
        return error.strerror or str(error)
    return None


def _certificates(config: Config) -> Iterator[Line]:
    for use, path in certificates_of(config):
        days = days_left(path)
        if days is None:
            error = InputError(f"{path} holds no certificate.", "Give a PEM file.")
            yield Line(f"certificate {use}", "error", error.what, error)
        else:
            yield Line(f"certificate {use}", "ok" if days > 30 else "warning", f"{days:.0f} days left.")


def _others(config: Config) -> Iterator[Line]:
    yield from _agrees("models", check_matches, config)
    yield from _agrees("folders", check_folders, config)
    yield from _agrees("dicom", _dicom, config)
    yield from _agrees("http", _stow, config)
    yield from _agrees("audit", _audit, config)
    used = {name for model in config.models for name in model.send_to}
    for destination in config.destinations:
        if destination.name not in used and not destination.forward:
            yield Line(f"destination {destination.name}", "warning", "No model sends to it.")
        try:
            check_destination(destination)
        except EdgemedError as error:
            yield Line(f"destination {destination.name}", "error", str(error), error)
    places = [(f"folder {folder.name}", folder.path) for folder in config.folders]
    places += [(f"destination {each.name}", each.path) for each in config.destinations if each.kind == "folder"]
    for what, path in places:
        if not path.is_dir():
            yield Line(what, "warning", f"{path} is not there (yet).")


def _is_plain_http(url: str) -> bool:
    """Whether what is sent there leaves this machine, and unencrypted."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def _dicom(config: Config) -> None:
    """What the inlet would not start with."""
    from edgemed.serve.dicom.contexts import contexts_for
    from edgemed.serve.tls import server_context

    if config.dicom is not None:
        for peer in config.dicom.peers:
            contexts_for(peer)
        if config.dicom.tls is not None:
            server_context(config.dicom.tls)


def _stow(config: Config) -> None:
    """What STOW-RS would not start with."""
    from edgemed.serve.dicom.contexts import classes_for

    classes_for(config.http.sop_classes)


def _audit(config: Config) -> None:
    """What the way to the audit repository would not start with."""
    from edgemed.serve.tls import outgoing_context

    if config.audit.syslog is not None:
        outgoing_context(config.audit.syslog_tls, config.audit.syslog_ca)


def _agrees(what: str, look: Callable[[Config], None], config: Config) -> Iterator[Line]:
    try:
        look(config)
    except EdgemedError as error:
        yield Line(what, "error", str(error), error)
