"""Names for logs: what identifies a patient or a study is shown as a keyed pseudonym, the same one each time."""

from __future__ import annotations

import hashlib
import hmac

_DIGITS = 12


class Pseudonyms:
    """Made with a key that stays on this machine: who has only a log cannot test a guess."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, text: str) -> str:
        """The pseudonym of a UID, a Patient ID, a file name."""
        digest = hmac.new(self._key, text.strip().encode("utf-8", "surrogateescape"), hashlib.sha256)
        return f"~{digest.hexdigest()[:_DIGITS]}"
