"""What one file is made of, for a model: its frames, the clips of a cine, or one volume."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edgemed.imaging.open import ImageFile, volume_of
from edgemed.recipe.clips import Clips, clip_frames, clip_of
from edgemed.recipe.image import Image
from edgemed.recipe.parts import Time
from edgemed.recipe.schema import Kind


@dataclass(frozen=True)
class Pieces:
    """The pieces of a file: each is read when it is asked for, and how many there are is known before.

    Attributes:
        file: opened.
        path: of it.
        kind: what the model takes.
        time: how a cine is cut into clips; without it, all frames are one.
    """

    file: ImageFile
    path: Path
    kind: Kind
    time: Time | None = None

    def __len__(self) -> int:
        if self.kind == "image":
            return self.file.frames
        return 1 if self._clips is None else len(self._clips)

    def frame_of(self, index: int) -> int | None:
        """The frame that a piece is shown by: itself, or the one in the middle of a clip; `None` of the whole file."""
        if self.kind == "image":
            return index if self.file.frames > 1 else None
        if self._clips is None:
            return None
        clip = self._clips[index]
        return clip[len(clip) // 2]

    def image(self, index: int) -> Image:
        """One piece, from 0.

        Raises:
            InputError: it cannot be read, or the file holds no volume.
        """
        if self.kind == "image":
            return self.file.frame(index)
        if self.kind == "volume":
            return volume_of(self.file, self.path)
        return self._cine if self._clips is None else clip_of(self._cine, self._clips[index])

    @cached_property
    def _cine(self) -> Image:
        return self.file.image()

    @cached_property
    def _clips(self) -> Clips | None:
        cut = self.kind == "cine" and self.time is not None
        return clip_frames(self.file.frames, self.time) if cut and self.time is not None else None
