"""The ONNX Runtime Runner: the embedded default, and the judge of every graph that edgemed writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from edgemed.base.errors import EdgemedError, InputError, IntegrityError, ResourceError
from edgemed.base.lazy import require
from edgemed.base.onnx_bytes import require_whole
from edgemed.base.runner import RunnerInfo, RunnerSpecs, TensorSpec, dtype_name
from edgemed.base.spans import SpanLog

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_NO_MEMORY = ("std::bad_alloc", "Failed to allocate memory", "failed to allocate memory")
_FATAL = 4  # ONNX Runtime prints warnings of its own otherwise; errors reach us as exceptions anyway


class OnnxRuntimeRunner:
    """Runs an ONNX model on the CPU.

    Q/DQ pairs are executed as they stand (fake quantization in FP32), never fused into integer kernels: that is what
    an explicit-quantization engine is specified to compute.

    Args:
        model: path, or the bytes, of an ONNX model.
        precision: what `info` reports.
        bundle_digest: what `info` reports.
        threads: intra-op threads; 0 leaves the choice to ONNX Runtime.
        optimize: let ONNX Runtime rewrite the graph; off, nodes run as they are written.
        promised: what the model was said to take and give; one that does not is damaged.
    """

    def __init__(
        self,
        model: Path | bytes,
        *,
        precision: str = "fp32",
        bundle_digest: str | None = None,
        threads: int = 0,
        optimize: bool = True,
        promised: RunnerSpecs | None = None,
    ) -> None:
        self._model = model
        self._threads = threads
        self._optimize = optimize
        self._promised = promised
        self._session: Any = None
        self._specs: RunnerSpecs | None = None
        self._info = RunnerInfo("onnxruntime", precision, "cpu", bundle_digest)

    @property
    def specs(self) -> RunnerSpecs:
        if self._specs is None:
            raise RuntimeError("the Runner was not entered")
        return self._specs

    @property
    def info(self) -> RunnerInfo:
        return self._info

    def __enter__(self) -> OnnxRuntimeRunner:
        """Load the model.

        Raises:
            IntegrityError: it reads tensors from other files, or is not what was promised.
            InputError: ONNX Runtime cannot load it.
            ResourceError: out of memory.
        """
        if isinstance(self._model, bytes):
            require_whole(self._model)
        self._session = self._load()
        self._specs = RunnerSpecs(
            tuple(_spec(arg) for arg in self._session.get_inputs()),
            tuple(_spec(arg) for arg in self._session.get_outputs()),
        )
        if self._promised is not None:
            _check_promise(self._promised, self._specs)
        return self

    def _load(self) -> Any:
        ort = load_library()
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = self._threads
        # idle threads would wait in a loop: half the processor time of a graph whose nodes run on one thread (measured)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.add_session_config_entry("session.load_model_format", "ONNX")  # never the ORT format, by its magic
        if not self._optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        source = self._model if isinstance(self._model, bytes) else str(self._model)
        try:
            return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the binding raises a family of its own, without a common base
            _refuse_memory(error)
            what = f"ONNX Runtime cannot load the model: {_first_line(error)}."
            kind: type[EdgemedError] = InputError if self._promised is None else IntegrityError
            raise kind(what, "Build it anew.") from error

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session = None

    def infer(
        self, feeds: Mapping[str, NDArray[Any]], *, frame: int | None = None, spans: SpanLog | None = None
    ) -> dict[str, NDArray[Any]]:
        check_feeds(self.specs, feeds)
        with spans.record("compute", frame) if spans is not None else nullcontext():
            try:
                outputs = self._session.run(None, dict(feeds))
            except Exception as error:
                _refuse_memory(error)
                raise InputError(
                    f"ONNX Runtime failed on this input: {_first_line(error)}.", "Check the input's shape."
                ) from error
        return {spec.name: value for spec, value in zip(self.specs.outputs, outputs, strict=True)}


def load_library() -> Any:
    """ONNX Runtime's module; entering a Runner does it otherwise, and then the first pays for it.

    Raises:
        MissingSoftwareError: it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, when the library is loaded; it reports and keeps files
    return require("onnxruntime", extra="serve", purpose="run ONNX models")


def check_feeds(specs: RunnerSpecs, feeds: Mapping[str, NDArray[Any]]) -> None:
    """Refuse feeds that do not match the specs exactly.

    Raises:
        InputError: a name is missing or unknown, or a dtype or shape differs.
    """
    expected = {spec.name: spec for spec in specs.inputs}
    if feeds.keys() != expected.keys():
        raise InputError(
            f"The model takes the inputs {', '.join(expected)}, and got {', '.join(feeds) or 'none'}.",
            "Name each input once.",
        )
    for name, array in feeds.items():
        spec = expected[name]
        if not spec.admits(dtype_name(array.dtype), array.shape):
            raise InputError(
                f"Input {spec} got {array.dtype} {'×'.join(map(str, array.shape))}.", "Give what the model takes."
            )


def _check_promise(promised: RunnerSpecs, specs: RunnerSpecs) -> None:
    for wanted, found in ((promised.inputs, specs.inputs), (promised.outputs, specs.outputs)):
        for want, have in zip_longest(wanted, found):
            if want is None or have is None or _contradict(want, have):
                raise IntegrityError(
                    f"The graph has {have or 'nothing'} where the manifest says {want or 'nothing'}.",
                    "Build the bundle anew.",
                )


def _contradict(one: TensorSpec, other: TensorSpec) -> bool:
    """Whether no tensor could be both; a varying dimension agrees with every length."""
    same = (one.name, one.dtype, len(one.shape)) == (other.name, other.dtype, len(other.shape))
    return not same or any(None not in pair and len(set(pair)) > 1 for pair in zip(one.shape, other.shape, strict=True))


def _refuse_memory(error: Exception) -> None:
    """Raise `ResourceError` if ONNX Runtime's error is about memory."""
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY):
        raise ResourceError(
            "ONNX Runtime ran out of memory.", "Close other programs or add swap, then try again."
        ) from error


def _spec(arg: Any) -> TensorSpec:
    shape = tuple(d if isinstance(d, int) else None for d in arg.shape)
    return TensorSpec(arg.name, _DTYPES.get(arg.type, arg.type), shape)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
