"""The recipe: a TOML file with `[input]` and `[output]`; one code path for calibration, evaluation and bedside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edgemed.base.errors import InputError
from edgemed.base.text import PRINTABLE
from edgemed.base.toml import read_toml

Positive = Annotated[int, Field(ge=1, le=65_536)]
MAX_PIXELS = 1 << 28
Layout = Literal["NHWC", "NCHW", "as-is"]


ClassName = Annotated[str, Field(min_length=1, max_length=255, pattern=PRINTABLE)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Scaling(_Strict):
    """`(pixel - offset) / divisor`, per channel where lists are given."""

    offset: float | tuple[float, ...] = 0.0
    divisor: float | tuple[float, ...] = 1.0

    @model_validator(mode="after")
    def _no_zero_divisor(self) -> Scaling:
        divisors = self.divisor if isinstance(self.divisor, tuple) else (self.divisor,)
        if any(d == 0 for d in divisors):
            raise ValueError("divisor must not be 0")
        return self


class Contract(_Strict):
    """What is refused before inference. An absent line is not checked."""

    min_rows: Positive | None = None
    min_columns: Positive | None = None
    max_rows: Positive = 16_384
    max_columns: Positive = 16_384


class InputRecipe(_Strict):
    """How one image becomes one sample."""

    modality: str | None = Field(None, description="free text for people and reports, e.g. 'CR' or 'dermoscopy'")
    color: Literal["gray", "rgb"] | None = Field(
        None, description="'gray' reduces colour to luma first, 'rgb' refuses gray images; None takes both"
    )
    size: tuple[Positive, Positive] | None = Field(None, description="rows, columns; None takes the model's")
    resize: Literal["antialias", "nearest", "none"] = Field(
        "antialias", description="'antialias' is a triangle filter widened by the reduction factor; 'none' refuses"
    )
    scaling: Scaling = Field(default_factory=Scaling)
    layout: Layout | None = Field(None, description="None takes the model's")
    contract: Contract = Field(default_factory=Contract)

    @field_validator("size")
    @classmethod
    def _no_huge_size(cls, size: tuple[int, int] | None) -> tuple[int, int] | None:
        if size is not None and size[0] * size[1] > MAX_PIXELS:
            raise ValueError(f"more than {MAX_PIXELS} pixels")
        return size


class OutputRecipe(_Strict):
    """How the model's output is read."""

    task: Literal["binary", "multiclass", "multilabel", "segmentation", "regression"] | None = None
    activation: Literal["none", "sigmoid", "softmax"] | None = Field(
        None, description="activation already applied inside the model"
    )
    classes: tuple[ClassName, ...] = ()
    threshold: float | None = Field(None, ge=0, le=1)


class Recipe(_Strict):
    """A whole recipe; `assumed` ones were guessed by the build and are refused where it matters."""

    name: str = "recipe"
    description: str = ""
    assumed: bool = False
    raw: bool = Field(False, description="samples are NPY/NPZ arrays that are fed as they are")
    input: InputRecipe = Field(default_factory=InputRecipe)
    output: OutputRecipe = Field(default_factory=OutputRecipe)


def load_recipe(path: Path) -> Recipe:
    """Read and validate a recipe.

    Raises:
        InputError: not TOML, an unknown key, or a value out of range; the message names the key.
        ResourceError: the file cannot be read.
    """
    data = read_toml(path)
    data.setdefault("name", path.stem)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(top level)"
        raise InputError(f"{path}: {key}: {first['msg']}.", "See docs/recipes.md for the keys of a recipe.") from error


def assumed_recipe(*, rescales_inside: bool) -> Recipe:
    """The guess for images without a recipe: 0-255 if the model rescales by itself, 0-1 otherwise."""
    return Recipe(
        name="assumed",
        description="0-255, the model rescales by itself" if rescales_inside else "pixels scaled to 0-1",
        assumed=True,
        input=InputRecipe(scaling=Scaling(divisor=1.0 if rescales_inside else 255.0)),
    )
