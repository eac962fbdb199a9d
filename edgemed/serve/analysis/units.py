"""What a task is made of, for a model: files by themselves, or the files of a series as one volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemed.imaging.open import ImageFile, Series, open_image
from edgemed.imaging.pieces import Pieces
from edgemed.imaging.samples import SampleReader
from edgemed.recipe.contract import check_contract
from edgemed.serve.analysis.task import TaskFile


@dataclass(frozen=True)
class Unit:
    """One thing that the model looks at as a whole, or frame by frame; nothing of it is read yet.

    Attributes:
        sources: indices of its files.
        paths: of them.
    """

    sources: tuple[int, ...]
    paths: tuple[Path, ...]
    volume: bool

    def open(self, reader: SampleReader) -> Pieces:
        """Its pieces, once the contract has taken what the headers say.

        Raises:
            InputError: it cannot be read, or the contract refuses it.
        """
        path = self.paths[0]
        file = self._file()
        given = reader.recipe.of(reader.inputs[0].name).input
        if isinstance(file, Series):
            # slices and their distance are known when all are read; the rest need not wait for that
            taken = {"min_frames": None, "max_frames": None, "slice_spacing": None}
            check_contract(given.contract.model_copy(update=taken), open_image(path).facts)
        else:
            check_contract(given.contract, file.facts)
        return reader.pieces(path, file)

    def planes(self, pieces: Pieces) -> tuple[tuple[int, int], ...]:
        """For each slice of what was read: its file and its frame there."""
        if isinstance(pieces.file, Series):
            return tuple((self.sources[file], frame) for file, frame in pieces.file.planes)
        return tuple((self.sources[0], frame) for frame in range(pieces.file.frames))

    def _file(self) -> ImageFile:
        from edgemed.imaging.dicom import is_dicom

        if self.volume and is_dicom(self.paths[0]):
            return Series(self.paths)
        return open_image(self.paths[0])


def units_of(files: Sequence[TaskFile], *, volume: bool) -> list[Unit]:
    """The units of a task; of volumes, the series with most files first."""
    if not volume:
        return [Unit((index,), (file.path,), False) for index, file in enumerate(files)]
    groups: dict[str, list[int]] = {}
    for index, file in enumerate(files):
        groups.setdefault(file.series or f"file {index}", []).append(index)
    ordered = sorted(groups.values(), key=len, reverse=True)
    return [Unit(tuple(group), tuple(files[index].path for index in group), True) for group in ordered]


def makes_volumes(reader: SampleReader) -> bool:
    """Whether the model takes volumes."""
    if reader.recipe.raw or len(reader.inputs) != 1:
        return False
    return reader.kind == "volume"


def evenly(items: int, most: int) -> list[int]:
    """At most `most` of so many, the first and the last among them."""
    if items <= most:
        return list(range(items))
    return sorted({round(i * (items - 1) / (most - 1)) for i in range(most)}) if most > 1 else [items // 2]
