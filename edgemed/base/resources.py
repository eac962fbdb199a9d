"""Files that ship with edgemed: recipes (`calibration/`) and device profiles (`profiles/`)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgemed.base.errors import InputError

Kind = Literal["calibration", "profiles"]

_PACKAGE = Path(__file__).resolve().parent.parent


def resource_dir(kind: Kind) -> Path:
    """The directory of shipped files: inside the wheel, or at the top of a source checkout."""
    installed = _PACKAGE / "_data" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def shipped(kind: Kind) -> dict[str, Path]:
    """Shipped TOML files by stem, sorted by name."""
    return {path.stem: path for path in sorted(resource_dir(kind).glob("*.toml"))}


def find_resource(kind: Kind, name: str) -> Path:
    """Look `name` up as a path, then among the shipped ones.

    Raises:
        InputError: neither exists; the hint lists the shipped names.
    """
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        return path
    known = shipped(kind)
    if name in known:
        return known[name]
    noun = {"calibration": "recipe", "profiles": "device profile"}[kind]
    raise InputError(f"There is no {noun} '{name}'.", f"Give a .toml file, or one of: {', '.join(known) or '(none)'}.")
