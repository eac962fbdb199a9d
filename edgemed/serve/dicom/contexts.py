"""What may be negotiated with a peer: SOP classes by what it may do, and the transfer syntaxes that we read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from pynetdicom import sop_class as known
from pynetdicom.presentation import PresentationContext, build_context

from edgemed.base.errors import UsageError
from edgemed.imaging.dicom.syntaxes import SYNTAXES
from edgemed.serve.config.inlets import Peer

VERIFICATION: Final = "1.2.840.10008.1.1"
COMMITMENT: Final = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
PROCEDURE_STEP: Final = "1.2.840.10008.3.1.2.3.3"
SERVICES: Final = frozenset((VERIFICATION, COMMITMENT, PROCEDURE_STEP))
"""Of which no instance is stored; every other class that is negotiated is one of storage."""

PLAIN: Final = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
# where one context offers several, the first of these is taken: as it is, then compressed without loss, then with
_ORDER: Final = (*PLAIN, *(uid for uid in SYNTAXES if uid not in PLAIN))
_UID: Final = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_RETIRED: Final = ("1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.5", "1.2.840.10008.5.1.4.1.1.6")
_STORAGE: Final = {keyword: str(uid) for keyword, uid in known._STORAGE_CLASSES.items()}
IMAGES: Final = tuple(sorted({uid for keyword, uid in _STORAGE.items() if "ImageStorage" in keyword} | {*_RETIRED}))
"""Every image storage SOP class, with the retired ones for ultrasound and nuclear medicine."""


def storage_class(text: str) -> str:
    """The UID of a storage SOP class that is given by its keyword or UID.

    Raises:
        UsageError: there is none of that name.
    """
    if text in _STORAGE:
        return _STORAGE[text]
    if _UID.fullmatch(text) and len(text) <= 64:
        return text
    raise UsageError(
        f"{text} is no storage SOP class.", "Give its UID, or its keyword as in PS3.6, e.g. CTImageStorage."
    )


def classes_for(named: Sequence[str]) -> list[str]:
    """The SOP classes that somebody may send: those that are named, or every one of images.

    Raises:
        UsageError: one is none.
    """
    return list(dict.fromkeys(storage_class(text) for text in named)) or list(IMAGES)


def contexts_for(peer: Peer) -> list[PresentationContext]:
    """All that a peer may negotiate.

    Raises:
        UsageError: one of its SOP classes is none.
    """
    found = []
    if "echo" in peer.may:
        found.append(build_context(VERIFICATION, list(PLAIN)))
    if "store" in peer.may:
        found += [build_context(uid, list(_ORDER)) for uid in classes_for(peer.sop_classes)]
    if "commit" in peer.may:
        found.append(_commitment(scu=True, scp=True))
    if "mpps" in peer.may:
        found.append(build_context(PROCEDURE_STEP, list(PLAIN)))
    return found


def contexts_for_reports() -> list[PresentationContext]:
    """All that a destination may negotiate: it tells whether it has committed itself to what it was sent."""
    return [build_context(VERIFICATION, list(PLAIN)), _commitment(scu=True, scp=True)]


def _commitment(*, scu: bool, scp: bool) -> PresentationContext:
    context = build_context(COMMITMENT, list(PLAIN))
    context.scu_role, context.scp_role = scu, scp
    return context
