"""What the file says of its image, for contracts and reports: what cannot be read is left out, and said."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.frames import FrameAttributes
from edgemed.imaging.dicom.module import PixelModule
from edgemed.imaging.dicom.values import number, numbers, text
from edgemed.recipe.image import Facts

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

T = TypeVar("T")


def read_facts(dataset: Dataset, module: PixelModule, first: FrameAttributes, notes: list[str]) -> Facts:
    """The facts of a file; spacing is that of the first frame."""

    def word(*keywords: str) -> str | None:
        found = (_lenient(text, dataset, keyword, notes) for keyword in keywords)
        return next((value for value in found if value), None)

    burned_in = word("BurnedInAnnotation")
    return Facts(
        rows=module.rows,
        columns=module.columns,
        frames=module.frames,
        photometric=module.photometric,
        bits=None if module.is_float else module.stored,
        modality=word("Modality"),
        sop_class=word("SOPClassUID"),
        body_part=word("BodyPartExamined"),
        laterality=word("ImageLaterality", "Laterality"),
        view=word("ViewPosition"),
        spacing=first.spacing,
        slice_spacing=first.slice_spacing,
        frame_time_ms=_frame_time(dataset, notes) if module.frames > 1 else None,
        manufacturer=word("Manufacturer"),
        model_name=word("ManufacturerModelName"),
        burned_in={"YES": True, "NO": False}.get(burned_in or ""),
        sop_instance=word("SOPInstanceUID"),
        series=word("SeriesInstanceUID"),
        patient=word("PatientID"),
    )


def _frame_time(dataset: Dataset, notes: list[str]) -> float | None:
    """Between frames of a cine: Frame Time, the mean of Frame Time Vector, or what the frame rates say."""
    time = _lenient(number, dataset, "FrameTime", notes)
    if time and time > 0:
        return time
    vector = (_lenient(numbers, dataset, "FrameTimeVector", notes) or ())[1:]  # the first frame comes at 0
    if vector and min(vector) > 0:
        return sum(vector) / len(vector)
    for keyword in ("RecommendedDisplayFrameRate", "CineRate"):
        rate = _lenient(number, dataset, keyword, notes)
        if rate and rate > 0:
            return 1000.0 / rate
    return None


def _lenient(read: Callable[[Dataset, str], T], dataset: Dataset, keyword: str, notes: list[str]) -> T | None:
    try:
        return read(dataset, keyword)
    except InputError as error:
        notes.append(f"{keyword} was left out: {error.what}")
        return None
