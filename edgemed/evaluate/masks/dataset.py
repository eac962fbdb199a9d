"""Images with what was drawn on them: masks beside them, or DICOM Segmentations; none that calibration has seen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemed.base.errors import InputError
from edgemed.base.hashing import sha256_file, sha256_json
from edgemed.base.text import printable
from edgemed.evaluate.masks.head import MaskHead
from edgemed.evaluate.masks.truth import Drawing, DrawnImage, DrawnVolume, MaskFile, Truth, class_of
from edgemed.imaging.dicom import DicomFile, is_dicom, open_dicom
from edgemed.imaging.labels.masks import pair_masks
from edgemed.imaging.labels.segmentation import read_segmentation
from edgemed.imaging.sources import Sample, list_samples
from edgemed.recipe.schema import Kind, Recipe

_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # the second for label maps


@dataclass(frozen=True)
class Drawn:
    """One image and its truth, with their hashes; `patient` only to keep images of one apart, never stored."""

    truth: Truth
    sha256: str
    drawn_sha256: str
    patient: str | None

    @property
    def unit(self) -> str:
        """What is independent of the other images: the patient where the file names one, else the image's bytes."""
        return f"patient {self.patient}" if self.patient else self.sha256


@dataclass(frozen=True)
class MaskSet:
    """Images with truths.

    Attributes:
        folder: where they lie.
        images: in the order of their names.
        left_out: images to which no segmentation refers.
        named_by: where classes come from, in words.
    """

    folder: Path
    images: tuple[Drawn, ...]
    left_out: int
    named_by: str

    @property
    def digest(self) -> str:
        """Identity of images and truths, independent of file names."""
        return sha256_json(sorted([image.sha256, image.drawn_sha256] for image in self.images))

    @property
    def duplicates(self) -> int:
        """Images whose bytes occur more than once."""
        return len(self.images) - len({image.sha256 for image in self.images})


def open_mask_set(folder: Path, recipe: Recipe, head: MaskHead, kind: Kind, seen: Collection[str] = ()) -> MaskSet:
    """List and hash images with truths.

    Args:
        folder: with DICOM Segmentations among its files, it holds DICOM images to which they refer; else see
            `pair_masks`.
        recipe: of the bundle.
        head: of the model.
        kind: what one sample is made of.
        seen: SHA-256 of the samples that the model was calibrated on.

    Raises:
        InputError: no such folder, no images with truths, a segment that is no class, an image that calibration has
            seen, or one with two truths.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a directory.", "Give a directory with images and masks.")
    if kind == "cine":
        raise InputError("Masks of cines are not judged.", "Evaluate models of images or of volumes.")
    files = {sample: open_dicom(sample.path) for sample in list_samples(folder) if is_dicom(sample.path)}
    drawings = [sample for sample, file in files.items() if _sop_class(file) in _SEGMENTATIONS]
    if drawings:
        images = {sample: file for sample, file in files.items() if sample not in drawings}
        truths, left_out = _drawn(images, [_drawing(s.path, head, recipe) for s in drawings], head, kind)
        named_by = "by names and codes of segments"
    else:
        truths, left_out = _paired(folder, head), 0
        named_by = "by values of masks, in the order of the model's output"
    found = tuple(_hashed(truth) for truth in truths)
    _refuse_seen(found, frozenset(seen))
    _refuse_two_truths(found)
    return MaskSet(folder, found, left_out, named_by)


def _paired(folder: Path, head: MaskHead) -> list[Truth]:
    return [
        MaskFile(Sample(image.relative_to(folder).as_posix(), image), mask, len(head.names))
        for image, mask in pair_masks(folder)
    ]


def _drawing(path: Path, head: MaskHead, recipe: Recipe) -> Drawing:
    """A segmentation whose every segment is a class of the model; the background may be drawn, too."""
    file = read_segmentation(path)
    if not head.named:
        if len(head.names) == len(file.segments) == 1:
            return Drawing(file, (0,))
        raise InputError(
            f"The recipe names no classes, and {path} has {len(file.segments)} segments.",
            "Name the classes like the segments, or give their codes: [output] classes = [...].",
        )
    concepts = [None if concept is None else concept[:2] for concept in recipe.output.concepts]
    every = list(recipe.output.class_names)
    background = len(every) - len(head.names)
    classes: list[int | None] = []
    for segment in file.segments:
        index = class_of(segment, every, concepts)
        if index is None:
            raise InputError(
                f"The segment '{printable(segment.label)}' of {path} is none of the classes {', '.join(every)}.",
                "Name the classes like the segments, or give their codes: [output] classes = [...].",
            )
        classes.append(None if index < background else index - background)
    return Drawing(file, tuple(classes))


def _drawn(
    images: dict[Sample, DicomFile], drawings: Sequence[Drawing], head: MaskHead, kind: Kind
) -> tuple[list[Truth], int]:
    """Images to which segmentations refer, and how many there are to which none does."""
    groups: dict[str, list[Sample]] = {}
    for sample, file in images.items():
        key = file.facts.series if kind == "volume" else sample.name
        groups.setdefault(key or sample.name, []).append(sample)
    found: list[Truth] = []
    for samples in groups.values():
        uids = {images[sample].facts.sop_instance for sample in samples}
        own = tuple(drawing for drawing in drawings if uids & drawing.file.sources)
        if not own:
            continue
        first, count = samples[0], len(head.names)
        if kind == "volume":
            paths = tuple(sample.path for sample in samples)
            found.append(DrawnVolume(first, paths, own, count))
        else:
            found.append(DrawnImage(first, images[first].facts.sop_instance or "", own, count))
    if not found:
        raise InputError(
            f"The segmentations refer to none of the {len(groups)} images.", "Give the images that they were drawn on."
        )
    return found, len(groups) - len(found)


def _hashed(truth: Truth) -> Drawn:
    files = truth.image_files
    digest = sha256_file(files[0]) if len(files) == 1 else sha256_json(sorted(map(sha256_file, files)))
    drawn = sha256_json(sorted(map(sha256_file, truth.drawn_in)))
    patient = open_dicom(files[0]).facts.patient if is_dicom(files[0]) else None
    return Drawn(truth, digest, drawn, patient)


def _refuse_seen(images: Sequence[Drawn], seen: frozenset[str]) -> None:
    # a volume of one file is known to calibration by its file, or as a folder of one
    shared = [i.truth.sample.name for i in images if not seen.isdisjoint((i.sha256, sha256_json([i.sha256])))]
    if shared:
        raise InputError(
            f"{len(shared)} of {len(images)} images were used for calibration, {shared[0]} first.",
            "Evaluate on images that calibration has not seen.",
        )


def _refuse_two_truths(images: Sequence[Drawn]) -> None:
    known: dict[str, Drawn] = {}
    for image in images:
        same = known.setdefault(image.sha256, image)
        if same.drawn_sha256 != image.drawn_sha256:
            raise InputError(
                f"{image.truth.sample.name} and {same.truth.sample.name} are the same image with different masks.",
                "Keep one of them.",
            )


def _sop_class(file: DicomFile) -> str:
    return str(file.dataset.get("SOPClassUID", ""))
