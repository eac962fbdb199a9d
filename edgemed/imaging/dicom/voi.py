"""VOI windows and lookup tables of a file (PS3.3 C.11.2): what cannot be meant is left out, and said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, cast, get_args

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.lut import read_table
from edgemed.imaging.dicom.values import items, numbers, value
from edgemed.recipe.image import LookupTable, VoiFunction, Window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def read_windows(dataset: Dataset, notes: list[str]) -> tuple[Window, ...]:
    """The windows of a data set, or of a Frame VOI LUT item; `notes` tells of those left out.

    Width must be at least 1 for LINEAR, and above 0 for the other functions.
    """
    try:
        centers, widths = numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")
        function = str(value(dataset, "VOILUTFunction") or "LINEAR").strip()
    except InputError as error:
        notes.append(f"Windows left out: {error.what}")
        return ()
    if function not in get_args(VoiFunction):
        notes.append(f"Windows left out: the VOI LUT Function {function[:40]!r} is unknown.")
        return ()
    if len(centers) != len(widths):
        notes.append(f"{len(centers)} Window Centers stand beside {len(widths)} Window Widths; the rest was left out.")
    explanations = _explanations(dataset)
    windows = []
    for i, (center, width) in enumerate(zip(centers, widths, strict=False)):
        if width <= 0 or (function == "LINEAR" and width < 1):
            notes.append(f"A window was left out: its width is {width:g}.")
            continue
        explanation = explanations[i] if i < len(explanations) else ""
        windows.append(Window(center, width, cast(VoiFunction, function), explanation))
    return tuple(windows)


def _explanations(dataset: Dataset) -> list[str]:
    try:
        found = value(dataset, "WindowCenterWidthExplanation")
    except InputError:
        return []
    if found is None:
        return []
    return [found] if isinstance(found, str) else [str(part) for part in found]


def read_tables(dataset: Dataset, notes: list[str], *, signed: bool) -> tuple[LookupTable, ...]:
    """The VOI LUTs of a data set, or of a Frame VOI LUT item; `signed` if their input can be negative."""
    tables = []
    try:
        sequence = items(dataset, "VOILUTSequence")
    except InputError as error:
        notes.append(f"VOI LUTs left out: {error.what}")
        return ()
    for item in sequence:
        table = _table(item, notes, signed=signed)
        if table is not None:
            tables.append(table)
    return tuple(tables)


def _table(item: Dataset, notes: list[str], *, signed: bool) -> LookupTable | None:
    try:
        return read_table(item, signed=signed)
    except InputError as error:
        notes.append(f"A VOI LUT was left out: {error.what}")
        return None


def mirror_windows(windows: Iterable[Window], total: float) -> tuple[Window, ...]:
    """Windows for pixels that were turned over, `x` to `total - x`: what was shown as black is shown as white.

    LINEAR is centred on c - 0.5 (C.11.2.1.2.1), so its centre moves to `total - c + 1`; the others are symmetrical.
    """
    return tuple(replace(w, center=total - w.center + (w.function == "LINEAR")) for w in windows)


def mirror_tables(tables: Iterable[LookupTable], total: float, notes: list[str]) -> tuple[LookupTable, ...]:
    """VOI LUTs for pixels that were turned over, with their output turned over, too."""
    if not float(total).is_integer():
        if tables:
            notes.append("VOI LUTs left out: the pixels of MONOCHROME1 are not whole numbers.")
        return ()
    return tuple(
        replace(t, first=int(total) - (t.first + len(t.data) - 1), data=((1 << t.bits) - 1 - t.data)[::-1])
        for t in tables
    )
