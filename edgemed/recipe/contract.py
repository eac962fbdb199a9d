"""The contract of a recipe: what is refused before inference, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from edgemed.base.errors import InputError
from edgemed.base.text import PRINTABLE, printable
from edgemed.recipe.base import Positive, Strict
from edgemed.recipe.image import Facts

Text = Annotated[str, Field(min_length=1, max_length=64, pattern=PRINTABLE)]
Millimetres = Annotated[float, Field(gt=0, le=1000)]

STORAGE_CLASSES: Final = {
    "ComputedRadiographyImageStorage": "1.2.840.10008.5.1.4.1.1.1",
    "DigitalXRayImageStorageForPresentation": "1.2.840.10008.5.1.4.1.1.1.1",
    "DigitalXRayImageStorageForProcessing": "1.2.840.10008.5.1.4.1.1.1.1.1",
    "DigitalMammographyXRayImageStorageForPresentation": "1.2.840.10008.5.1.4.1.1.1.2",
    "DigitalMammographyXRayImageStorageForProcessing": "1.2.840.10008.5.1.4.1.1.1.2.1",
    "CTImageStorage": "1.2.840.10008.5.1.4.1.1.2",
    "EnhancedCTImageStorage": "1.2.840.10008.5.1.4.1.1.2.1",
    "LegacyConvertedEnhancedCTImageStorage": "1.2.840.10008.5.1.4.1.1.2.2",
    "UltrasoundMultiFrameImageStorage": "1.2.840.10008.5.1.4.1.1.3.1",
    "MRImageStorage": "1.2.840.10008.5.1.4.1.1.4",
    "EnhancedMRImageStorage": "1.2.840.10008.5.1.4.1.1.4.1",
    "LegacyConvertedEnhancedMRImageStorage": "1.2.840.10008.5.1.4.1.1.4.4",
    "UltrasoundImageStorage": "1.2.840.10008.5.1.4.1.1.6.1",
    "SecondaryCaptureImageStorage": "1.2.840.10008.5.1.4.1.1.7",
    "MultiFrameGrayscaleByteSecondaryCaptureImageStorage": "1.2.840.10008.5.1.4.1.1.7.2",
    "MultiFrameGrayscaleWordSecondaryCaptureImageStorage": "1.2.840.10008.5.1.4.1.1.7.3",
    "MultiFrameTrueColorSecondaryCaptureImageStorage": "1.2.840.10008.5.1.4.1.1.7.4",
    "XRayAngiographicImageStorage": "1.2.840.10008.5.1.4.1.1.12.1",
    "XRayRadiofluoroscopicImageStorage": "1.2.840.10008.5.1.4.1.1.12.2",
    "BreastTomosynthesisImageStorage": "1.2.840.10008.5.1.4.1.1.13.1.3",
    "NuclearMedicineImageStorage": "1.2.840.10008.5.1.4.1.1.20",
    "VLEndoscopicImageStorage": "1.2.840.10008.5.1.4.1.1.77.1.1",
    "VideoEndoscopicImageStorage": "1.2.840.10008.5.1.4.1.1.77.1.1.1",
    "VLMicroscopicImageStorage": "1.2.840.10008.5.1.4.1.1.77.1.2",
    "VLPhotographicImageStorage": "1.2.840.10008.5.1.4.1.1.77.1.4",
    "OphthalmicPhotography8BitImageStorage": "1.2.840.10008.5.1.4.1.1.77.1.5.1",
    "OphthalmicPhotography16BitImageStorage": "1.2.840.10008.5.1.4.1.1.77.1.5.2",
    "OphthalmicTomographyImageStorage": "1.2.840.10008.5.1.4.1.1.77.1.5.4",
    "DermoscopicPhotographyImageStorage": "1.2.840.10008.5.1.4.1.1.77.1.7",
    "PositronEmissionTomographyImageStorage": "1.2.840.10008.5.1.4.1.1.128",
}
"""Image storage SOP classes by the keyword of PS3.6, table A-1."""


class Contract(Strict):
    """What is refused before inference. An absent line is not checked; a line asks that the file say it.

    Texts are compared without regard to case and blanks around them.
    """

    sop_classes: tuple[Text, ...] = Field((), description="UIDs, or keywords such as CTImageStorage")
    modalities: tuple[Text, ...] = Field((), description="e.g. CR, DX")
    body_parts: tuple[Text, ...] = Field((), description="Body Part Examined, e.g. CHEST")
    photometric: tuple[Text, ...] = Field((), description="Photometric Interpretation, e.g. MONOCHROME2")
    laterality: tuple[Literal["L", "R", "B", "U"], ...] = ()
    views: tuple[Text, ...] = Field((), description="View Position, e.g. PA")
    manufacturers: tuple[Text, ...] = ()
    min_rows: Positive | None = None
    min_columns: Positive | None = None
    max_rows: Positive = 16_384
    max_columns: Positive = 16_384
    min_frames: Positive | None = Field(None, description="of a cine, or slices of a volume")
    max_frames: Positive | None = None
    min_bits: Annotated[int, Field(ge=1, le=64)] | None = Field(None, description="Bits Stored")
    max_bits: Annotated[int, Field(ge=1, le=64)] | None = None
    spacing: tuple[Millimetres, Millimetres] | None = Field(
        None, description="least and greatest distance of rows and of columns, mm"
    )
    slice_spacing: tuple[Millimetres, Millimetres] | None = Field(
        None, description="least and greatest distance of slices, mm"
    )
    burned_in: Literal["refuse", "require-no"] | None = Field(
        None, description="'refuse' refuses files that say YES to Burned In Annotation, 'require-no' all but NO"
    )

    @field_validator("sop_classes")
    @classmethod
    def _known_classes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in STORAGE_CLASSES and not all(part.isdigit() for part in name.split(".")):
                raise ValueError(f"{name} is no UID, and no keyword known here: {', '.join(STORAGE_CLASSES)}")
        return names

    @model_validator(mode="after")
    def _ordered(self) -> Contract:
        pairs = {
            "rows": (self.min_rows, self.max_rows),
            "columns": (self.min_columns, self.max_columns),
            "frames": (self.min_frames, self.max_frames),
            "bits": (self.min_bits, self.max_bits),
            "spacing": self.spacing or (None, None),
            "slice_spacing": self.slice_spacing or (None, None),
        }
        for name, (low, high) in pairs.items():
            if low is not None and high is not None and low > high:
                raise ValueError(f"the least {name} is above the greatest")
        return self


def check_contract(contract: Contract, facts: Facts) -> None:
    """Pass, or refuse with every reason.

    Raises:
        InputError: names each attribute, what was found and what is taken.
    """
    reasons = list(violations(contract, facts))
    if reasons:
        raise InputError(" ".join(reasons), "Give images that fit the recipe's contract.")


def violations(contract: Contract, facts: Facts) -> Iterator[str]:
    """Each reason why an image does not fit, one sentence each."""
    yield from _texts(contract, facts)
    yield from _numbers(contract, facts)
    if contract.burned_in == "require-no" and facts.burned_in is None:
        yield _silent("Burned In Annotation")
    elif contract.burned_in is not None and facts.burned_in:
        yield "The file says that text is burned into its pixels (Burned In Annotation YES)."


def _texts(contract: Contract, facts: Facts) -> Iterator[str]:
    classes = tuple(STORAGE_CLASSES.get(name, name) for name in contract.sop_classes)
    if classes and facts.sop_class is not None and facts.sop_class.strip() not in classes:
        taken_classes = _listed(contract.sop_classes)
        yield f"The SOP Class is {_class_name(facts.sop_class)}; the recipe's contract takes {taken_classes}."
    elif classes and facts.sop_class is None:
        yield _silent("SOP Class UID")
    lines: tuple[tuple[str, str | None, tuple[str, ...]], ...] = (
        ("Modality", facts.modality, contract.modalities),
        ("Body Part Examined", facts.body_part, contract.body_parts),
        ("Photometric Interpretation", facts.photometric, contract.photometric),
        ("Laterality", facts.laterality, contract.laterality),
        ("View Position", facts.view, contract.views),
        ("Manufacturer", facts.manufacturer, contract.manufacturers),
    )
    for name, found, taken in lines:
        if not taken:
            continue
        if found is None or not found.strip():
            yield _silent(name)
        elif found.strip().casefold() not in {text.strip().casefold() for text in taken}:
            yield f"{name} is '{_short(found)}'; the recipe's contract takes {_listed(taken)}."


def _numbers(contract: Contract, facts: Facts) -> Iterator[str]:
    counts = (
        ("rows", facts.rows, contract.min_rows, contract.max_rows),
        ("columns", facts.columns, contract.min_columns, contract.max_columns),
        ("frames", facts.frames, contract.min_frames, contract.max_frames),
        ("bits stored", facts.bits, contract.min_bits, contract.max_bits),
    )
    for name, found, low, high in counts:
        if low is None and high is None:
            continue
        if found is None:
            yield _silent(name.capitalize())
        elif (low is not None and found < low) or (high is not None and found > high):
            limits = f"at least {low}" if high is None else f"{low or 1} to {high}"
            yield f"The image has {found} {name}; the recipe's contract takes {limits}."
    lengths = (
        ("rows and columns", facts.spacing, contract.spacing),
        ("slices", None if facts.slice_spacing is None else (facts.slice_spacing,), contract.slice_spacing),
    )
    for name, distances, allowed in lengths:
        if allowed is None:
            continue
        if distances is None:
            yield _silent(f"distance of {name}")
        elif any(not allowed[0] <= distance <= allowed[1] for distance in distances):
            found_mm = " x ".join(f"{distance:g}" for distance in distances)
            limits = f"{allowed[0]:g} to {allowed[1]:g}"
            yield f"The {name} lie {found_mm} mm apart; the recipe's contract takes {limits} mm."


def _silent(name: str) -> str:
    return f"The file does not say its {name}, which the recipe's contract asks for."


def _class_name(uid: str) -> str:
    names = {value: name for name, value in STORAGE_CLASSES.items()}
    return names.get(uid.strip(), _short(uid))


def _listed(taken: tuple[str, ...]) -> str:
    return ", ".join(taken)


def _short(text: str) -> str:
    """What a file says, fit to be shown: it may hold anything."""
    text = printable(text.strip())
    return text if len(text) <= 64 else f"{text[:61]}..."
