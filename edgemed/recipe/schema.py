"""The recipe: a TOML file with `[input]` and `[output]`; one code path for calibration, evaluation and bedside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from edgemed.base.errors import InputError
from edgemed.base.text import PRINTABLE
from edgemed.base.toml import read_toml
from edgemed.recipe.base import MAX_PIXELS, Positive, Strict, check_pixels
from edgemed.recipe.contract import Contract
from edgemed.recipe.orient import valid_codes
from edgemed.recipe.parts import Tiles, Time
from edgemed.recipe.steps import PerChannel, Step, check_divisor, check_order

Layout = Literal["NHWC", "NCHW", "NDHWC", "NCDHW", "NTHWC", "as-is"]
Kind = Literal["image", "volume", "cine"]

ClassName = Annotated[str, Field(min_length=1, max_length=255, pattern=PRINTABLE)]
Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,16}:[A-Za-z0-9._-]{1,16}:[^\\\x00-\x1f\x7f-\x9f]{1,64}$")]

__all__ = ["MAX_PIXELS", "Contract", "InputRecipe", "Layout", "OutputRecipe", "Recipe", "assumed_recipe", "load_recipe"]


class Scaling(Strict):
    """`(pixel - offset) / divisor`, per channel where lists are given."""

    offset: PerChannel = 0.0
    divisor: PerChannel = 1.0

    @model_validator(mode="after")
    def _no_zero_divisor(self) -> Scaling:
        check_divisor(self.divisor)
        return self


class InputRecipe(Strict):
    """How one image becomes one sample: color, then the steps, then size, scaling and layout."""

    modality: str | None = Field(None, description="free text for people and reports, e.g. 'CR' or 'dermoscopy'")
    kind: Kind | None = Field(
        None,
        description="None: an image for a 4-D input; for a 5-D one a cine where [input.time] is given, else a volume",
    )
    color: Literal["gray", "rgb"] | None = Field(
        None, description="'gray' reduces colour to luma first, 'rgb' refuses gray images; None takes both"
    )
    steps: Annotated[tuple[Step, ...], Field(max_length=64)] = ()
    size: tuple[Positive, Positive] | None = Field(None, description="rows, columns; None takes the model's")
    resize: Literal["antialias", "nearest", "none"] = Field(
        "antialias", description="'antialias' is a triangle filter widened by the reduction factor; 'none' refuses"
    )
    scaling: Scaling = Field(default_factory=Scaling)
    layout: Layout | None = Field(None, description="None takes the model's")
    axes: str | None = Field(
        None,
        description="towards which side of the patient slices, rows and columns of a volume grow, e.g. 'SPL' (usual "
        "axial DICOM series) or 'SAR' (NIfTI's own order); None keeps the file's",
    )
    folded: bool = Field(
        False, description="written by --fold-preprocessing: pixels go into the graph in the very type that it takes"
    )
    time: Time | None = None
    tiles: Tiles | None = None
    contract: Contract = Field(default_factory=Contract)

    @field_validator("axes")
    @classmethod
    def _named_axes(cls, axes: str | None) -> str | None:
        if axes is not None and not valid_codes(axes):
            raise ValueError("three letters: one of L and R, one of P and A, one of S and I")
        return axes

    @field_validator("size")
    @classmethod
    def _no_huge_size(cls, size: tuple[int, int] | None) -> tuple[int, int] | None:
        check_pixels(size)
        return size

    @model_validator(mode="after")
    def _consistent(self) -> InputRecipe:
        check_order(self.steps)
        if self.time is not None and self.kind in ("image", "volume"):
            raise ValueError(f"time makes clips of a cine; the kind is {self.kind}")
        if self.tiles is not None and self.time is not None:
            raise ValueError("time and tiles exclude each other")
        return self


class CodedClass(Strict):
    """A class with its coded concept, for DICOM results."""

    name: ClassName
    code: Code | None = Field(None, description="scheme:value:meaning, e.g. SCT:233604007:Pneumonia")

    @property
    def concept(self) -> tuple[str, str, str] | None:
        """Coding Scheme Designator, Code Value and Code Meaning (PS3.3 8.8)."""
        if self.code is None:
            return None
        scheme, value, meaning = self.code.split(":", 2)
        return scheme, value, meaning


class OutputRecipe(Strict):
    """How the model's output is read."""

    task: Literal["binary", "multiclass", "multilabel", "segmentation", "regression"] | None = None
    activation: Literal["none", "sigmoid", "softmax"] | None = Field(
        None, description="activation already applied inside the model"
    )
    classes: tuple[ClassName | CodedClass, ...] = Field((), description="names, or tables of a name and its code")
    threshold: float | None = Field(None, ge=0, le=1)
    geometry: Literal["source", "model"] | None = Field(
        None, description="of a segmentation: 'source' brings maps back onto the pixels of the file"
    )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, coded or not."""
        return tuple(c if isinstance(c, str) else c.name for c in self.classes)

    @property
    def concepts(self) -> tuple[tuple[str, str, str] | None, ...]:
        """Coded concept of each class: Coding Scheme Designator, Code Value, Code Meaning; `None` without."""
        return tuple(None if isinstance(c, str) else c.concept for c in self.classes)


class TableInput(Strict):
    """Numbers of a table become one input, `(batch, columns)`: `(value - offset) / divisor`."""

    columns: Annotated[tuple[ClassName, ...], Field(min_length=1, max_length=4096, description="of samples.csv")]
    offset: PerChannel = 0.0
    divisor: PerChannel = 1.0

    @model_validator(mode="after")
    def _consistent(self) -> TableInput:
        check_divisor(self.divisor)
        for name, values in (("offset", self.offset), ("divisor", self.divisor)):
            if isinstance(values, tuple) and len(values) not in (1, len(self.columns)):
                raise ValueError(f"{name} has {len(values)} values for {len(self.columns)} columns")
        return self


def _input_kind(value: object) -> str:
    return "table" if isinstance(value, TableInput) or (isinstance(value, dict) and "columns" in value) else "image"


AnyInput = Annotated[
    Annotated[InputRecipe, Tag("image")] | Annotated[TableInput, Tag("table")], Discriminator(_input_kind)
]


class Recipe(Strict):
    """A whole recipe; `assumed` ones were guessed by the build and are refused where it matters."""

    name: str = "recipe"
    description: str = ""
    assumed: bool = False
    raw: bool = Field(False, description="samples are NPY/NPZ arrays that are fed as they are")
    input: InputRecipe = Field(default_factory=InputRecipe)
    inputs: Annotated[dict[ClassName, AnyInput], Field(max_length=64)] = Field(
        default_factory=dict, description="of a model with several inputs, by name; [input] stands for the others"
    )
    output: OutputRecipe = Field(default_factory=OutputRecipe)

    def of(self, name: str) -> Recipe:
        """The recipe of one image input: what `[inputs.NAME]` says, else `[input]`."""
        own = self.inputs.get(name)
        return self.model_copy(update={"input": own, "inputs": {}}) if isinstance(own, InputRecipe) else self


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
