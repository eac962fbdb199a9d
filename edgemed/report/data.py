"""The schema of `report.json`: what a build found out, as plain data."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA: Final = "edgemed/report/1"

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Decibel = Annotated[float | None, Field(description="None where there is no error at all, which is infinite dB")]
RelativeError = Annotated[
    float | None, Field(ge=0, description="max|Δ| / max|reference|; None where the reference is all zero")
]


class _Strict(BaseModel):
    # no NaN, no infinity: they have no JSON, and in a report they hide a broken measurement
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class Tensor(_Strict):
    """One input or output of the model; `None` marks a dimension that may vary."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    task: str | None = None
    activation: str | None = None


class Model(_Strict):
    """What was built, and from which file."""

    name: str
    file: str
    sha256: str
    format: str
    versions: dict[str, str] = {}
    parameters: Count | None = None
    keras_layers: Annotated[tuple[str, ...], Field(description="all layers by name, in calling order")] = ()
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


class Recipe(_Strict):
    """How pixels become the model's input."""

    name: str
    assumed: bool
    description: str = ""
    toml: str = ""


class Calibration(_Strict):
    """What the activation ranges were taken from."""

    method: str
    percentile: float | None = None
    images: Annotated[int, Field(ge=1)]
    digest: str
    files: Annotated[tuple[str, ...], Field(description="the first few names")] = ()
    warnings: tuple[str, ...] = ()


class GraphPass(_Strict):
    """One graph pass that was run."""

    name: str
    nodes_before: Count
    nodes_after: Count
    changed: bool


class OutputError(_Strict):
    """Error of one output against a reference, and the limit it was held to, if any."""

    output: str
    relative_error: RelativeError
    sqnr_db: Decibel = None
    limit: NonNegative | None = None

    @property
    def within_limit(self) -> bool | None:
        """Whether the limit holds; `None` without a limit."""
        if self.limit is None:
            return None
        return self.relative_error is not None and self.relative_error <= self.limit


class Fidelity(_Strict):
    """Errors measured on real samples, per output."""

    samples: Annotated[int, Field(ge=1)]
    float_vs_keras: tuple[OutputError, ...] = ()
    int8_vs_float: tuple[OutputError, ...] = ()
    int8_vs_keras: tuple[OutputError, ...] = ()
    fp16_vs_float: tuple[OutputError, ...] = ()
    fp16_vs_keras: tuple[OutputError, ...] = ()
    int8_fp16_vs_float: tuple[OutputError, ...] = ()
    int8_fp16_vs_keras: tuple[OutputError, ...] = ()

    @property
    def steps(self) -> tuple[tuple[str, str, tuple[OutputError, ...]], ...]:
        """(from, to, errors) of every comparison, in the order in which they are shown."""
        return (
            ("Keras", "float", self.float_vs_keras),
            ("float", "FP16", self.fp16_vs_float),
            ("Keras", "FP16", self.fp16_vs_keras),
            ("float", "INT8", self.int8_vs_float),
            ("Keras", "INT8", self.int8_vs_keras),
            ("float", "INT8 with FP16", self.int8_fp16_vs_float),
            ("Keras", "INT8 with FP16", self.int8_fp16_vs_keras),
        )


class Layer(_Strict):
    """Where one node of the graph runs, and why."""

    node: str
    op: str
    keras_layer: str | None = None
    quantized: bool
    reason: str
    macs: Count = 0
    mac_share: Share = 0.0
    weight_sqnr_db: Decibel = None


class AmaxCandidates(_Strict):
    """The range each method would choose."""

    minmax: NonNegative
    percentile: NonNegative
    entropy: NonNegative


class ActivationRange(_Strict):
    """Range and histogram of the magnitudes of one activation tensor."""

    name: str
    amax: NonNegative
    seen: Annotated[NonNegative, Field(description="the largest magnitude ever observed")]
    sqnr_db: Decibel = None
    clipped: Annotated[Share, Field(description="share of values beyond amax")] = 0.0
    counts: Annotated[tuple[Count, ...], Field(description="bin i holds magnitudes from i to i + 1 bin widths")] = ()
    bin_width: NonNegative = 0.0
    candidates: AmaxCandidates | None = None

    @model_validator(mode="after")
    def _bins_have_a_width(self) -> ActivationRange:
        if any(self.counts) and self.bin_width == 0:
            raise ValueError("counts need a bin_width above 0")
        return self


class Int8(_Strict):
    """What quantization did."""

    mac_share: Annotated[Share, Field(description="share of multiply-accumulates that run in INT8")]
    weight_bytes_float: Count
    weight_bytes_int8: Count
    layers: tuple[Layer, ...] = ()
    tensors: Annotated[tuple[ActivationRange, ...], Field(description="worst first, by SQNR")] = ()


class KeptFloat(_Strict):
    """One node that stays in FP32 in a strongly typed graph; `tensor` is the one whose values are the reason."""

    node: str
    op: str
    keras_layer: str | None = None
    reason: str
    tensor: str | None = None


class Fp16(_Strict):
    """What became of the strongly typed graph, for TensorRT 10.12 and later, 11 and RTX."""

    graph: Annotated[str, Field(description="its name in the bundle, fp16 or int8_fp16")]
    kept: Annotated[tuple[KeptFloat, ...], Field(description="nodes that stay in FP32, in graph order")] = ()


class Engine(_Strict):
    """One engine that was compiled, or the reason why it was not."""

    flavour: str
    version: str
    precision: str
    compute_capabilities: tuple[str, ...] = ()
    bytes: Count | None = None
    seconds: NonNegative | None = None
    status: str


class Stage(_Strict):
    """One stage of the build."""

    name: str
    seconds: NonNegative
    note: str = ""


class Machine(_Strict):
    """Where the build ran."""

    python: str
    packages: dict[str, str] = {}
    cpu: str = ""
    cores: Count | None = None


class Report(_Strict):
    """`report.json`: everything `report.html` shows."""

    schema_: Literal["edgemed/report/1"] = Field(alias="schema")
    created: str = Field(description="UTC, ISO 8601")
    edgemed: str = Field(description="version of edgemed that wrote it")
    precision: Literal["fp32", "fp16", "int8"]
    model: Model
    recipe: Recipe
    calibration: Calibration | None = None
    passes: tuple[GraphPass, ...] = ()
    fidelity: Fidelity
    int8: Int8 | None = None
    fp16: Fp16 | None = None
    sizes: Annotated[dict[str, Count], Field(description="bytes by file name; the source stands first")] = {}
    engines: tuple[Engine, ...] = ()
    stages: tuple[Stage, ...] = ()
    warnings: tuple[str, ...] = ()
    machine: Machine
