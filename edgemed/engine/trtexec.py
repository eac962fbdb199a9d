"""Lines for `trtexec`, for boards that edgemed does not run on, and for the DLA.

The flags were looked up in `samples/common/sampleOptions.cpp` of NVIDIA/TensorRT at 8.0.1, 8.2.1, 8.5.2, 8.6.1 and
10.3.0; all of them have every flag that is used here, and read a cache given by `--calib` as entropy calibration 2.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from edgemed.base.runner import TensorSpec
from edgemed.engine.build import Precision

_WHERE: Final = "/usr/src/tensorrt/bin/trtexec"  # where JetPack puts it
_FLAGS: Final[dict[str, tuple[str, ...]]] = {"int8": ("--int8", "--fp16"), "fp16": ("--fp16",), "fp32": ()}


def line(
    onnx: str,
    plan: str,
    precision: Precision,
    *,
    inputs: Sequence[TensorSpec] = (),
    profiles: Mapping[str, Sequence[tuple[int, ...]]] | None = None,
    calibration: str | None = None,
) -> str:
    """One command line for a TensorRT that is told precision by flags.

    Args:
        onnx: the graph.
        plan: the engine to write.
        precision: what the flags allow; FP16 beside INT8, for the layers that have no pair.
        inputs: shapes, for those that have an open batch size: it becomes 1 where `profiles` does not say more.
        profiles: least, usual and greatest shape of inputs, by name.
        calibration: a cache; then the line is for the DLA, and `onnx` the graph without Q/DQ.
    """
    words = [_WHERE, f"--onnx={onnx}", f"--saveEngine={plan}", *_FLAGS[precision]]
    if calibration is not None:
        words += [f"--calib={calibration}", "--useDLACore=0", "--allowGPUFallback"]
    words += _shapes(inputs, profiles or {})
    return shlex.join(words)


def _shapes(inputs: Sequence[TensorSpec], profiles: Mapping[str, Sequence[tuple[int, ...]]]) -> list[str]:
    """Range of open batch sizes; other open sizes are the user's to choose, so nothing is said of them."""
    open_ = [spec for spec in inputs if None in spec.shape]
    if not open_ or any(None in spec.shape[1:] for spec in open_):
        return []
    words = []
    for index, which in enumerate(("min", "opt", "max")):
        chosen = {s.name: profiles[s.name][index] if s.name in profiles else (1, *s.shape[1:]) for s in open_}
        shapes = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in chosen.items())
        words.append(f"--{which}Shapes={shapes}")
    return words


def quoted(word: str) -> str:
    """A word as a shell takes it."""
    return shlex.quote(word)
