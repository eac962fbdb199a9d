"""Which images a calibration set is made of: evenly over patients, and the same ones for the same seed."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgemed.base.errors import EdgemedError, InputError
from edgemed.base.text import printable
from edgemed.imaging.deid.deidentify import patient_identity
from edgemed.imaging.dicom import is_dicom
from edgemed.imaging.dicom.file import refusals
from edgemed.imaging.dicom.header import read_header
from edgemed.imaging.dicom.values import quiet
from edgemed.imaging.labels.table import LabelTable
from edgemed.imaging.sources import Sample, list_samples
from edgemed.recipe.schema import Recipe


@dataclass(frozen=True)
class Candidate:
    """An image that could be in the set.

    Attributes:
        sample: the file, or the folder of a series.
        patient: what identifies the patient, in clear: never stored or shown; `None` where nothing tells.
        group: what the choice is even over: the patient, else the folder.
        labels: classes, where a table gives them.
    """

    sample: Sample
    patient: str | None = field(repr=False)
    group: str = field(repr=False)
    labels: tuple[str, ...] = ()


def find_samples(sources: Sequence[Path], recipe: Recipe | None) -> list[Sample]:
    """Samples of files and folders, each once, in the order of the sources.

    Raises:
        InputError: a source does not exist, is a table of several inputs, or there is no image in any.
    """
    found: dict[Path, Sample] = {}
    for source in sources:
        if not source.exists():
            raise InputError(f"{source} does not exist.", "Give files or folders of images.")
        for sample in [Sample(source.name, source)] if source.is_file() else list_samples(source, recipe):
            if sample.is_row:
                raise InputError(
                    f"{source} holds a table of several inputs.",
                    "Give folders of images; such tables are used as they are.",
                )
            found.setdefault(sample.path.resolve(), sample)
    if not found:
        raise InputError("There are no images in the sources.", "Give files or folders of images.")
    return list(found.values())


def labelled_samples(table: LabelTable) -> list[tuple[Sample, tuple[str, ...], str | None]]:
    """Samples, labels and patients of a table."""
    root = table.path.parent
    return [(Sample(row.path.relative_to(root).as_posix(), row.path), row.labels, row.patient) for row in table.rows]


def candidate(sample: Sample, labels: tuple[str, ...] = (), patient: str | None = None) -> Candidate:
    """What can be known of a sample without its pixels.

    Raises:
        InputError: a DICOM file whose header cannot be read.
    """
    first = sample.files[0]
    patient = f"{patient}\0" if patient else None  # as a Patient ID without an issuer
    if patient is None and is_dicom(first):
        with refusals(first), quiet():
            patient = patient_identity(read_header(first).dataset)
    if patient:
        return Candidate(sample, patient, f"patient {patient}", labels)
    folder = sample.path.parent
    inside = len(Path(sample.name).parts) > 1
    return Candidate(sample, None, f"folder {folder}" if inside else f"file {sample.path}", labels)


def in_order(candidates: Iterable[Candidate], seed: int) -> Iterator[Candidate]:
    """All candidates: one of each group, then a second of each, and so on; both orders are drawn by hash.

    The order depends on the seed and on names within the sources, not on the order in which they were found.
    """
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for one in candidates:
        groups[one.group].append(one)
    ordered = [
        sorted(members, key=lambda one: _drawn(seed, one.sample.name))
        for _, members in sorted(groups.items(), key=lambda item: _drawn(seed, _name_of(item[1])))
    ]
    for turn in range(max(map(len, ordered), default=0)):
        yield from (members[turn] for members in ordered if turn < len(members))


def _name_of(members: list[Candidate]) -> str:
    first = members[0]
    return first.patient or min(one.sample.name for one in members)


def _drawn(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode(errors="surrogateescape")).digest()


def reason_of(error: EdgemedError, sample: Sample) -> str:
    """Why a sample was left out, without the names of its files, which may be names of people."""
    what = error.what
    paths = {sample.path, *sample.files}
    for path in _longest_first(str(path) for path in paths):
        what = what.replace(path, "it").replace(printable(path), "it")
    names = [re.escape(form) for form in _longest_first(form for p in paths for form in (p.name, printable(p.name)))]
    told: list[str] = []

    def stand_in(found: re.Match[str]) -> str:
        told.append(found[0])
        return "a file" if found[0] == told[0] else "another"

    what = re.sub(rf"(?<![\w.])(?:{'|'.join(names)})(?!\w|\.\w)", stand_in, what)
    for opening in ("it is not de-identified: ", "it is not read: "):
        what = what.replace(opening, "")
    return what


def _longest_first(texts: Iterable[str]) -> list[str]:
    return sorted(set(texts), key=lambda text: (-len(text), text))
