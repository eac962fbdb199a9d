"""What may be negotiated: SOP classes by what a peer may do, transfer syntaxes, and who we say that we are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, get_args

from pynetdicom.presentation import PresentationContext

from edgemed import __version__
from edgemed.imaging.dicom.identity import IMPLEMENTATION, VERSION_NAME
from edgemed.serve.config.inlets import DicomSection, Peer
from edgemed.serve.dicom import admission
from edgemed.serve.dicom.contexts import COMMITMENT, IMAGES, PROCEDURE_STEP, contexts_for, contexts_for_reports
from edgemed.serve.dicom.negotiation import APPLICATION_CONTEXT
from scripts.conformance.tables import name_of, table

_FEW: Final = 8
_MEANS: Final = {
    (1, 2, 2): "protocol version not supported",
    (1, 1, 2): "application context name not supported",
    (1, 1, 3): "calling AE title not recognised",
    (1, 1, 7): "called AE title not recognised",
    (2, 3, 2): "local limit exceeded",
}
_RESULTS: Final = {1: "rejected, permanent", 2: "rejected, transient"}
_SOURCES: Final = {1: "service user", 2: "service provider (ACSE)", 3: "service provider (presentation)"}


def may() -> tuple[str, ...]:
    """All that a peer's section may allow it."""
    (literal, _) = get_args(Peer.model_fields["may"].annotation)
    return get_args(literal)


def contexts(what: str) -> list[PresentationContext]:
    """What is offered to a peer that may do one thing."""
    allowed: Any = (what,)
    return contexts_for(Peer(ae_title="PEER", addresses=("192.0.2.1",), may=allowed))


def provided() -> str:
    """The services that we are asked for."""
    return table(
        ("SOP class", "UID", "peer's `may` has", "peer as SCU", "peer as SCP"),
        [
            (*_called(several), f"`{what}`", _yes(role[0]), _yes(role[1]))
            for what in may()
            for role, several in _by_role(contexts(what))
        ],
    )


def offered() -> str:
    """Presentation contexts for each `may`, and for destinations that report."""
    rows = [(f"`{what}`", *_called([context]), _syntaxes(context)) for what, context in _each()]
    reporter = "a destination with `commitment = true`"
    rows += [(reporter, *_called([context]), _syntaxes(context)) for context in contexts_for_reports()]
    return table(("for", "abstract syntax", "UID", "transfer syntaxes"), rows)


def images() -> str:
    """The storage SOP classes that are taken where a peer's section names none."""
    return table(("SOP class", "UID"), [(name_of(uid), uid) for uid in IMAGES])


def syntaxes() -> str:
    """All transfer syntaxes of storage, in the order of preference."""
    (first, *_) = contexts("store")
    return table(
        ("", "transfer syntax", "UID"),
        [(place, name_of(uid), uid) for place, uid in enumerate(first.transfer_syntax or (), 1)],
    )


def rejections() -> str:
    """Why there is no association."""
    rows = (
        ("`version`", "the request is of another version of the protocol", admission.VERSION),
        ("`context`", "the application context is another one", admission.CONTEXT),
        ("`calling`", "the calling AE title is no peer's and no destination's", admission.CALLING),
        ("`address`", "the peer calls from an address that its section does not name", admission.CALLING),
        ("`called`", "the called AE title is not ours", admission.CALLED),
        ("`limit`", "there are as many associations as `[dicom] associations` allows", admission.BUSY),
        ("`peer-limit`", "the peer has as many as its own `associations` allows", admission.BUSY),
    )
    return table(
        ("counted as", "when", "A-ASSOCIATE-RJ"),
        [
            (reason, when, f"{_RESULTS[answer[0]]}; {_SOURCES[answer[1]]}; {answer[2]} {_MEANS[answer]}")
            for reason, when, answer in rows
        ],
    )


def _each() -> Iterator[tuple[str, PresentationContext]]:
    """Of what has many, one stands for all."""
    for what in may():
        found = contexts(what)
        yield from ((what, context) for context in found[: None if len(found) <= _FEW else 1])


def _by_role(found: list[PresentationContext]) -> Iterator[tuple[tuple[bool, bool], list[PresentationContext]]]:
    for role in dict.fromkeys(map(_role, found)):
        alike = [context for context in found if _role(context) == role]
        yield from ((role, [context]) for context in alike) if len(alike) <= _FEW else [(role, alike)]


def _role(context: PresentationContext) -> tuple[bool, bool]:
    """What the peer may be; without negotiation, the SCU."""
    return (context.scu_role is not False, bool(context.scp_role))


def _called(several: list[PresentationContext]) -> tuple[str, str]:
    uid = str(several[0].abstract_syntax)
    if len(several) > 1 or uid == IMAGES[0]:
        return f"Storage, {len(IMAGES)} image SOP classes", "see below"
    return name_of(uid), uid


def _syntaxes(context: PresentationContext) -> str:
    found = context.transfer_syntax or []
    return ", ".join(map(name_of, found)) if len(found) <= _FEW else f"the {len(found)} below"


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"


FILLS: Final[dict[str, Callable[[], str]]] = {
    "version": lambda: __version__,
    "implementation": lambda: IMPLEMENTATION,
    "version_name": lambda: VERSION_NAME,
    "application_context": lambda: APPLICATION_CONTEXT,
    "ae_title": lambda: str(DicomSection.model_fields["ae_title"].default),
    "port": lambda: str(DicomSection.model_fields["port"].default),
    "commitment_name": lambda: f"{name_of(COMMITMENT)} ({COMMITMENT})",
    "step_name": lambda: f"{name_of(PROCEDURE_STEP)} ({PROCEDURE_STEP})",
    "provided": provided,
    "offered": offered,
    "images": images,
    "syntaxes": syntaxes,
    "rejections": rejections,
}
