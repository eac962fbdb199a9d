"""What a de-identification keeps beyond the Basic Profile, and the codes that say so in the file."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Literal

from edgemed.imaging.deid.regions import RegionRule
from edgemed.imaging.deid.table import Action, Option, Row

KEY_BYTES = 32


@dataclass(frozen=True)
class SafePrivate:
    """A private element that is known to identify nobody: `(gggg,xxEE)` in the block of `creator`."""

    group: int
    creator: str
    element: int


def new_key() -> bytes:
    """A random key: pseudonyms made with it cannot be made, or tested, without it."""
    return secrets.token_bytes(KEY_BYTES)


@dataclass(frozen=True)
class Options:
    """Options of PS3.15 Annex E.3; the defaults are the Basic Profile, and free text outside the table goes too.

    Clean Graphics, Clean Structured Content and Clean Descriptors are not offered: they need a reader's judgement,
    and without them the profile removes what they would clean.

    Attributes:
        key: of the HMAC that makes pseudonyms, UIDs and date shifts. Keep it, and later files fit in.
        dates: removed; `shift`ed by a number of days that is the same for all files of a patient; or kept.
        retain_uids: UIDs stay, and with them the way back to the original.
        retain_device: Retain Device Identity.
        retain_patient: Retain Patient Characteristics (age, sex, size, weight; E.3.7).
        retain_institution: Retain Institution Identity.
        safe_private: private elements to keep; all others go.
        unlisted_text: what becomes of text that Table E.1-1 does not name. The profile keeps it; hospitals do write
            names into such fields, so `remove` is stricter.
        pseudonym: Patient ID and Patient's Name become the patient's pseudonym; else they are emptied.
        regions: rules that say where text is burned into pixels.
    """

    key: bytes = field(default_factory=new_key, repr=False)
    dates: Literal["remove", "shift", "keep"] = "remove"
    retain_uids: bool = False
    retain_device: bool = False
    retain_patient: bool = False
    retain_institution: bool = False
    safe_private: frozenset[SafePrivate] = frozenset()
    unlisted_text: Literal["remove", "keep"] = "remove"
    pseudonym: bool = True
    regions: tuple[RegionRule, ...] = ()

    def chosen(self, row: Row) -> tuple[Action, Option] | None:
        """What an option makes of a row, and which; `None` where the Basic Profile's own action stands."""
        wanted: dict[Option, bool] = {
            "uids": self.retain_uids,
            "device": self.retain_device,
            "patient": self.retain_patient,
            "institution": self.retain_institution,
            "full_dates": self.dates == "keep",
        }
        for option, on in wanted.items():
            if on and row.options.get(option) == "K":
                return "K", option
        if self.dates == "shift" and "modified_dates" in row.options:
            return "S", "modified_dates"
        return None

    def codes(self, *, pixels_cleaned: bool) -> list[tuple[str, str]]:
        """Codes and meanings of CID 7050 (PS3.16) for De-identification Method Code Sequence."""
        table = [
            (True, "113100", "Basic Application Confidentiality Profile"),
            (pixels_cleaned, "113101", "Clean Pixel Data Option"),
            (self.dates == "keep", "113106", "Retain Longitudinal Temporal Information Full Dates Option"),
            (self.dates == "shift", "113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
            (self.retain_patient, "113108", "Retain Patient Characteristics Option"),
            (self.retain_device, "113109", "Retain Device Identity Option"),
            (self.retain_uids, "113110", "Retain UIDs Option"),
            (bool(self.safe_private), "113111", "Retain Safe Private Option"),
            (self.retain_institution, "113112", "Retain Institution Identity Option"),
        ]
        return [(code, meaning) for on, code, meaning in table if on]
