"""Schema of `manifest.json`: what a bundle is, and the hash of every file in it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgemed.base.text import PRINTABLE

SCHEMA: Final = "edgemed/bundle/1"
MANIFEST = "manifest.json"
MANIFEST_HASH = "manifest.sha256"
SIGNATURE = "signature.json"
SUFFIX = ".edgemed"
MAX_NAME = 255

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# no part may start with a dot, so neither `..` nor hidden files can be named
RelativePath = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9_+-][A-Za-z0-9_.+-]*/)*[A-Za-z0-9_+-][A-Za-z0-9_.+-]*$", max_length=255)
]
Precision = Literal["fp32", "fp16", "int8"]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=PRINTABLE)]
DType = Literal[
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"
]
Shape = tuple[Annotated[int, Field(ge=1, le=2**31)] | None, ...]
GraphName = Literal["float", "fp16", "int8", "int8_fp16", "plain", "explain"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class FileEntry(_Strict):
    """One file of the bundle."""

    sha256: Digest
    size: Annotated[int, Field(ge=0)]


class Source(_Strict):
    """The file the bundle was built from."""

    file: str
    sha256: Digest
    format: Literal["keras-h5", "keras-v3", "saved-model"]
    versions: dict[str, str]


class InputTensor(_Strict):
    """One input; `None` marks a dimension that may vary."""

    name: str
    dtype: DType
    shape: Shape
    layout: str


class OutputTensor(_Strict):
    """One output and how it is read."""

    name: str
    dtype: DType
    shape: Shape
    layout: str
    task: str | None = None
    activation: str | None = None
    classes: tuple[Name, ...] = ()
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    geometry: str | None = None


class RecipeRef(_Strict):
    """The recipe in the bundle."""

    path: RelativePath
    sha256: Digest
    assumed: bool


class Calibration(_Strict):
    """What the scales were taken from."""

    method: str
    digest: Digest
    images: Annotated[int, Field(ge=1)]


class GraphRef(_Strict):
    """One ONNX graph."""

    path: RelativePath
    sha256: Digest
    opset: int
    ir_version: int
    data: tuple[RelativePath, ...] = Field((), description="files that hold its large weights, beside it")


class BatchRange(_Strict):
    """Least, usual and greatest batch of a model whose batch varies."""

    min: Annotated[int, Field(ge=1, le=1024)]
    opt: Annotated[int, Field(ge=1, le=1024)]
    max: Annotated[int, Field(ge=1, le=1024)]

    @model_validator(mode="after")
    def _ordered(self) -> BatchRange:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"{self} is not ordered")
        return self

    def __str__(self) -> str:
        return f"{self.min}:{self.opt}:{self.max}"

    def shapes(self, shape: Shape) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Least, usual and greatest shape of an input of `shape`, whose first dimension varies."""
        rest = tuple(d for d in shape[1:] if d is not None)
        return (self.min, *rest), (self.opt, *rest), (self.max, *rest)


class EngineRef(_Strict):
    """One ahead-of-time plan. A plan is code: verify the hash before deserialising it."""

    path: RelativePath
    sha256: Digest
    flavour: Literal["tensorrt", "tensorrt_rtx"]
    version: str
    precision: Precision
    compute_capabilities: tuple[str, ...]


class OutputFidelity(_Strict):
    """Error of one output: max|Δ| / max|reference|, and SQNR in dB (None when the error is exactly zero)."""

    output: str
    reference: Literal["keras", "float"]
    relative_error: Annotated[float, Field(ge=0)]
    sqnr_db: float | None


class Fidelity(_Strict):
    """Measured on `samples` inputs on ONNX Runtime: fake quantization for INT8, rounded tensors for FP16."""

    samples: Annotated[int, Field(ge=1)]
    float_vs_keras: tuple[OutputFidelity, ...]
    int8_vs_float: tuple[OutputFidelity, ...] = ()
    fp16_vs_float: tuple[OutputFidelity, ...] = ()
    int8_fp16_vs_float: tuple[OutputFidelity, ...] = ()
    int8_mac_share: Annotated[float, Field(ge=0, le=1)] | None = None


class Golden(_Strict):
    """The golden vectors: inputs, expected outputs and tolerance per precision."""

    path: RelativePath
    samples: Annotated[int, Field(ge=1)]
    tolerance: dict[str, dict[str, Annotated[float, Field(ge=0)]]] = Field(
        description="precision -> output -> absolute tolerance"
    )


class Manifest(_Strict):
    """`manifest.json`. Every other file of the bundle stands in `files`; unlisted files are refused."""

    schema_: Literal["edgemed/bundle/1"] = Field(alias="schema")
    name: Name
    created: str = Field(description="UTC, ISO 8601")
    edgemed: str = Field(description="version of edgemed that wrote the bundle")
    source: Source
    inputs: Annotated[tuple[InputTensor, ...], Field(min_length=1)]
    outputs: Annotated[tuple[OutputTensor, ...], Field(min_length=1)]
    batch: BatchRange | None = Field(None, description="range of the inputs' first dimension, where it varies")
    precision: Precision
    recipe: RecipeRef
    calibration: Calibration | None = None
    graphs: dict[GraphName, GraphRef] = Field(json_schema_extra={"required": ["float"]})
    engines: tuple[EngineRef, ...] = ()
    fidelity: Fidelity
    golden: Golden
    intended_use: str = "not stated; research use only"
    files: dict[RelativePath, FileEntry]

    @model_validator(mode="after")
    def _has_its_graphs(self) -> Manifest:
        """A bundle without the graph that it claims to be could be verified by running nothing."""
        own: GraphName = "float" if self.precision == "fp32" else self.precision
        if missing := {"float", own} - self.graphs.keys():
            raise ValueError(f"graphs lack {min(missing)}")
        return self

    @model_validator(mode="after")
    def _batch_varies(self) -> Manifest:
        """The only dimension of an input that may vary is a batch with a range."""
        for tensor in self.inputs:
            varying = [axis for axis, size in enumerate(tensor.shape) if size is None]
            if varying != ([] if self.batch is None else [0]):
                raise ValueError(f"input {tensor.name} varies in {varying or 'nothing'} with the batch {self.batch}")
        return self

    def profiles(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
        """Least, usual and greatest shape of each input that varies."""
        return {} if self.batch is None else {t.name: self.batch.shapes(t.shape) for t in self.inputs}
