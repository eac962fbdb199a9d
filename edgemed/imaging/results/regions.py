"""Outlines of masks, for what holds no pixels: polygons whose inside are just the pixels of the mask."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.imaging.results.content import Content, Reading

MAX_PARTS: Final = 24
"""Of one mask that are outlined, the largest ones: more are noise, and no reader looks at them."""
MAX_POINTS: Final = 100_000
"""Of all outlines of one result: 800 kB of coordinates."""
MAX_LENGTH: Final = 8_000
"""Points of one outline: Graphic Data of explicit VR holds 65 534 bytes (PS3.5 7.1.2), 8 for each point."""
_TOLERANCES: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # pixels


@dataclass(frozen=True, eq=False)
class Region:
    """One connected part of a mask.

    Attributes:
        reading: index into `Content.readings`.
        label: index of its class.
        source: index into `Content.sources`.
        frame: of that file, from 0; `None`: the whole of it.
        plane: slice of a volume; 0 of an image.
        points: `(n, 2)` closed outline, columns and rows; the corner of the first pixel is (0, 0), its centre (½, ½)
            (PS3.3 C.18.6.1.1). Holes are not outlined.
        pixels: of the part, without its holes.
    """

    reading: int
    label: int
    source: int
    frame: int | None
    plane: int
    points: NDArray[np.float64] = field(repr=False)
    pixels: int


@dataclass(frozen=True)
class Regions:
    """All outlines.

    Attributes:
        every: of them.
        tolerance: pixels by which an outline may lie beside the mask's; 0 where the mask can be got back.
        left_out: parts that were too many.
    """

    every: tuple[Region, ...]
    tolerance: float
    left_out: int

    def of(self, reading: int, label: int) -> list[Region]:
        """Those of one mask."""
        return [region for region in self.every if region.reading == reading and region.label == label]

    @property
    def notes(self) -> list[str]:
        """What a reader must know of them."""
        said = []
        if self.tolerance:
            said.append(f"Outlines are simplified by up to {self.tolerance:g} pixels.")
        if self.left_out:
            said.append(f"{self.left_out} small parts of masks are not outlined.")
        return said


def is_volume(reading: Reading) -> bool:
    """Whether its masks have slices."""
    return reading.labels is not None and reading.labels.ndim == 4


def planes_of(content: Content, reading: Reading) -> list[tuple[int, int | None]]:
    """For each plane of a mask, its source and frame.

    Raises:
        InputError: the content does not say which.
    """
    assert reading.labels is not None
    if reading.labels.ndim == 3:
        return [(reading.source or 0, reading.frame)]
    if len(content.planes) != reading.labels.shape[1]:
        raise InputError(
            f"A mask has {reading.labels.shape[1]} slices, and the content names {len(content.planes)} planes.",
            "Name the source and frame of each slice.",
        )
    return list(content.planes)


def find_regions(content: Content, unnamed: Collection[int] = ()) -> Regions:
    """Outline all masks, as exactly as the limits allow; none on sources whose frames no reference can name."""
    exact, left_out = [], 0
    for number, reading in enumerate(content.readings):
        if reading.labels is None or reading.source in unnamed:
            continue
        stack = reading.labels if reading.labels.ndim == 4 else reading.labels[:, None]
        for plane, (source, frame) in enumerate(planes_of(content, reading)):
            for label, mask in enumerate(stack[:, plane]):
                parts, more = _parts(mask)
                left_out += more
                exact += [Region(number, label, source, frame, plane, *part) for part in parts]
    for tolerance in _TOLERANCES:
        every = [_simplified(region, tolerance) for region in exact]
        lengths = [len(region.points) for region in every]
        if sum(lengths) <= MAX_POINTS and max(lengths, default=0) <= MAX_LENGTH:
            return Regions(tuple(every), tolerance, left_out)
    every = sorted((r for r in every if len(r.points) <= MAX_LENGTH), key=lambda r: -r.pixels)
    total = np.cumsum([len(region.points) for region in every])
    kept = every[: int((total <= MAX_POINTS).sum())]
    return Regions(tuple(kept), tolerance, left_out + len(exact) - len(kept))


def _parts(mask: NDArray[np.bool_]) -> tuple[list[tuple[NDArray[np.float64], int]], int]:
    """Outline and size of each connected part, the largest first, and how many more there are."""
    from scipy import ndimage

    numbered, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if not count:
        return [], 0
    sizes = np.bincount(numbered.ravel())[1:]
    boxes = ndimage.find_objects(numbered)
    chosen = np.argsort(-sizes, kind="stable")[:MAX_PARTS]
    found = []
    for index in chosen:
        rows, columns = boxes[index]
        outline = _outline(numbered[rows, columns] == index + 1) + np.array([columns.start, rows.start])
        found.append((outline, int(sizes[index])))
    return found, int(count - len(chosen))


def _outline(part: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of one connected part: halfway between its pixels and their neighbours, in columns and rows."""
    from scipy import ndimage
    from skimage import measure

    filled = ndimage.binary_fill_holes(np.pad(part, 1))
    find: Any = measure.find_contours
    contours: list[NDArray[np.float64]] = find(filled.astype(np.float32), 0.5, fully_connected="high")
    longest = max(contours, key=len)
    return _straightened(longest[:, ::-1] - 0.5)  # the padding takes one, the centre of a pixel gives a half


def _straightened(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without the points on straight lines."""
    step = np.diff(points, axis=0)
    before = np.roll(step, 1, axis=0)
    turns = step[:, 0] * before[:, 1] != step[:, 1] * before[:, 0]
    kept = points[:-1][turns]
    return np.concatenate([kept, kept[:1]])


def _simplified(region: Region, tolerance: float) -> Region:
    from skimage import measure

    if not tolerance:
        return region
    approximate: Any = measure.approximate_polygon
    points = approximate(region.points, tolerance)
    return replace(region, points=points) if len(points) >= 4 else region
