"""Pseudonyms, UIDs and date shifts from a secret key: the same for the same patient, unguessable without the key."""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from dataclasses import dataclass, field
from datetime import date, timedelta

_MAX_SHIFT = 3650  # days; ten years blur age and season, and keep what lies between two studies
_PSEUDONYM_DIGITS = 16  # 64 bits: a clash among a million patients has odds of 1 in 30 million
_FINGERPRINT_DIGITS = 16  # as above, of keys
_PSEUDONYM = re.compile(rf"P-([0-9a-f]{{{_FINGERPRINT_DIGITS}}})-[0-9a-f]{{{_PSEUDONYM_DIGITS}}}")
_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")


@dataclass(frozen=True)
class Identities:
    """New names for patients, instances and days.

    Each is an HMAC-SHA-256 under the key (RFC 2104): whoever has the key can make them again from the original, and
    nobody can get back from them, or try out names, without it.
    """

    key: bytes = field(repr=False)

    def _digest(self, purpose: str, value: str) -> bytes:
        return hmac.new(self.key, f"{purpose}\0{value}".encode(errors="surrogatepass"), hashlib.sha256).digest()

    def uid(self, original: str) -> str:
        """A UID below 2.25 (PS3.5 B.2): the decimal form of a UUID of version 8 (RFC 9562)."""
        raw = int.from_bytes(self._digest("uid", original)[:16], "big")
        raw = raw & ~(0xF << 76) | (8 << 76)
        return f"2.25.{uuid.UUID(int=raw & ~(0x3 << 62) | (0x2 << 62)).int}"

    @property
    def fingerprint(self) -> str:
        """Tells keys apart and says nothing else of them: part of every pseudonym, since those of two keys differ."""
        return self._digest("fingerprint", "edgemed key").hex()[:_FINGERPRINT_DIGITS]

    def patient(self, identity: str) -> str:
        """The pseudonym of a patient, `P-FINGERPRINT-DIGITS`; legal as Patient ID and as Patient's Name.

        Where only the study or the file tells who it is (see `patient_identity`), it begins with `S-` instead: such
        pseudonyms of one patient may differ.
        """
        kind = "P" if "\0" in identity else "S"
        return f"{kind}-{self.fingerprint}-{self._digest('patient', identity).hex()[:_PSEUDONYM_DIGITS]}"

    def days(self, identity: str) -> int:
        """Days that the dates of a patient move, 1 to 3650 into the past."""
        return -1 - int.from_bytes(self._digest("days", identity)[:8], "big") % _MAX_SHIFT


def fingerprint_of(pseudonym: str) -> str | None:
    """Fingerprint of the key that a patient's pseudonym was made with; `None` for names that others made.

    Two pseudonyms of one key are of different patients; of two keys, that cannot be said.
    """
    found = _PSEUDONYM.fullmatch(pseudonym)
    return None if found is None else found[1]


def shifted(text: str, days: int) -> str | None:
    """A DA or DT value moved by whole days, its time of day as it was; `None` where it holds no full date."""
    found = _DATE.match(text)
    if found is None:
        return None
    try:
        moved = date(*(int(part) for part in found.groups())) + timedelta(days)
    except (ValueError, OverflowError):
        return None
    return f"{moved:%Y%m%d}".rjust(8, "0") + text[found.end() :]
