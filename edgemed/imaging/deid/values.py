"""Which values can be trusted to be what their VR says, and what stands in for those that go."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from edgemed.base.lazy import require

FREE_TEXT: Final = frozenset(("AE", "LO", "LT", "PN", "SH", "ST", "UC", "UN", "UR", "UT"))
DATES: Final = frozenset(("DA", "DT", "TM"))
NUMBERS: Final = frozenset(("AT", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"))
BYTES: Final = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))

_FORMS: Final = {
    "AS": re.compile(r"\d{3}[DWMY]"),
    "CS": re.compile(r"[A-Z0-9_ ]{0,16}"),
    "DA": re.compile(r"\d{8}|\d{4}\.\d{2}\.\d{2}"),  # the second is that of ACR-NEMA, still met
    "DS": re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *"),
    "DT": re.compile(r"\d{4,14}(\.\d{1,6})?([+-]\d{4})? *"),
    "IS": re.compile(r" *[+-]?\d{1,11} *"),
    "TM": re.compile(r"\d{2,6}(\.\d{1,6})? *|\d{2}:\d{2}:\d{2}(\.\d{1,6})?"),
    "UI": re.compile(r"[0-9.]{0,64}"),
}
"""PS3.5 Table 6.2-1, as far as it keeps words out."""

STRUCTURAL: Final = frozenset(("Modality", "PhotometricInterpretation", "SpecificCharacterSet"))
"""Codes without which an image is read wrongly; a phantom called `MONOCHROME2` must not take them away."""

_KNOWN_TEXT: Final = {
    "RescaleType": "OD HU US MGML Z_EFF ED EDW HU_MOD PCT",  # PS3.3 C.11.1.1.2
    "ModalityLUTType": "OD HU US MGML Z_EFF ED EDW HU_MOD PCT",
    "WindowCenterWidthExplanation": "WINDOW1 WINDOW2 WINDOW3 NORMAL HARDER SOFTER WINDOW LUNG BONE BRAIN MEDIASTINUM "
    "ABDOMEN LIVER SOFT_TISSUE SOFTTISSUE STROKE SPINE HEAD",
    "LUTExplanation": "NORMAL HARDER SOFTER LOW MEDIUM HIGH",
    "Manufacturer": "SIEMENS SIEMENS_HEALTHINEERS GE_MEDICAL_SYSTEMS GE_HEALTHCARE PHILIPS PHILIPS_MEDICAL_SYSTEMS "
    "PHILIPS_HEALTHCARE TOSHIBA TOSHIBA_MEC CANON CANON_MEC CANON_INC. HITACHI HITACHI_MEDICAL_CORPORATION HOLOGIC "
    "HOLOGIC,_INC. FUJIFILM FUJIFILM_CORPORATION AGFA AGFA-GEVAERT CARESTREAM CARESTREAM_HEALTH KODAK SAMSUNG "
    "SAMSUNG_ELECTRONICS MINDRAY SHIMADZU KONICA_MINOLTA ESAOTE UIH LUNIT OLYMPUS TOPCON ZEISS BRUKER",
}
"""Text that the table leaves, and that is kept because we know these very words; underscores are blanks."""


def strings(value: Any) -> list[str]:
    """A value as text, one string for each of its values."""
    if value is None:
        return []
    if isinstance(value, str | bytes):
        return [value if isinstance(value, str) else value.decode("latin-1")]
    try:
        return [str(one) for one in value]
    except TypeError:
        return [str(value)]


def well_formed(vr: str, values: list[str]) -> bool:
    """Whether every value keeps to the form of its VR; VRs without a form always do."""
    form = _FORMS.get(vr)
    return form is None or all(form.fullmatch(value) for value in values)


def known_text(keyword: str, values: list[str]) -> bool:
    """Whether an attribute's values are among the words known for it."""
    words = _known().get(keyword)
    return words is not None and all(value.strip().upper() in words for value in values)


@lru_cache(1)
def _known() -> dict[str, frozenset[str]]:
    return {key: frozenset(word.replace("_", " ") for word in text.split()) for key, text in _KNOWN_TEXT.items()} | {
        "ModalityLUTType": frozenset(_KNOWN_TEXT["ModalityLUTType"].split()),
        "RescaleType": frozenset(_KNOWN_TEXT["RescaleType"].split()),
    }


def well_known_uid(uid: str) -> bool:
    """Whether the standard itself gave this UID: SOP classes, transfer syntaxes, atlas frames of reference."""
    return uid.startswith("1.2.840.10008.")


_DUMMIES: Final[dict[str, Any]] = {
    "AS": "000D",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "DS": "0",
    "IS": "0",
    "UR": "https://removed.invalid",
}


def dummy(vr: str) -> Any:
    """A value of one element that says nothing and is legal for its VR; not for `SQ` and `UI`."""
    if vr in _DUMMIES:
        return _DUMMIES[vr]
    if vr in BYTES:
        return b"\0" * 8
    return 0 if vr in NUMBERS else "REMOVED"


def meaning_of(scheme: str, code: str) -> str | None:
    """Code Meaning that the dictionaries of PS3.16 give a code; `None` for one they do not know."""
    if scheme == "SRT":
        code, scheme = _snomed().get(code, ""), "SCT"
    return _codes(scheme).get(code)


@lru_cache(1)
def _snomed() -> dict[str, str]:
    try:
        mapping = require("pydicom.sr._snomed_dict", extra="imaging", purpose="know codes").mapping
    except (ImportError, AttributeError):  # not a public part of pydicom; without it such codes are unknown
        return {}
    return dict(mapping.get("SRT", {}))


@lru_cache(32)
def _codes(scheme: str) -> dict[str, str]:
    codedict = require("pydicom.sr.codedict", extra="imaging", purpose="know codes")
    collection = getattr(codedict.codes, scheme, None) if scheme.isidentifier() and scheme[0].isupper() else None
    concepts = getattr(collection, "concepts", {})
    return {code.value: code.meaning for code in concepts.values() if code.scheme_designator == scheme}
