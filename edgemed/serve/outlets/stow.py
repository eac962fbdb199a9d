"""The answer of a STOW-RS service: DICOM JSON (PS3.18 annex F) or the native DICOM model in XML (PS3.19 annex A)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree import ElementTree as ET

_FAILED, _KEPT = "00081198", "00081199"
_INSTANCE, _WARNING, _REASON = "00081155", "00081196", "00081197"
_UNKNOWN_FAILURE: Final = 0x0110


class Unreadable(Exception):
    """It is no such answer."""


@dataclass(frozen=True)
class Stored:
    """Of each instance that is named, by its UID: the warning it was stored with (0: none), the reason it was not."""

    kept: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)


def parse_stored(body: bytes, content_type: str) -> Stored:
    """Read an answer.

    Raises:
        Unreadable: it is neither DICOM JSON nor XML, or says nothing of any instance.
    """
    kind = content_type.partition(";")[0].strip().lower()
    try:
        found = _from_xml(body) if kind.endswith("xml") else _from_json(body)
    except (ValueError, TypeError, LookupError, AttributeError, StopIteration, ET.ParseError, RecursionError) as error:
        raise Unreadable from error
    if not found.kept and not found.failed:
        raise Unreadable
    return found


def _from_json(body: bytes) -> Stored:
    data = json.loads(body)
    found = Stored()
    for module in data if isinstance(data, list) else [data]:
        for tag, into, code, otherwise in _lists(found):
            for item in module.get(tag, {}).get("Value", ()):
                codes = item.get(code, {}).get("Value") or [otherwise]
                into[str(item[_INSTANCE]["Value"][0])] = int(codes[0])
    return found


def _from_xml(body: bytes) -> Stored:
    text = body.decode("utf-8")  # whatever it declares
    if "<!DOCTYPE" in text:
        raise ValueError
    root = ET.fromstring(text)  # noqa: S314 - no entities: there is no document type
    found = Stored()
    for tag, into, code, otherwise in _lists(found):
        for item in _attribute(root, tag, "Item"):
            instance = next(_attribute(item, _INSTANCE, "Value")).text or ""
            codes = [value.text or "" for value in _attribute(item, code, "Value")]
            into[instance.strip()] = int(codes[0]) if codes else otherwise
    return found


def _attribute(parent: Any, tag: str, child: str) -> Iterator[Any]:
    for attribute in parent:
        if attribute.tag.rpartition("}")[2] == "DicomAttribute" and attribute.get("tag") == tag:
            yield from (value for value in attribute if value.tag.rpartition("}")[2] == child)


def _lists(found: Stored) -> tuple[tuple[str, dict[str, int], str, int], ...]:
    return (_KEPT, found.kept, _WARNING, 0), (_FAILED, found.failed, _REASON, _UNKNOWN_FAILURE)
