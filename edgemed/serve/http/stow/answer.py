"""What the sender is told: a Store Instances Response Module in DICOM JSON (PS3.18 annex I), and a status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from edgemed.serve.http.stow.part import OUT_OF_RESOURCES, Stored

_FAILED: Final = "00081198"
_REFERENCED: Final = "00081199"
_CLASS, _INSTANCE, _REASON = "00081150", "00081155", "00081197"
_OTHERS: Final = "0008119A"


def status_of(stored: Sequence[Stored]) -> int:
    """200 where all are kept, 202 where some are, 409 where none is; 507 where that is for want of space."""
    failures = {each.failure for each in stored if each.failure}
    if not failures:
        return 200
    if any(not each.failure for each in stored):
        return 202
    return 507 if failures == {OUT_OF_RESOURCES} else 409


def response_of(stored: Sequence[Stored]) -> dict[str, Any]:
    """The module. Parts that do not tell who they are stand in Other Failures Sequence."""
    kept = [_named(each) for each in stored if not each.failure]
    known = [_named(each) | _reason(each) for each in stored if each.failure and each.sop_instance]
    others = [_reason(each) for each in stored if each.failure and not each.sop_instance]
    rows = ((_REFERENCED, kept), (_FAILED, known), (_OTHERS, others))
    return {tag: {"vr": "SQ", "Value": items} for tag, items in rows if items}


def _named(each: Stored) -> dict[str, Any]:
    sop_class = {_CLASS: {"vr": "UI", "Value": [each.sop_class]}} if each.sop_class else {}
    return {**sop_class, _INSTANCE: {"vr": "UI", "Value": [each.sop_instance]}}


def _reason(each: Stored) -> dict[str, Any]:
    return {_REASON: {"vr": "US", "Value": [each.failure]}}
