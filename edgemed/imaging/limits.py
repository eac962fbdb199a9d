"""What is read at most: checked against what a header claims, before anything is allocated."""

from __future__ import annotations

from typing import Final

MAX_SIDE: Final = 16_384
MAX_PIXELS: Final = 1 << 28
MAX_ARRAY_BYTES: Final = 4 << 30
