"""The template, filled."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from textwrap import fill
from typing import Final

from scripts.conformance import audit, limits, network, objects, sender, settings, statuses, web

PAGE: Final = Path(__file__).resolve().parent.parent.parent / "docs" / "dicom-conformance.md"
TEMPLATE: Final = Path(__file__).with_name("template.md")

_WIDTH: Final = 124
_PLACE: Final = re.compile(r"\{\{ (\w+) \}\}")
_MODULES: Final = (audit, limits, network, objects, sender, settings, statuses, web)


def fills() -> Mapping[str, Callable[[], str]]:
    """What may stand in the template, by its name."""
    return {name: fill for module in _MODULES for name, fill in module.FILLS.items()}


@cache
def text() -> str:
    """The page.

    Raises:
        KeyError: the template names what there is not.
    """
    known = fills()
    filled = _PLACE.sub(lambda place: known[place[1]](), TEMPLATE.read_text(encoding="utf-8"))
    return "\n\n".join(map(_wrapped, filled.rstrip("\n").split("\n\n"))) + "\n"


def _wrapped(block: str) -> str:
    """A paragraph in lines of this project's length; tables, lists and headings as they are."""
    if block.startswith(("|", "- ", "#")):
        return block
    return fill(block, _WIDTH, break_long_words=False, break_on_hyphens=False)
