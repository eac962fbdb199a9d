"""Parts of an input: clips of a cine and tiles of a large image, as a recipe names them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgemed.recipe.base import Size, Strict, check_pixels


class Time(Strict):
    """Clips of a cine: which frames make one sample."""

    frames: Annotated[int, Field(ge=1, le=4096)] = Field(description="in one sample")
    step: Annotated[int, Field(ge=1, le=4096)] = Field(1, description="from one frame of a sample to its next")
    stride: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        None, description="from one sample's first frame to the next sample's; None leaves no overlap and no gap"
    )
    last: Literal["shift", "drop", "repeat"] = Field(
        "shift",
        description="frames that are left over at the end: the last sample moves back to hold them, they are dropped, "
        "or the last frame is repeated; a cine shorter than one sample is refused unless 'repeat'",
    )


class Tiles(Strict):
    """A large image is given to the model tile by tile, and its answers are blended."""

    size: Size = Field(description="of a tile: rows and columns, or slices, rows and columns")
    overlap: Annotated[int, Field(ge=0, le=65_535)] | tuple[Annotated[int, Field(ge=0, le=65_535)], ...] = Field(
        0, description="pixels that neighbours share, one number or one for each axis"
    )
    blend: Literal["hann", "gaussian", "uniform"] = Field(
        "hann", description="how a tile's answers weigh where they overlap"
    )

    @property
    def overlaps(self) -> tuple[int, ...]:
        """Pixels that neighbours share, for each axis."""
        return self.overlap if isinstance(self.overlap, tuple) else (self.overlap,) * len(self.size)

    @model_validator(mode="after")
    def _fits(self) -> Tiles:
        check_pixels(self.size)
        if len(self.overlaps) != len(self.size):
            raise ValueError("overlap has one number, or one for each axis of size")
        if any(shared >= side for shared, side in zip(self.overlaps, self.size, strict=True)):
            raise ValueError("overlap must be below size")
        return self
