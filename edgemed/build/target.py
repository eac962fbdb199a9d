"""What is held against boards: a bundle, a Keras model before it is built, an ONNX file; and the stop of a build."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgemed.base.errors import InputError, os_errors_as_resource
from edgemed.base.progress import Progress
from edgemed.base.runner import TensorSpec
from edgemed.base.store import scratch_directory
from edgemed.build import stages
from edgemed.build.options import BuildOptions, Precision
from edgemed.bundle.read import Bundle
from edgemed.convert import ConvertOptions, KerasModel, scan_model
from edgemed.engine.target import Subject, Verdict, judge
from edgemed.graph.lint import Finding

if TYPE_CHECKING:
    import onnx_ir as ir

_WRITES: dict[Precision, tuple[str, ...]] = {
    "int8": ("float", "int8", "int8_fp16"),
    "fp16": ("float", "fp16"),
    "fp32": ("float",),
}
"""The graphs that a build of each precision writes."""


def of_bundle(bundle: Bundle, precision: Precision | None) -> Subject:
    """A verified bundle; `precision` None takes its own."""
    graphs: dict[str, tuple[str, Callable[[], ir.Model]]] = {
        name: (ref.path, _opener(bundle.file(ref.path)))
        for name, ref in bundle.manifest.graphs.items()
        if name != "plain"
    }
    return Subject(
        name=str(bundle.path),
        precision=precision or bundle.manifest.precision,
        graphs=graphs,
        inputs=tuple(TensorSpec(tensor.name, tensor.dtype, tensor.shape) for tensor in bundle.manifest.inputs),
        profiles=bundle.manifest.profiles(),
        layers=_layers(bundle),
        caches=tuple(path for path in bundle.manifest.files if path.startswith("calib/")),
        own=bundle.manifest.precision,
    )


def of_onnx(path: Path) -> Subject:
    """An ONNX file that is no bundle; its precision is what its types and pairs say.

    Raises:
        InputError: it is no ONNX model.
    """
    from edgemed.graph.model import infer_shapes, load
    from edgemed.graph.target import has_pairs, is_half

    model = infer_shapes(load(path), strict=False)
    inputs = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    return Subject(
        name=str(path),
        precision="int8" if has_pairs(model) else "fp16" if is_half(model) else "fp32",
        graphs={"onnx": (str(path), lambda: model)},
        inputs=tuple(_spec(value) for value in inputs),
        lone="onnx",
    )


def of_keras(model: Path, options: BuildOptions, progress: Progress) -> Subject:
    """A Keras model: converted and cleaned as a build does it, then dropped.

    Raises:
        InputError: the model cannot be converted.
        UnsafeModelError: loading it would run code that was not allowed.
        ResourceError: disk, memory, or a killed child.
    """
    scan_model(model, allow_code=options.allow_code is not None)
    convert = ConvertOptions(input_shapes=options.input_shapes, allow_code=options.allow_code)
    with os_errors_as_resource(), scratch_directory("edgemed-inspect") as folder:
        with KerasModel(model, folder, convert) as keras:
            converted = stages.convert(keras, progress)
        graph = stages.clean(converted, folder / "graphs", options, progress)
        _read_weights(graph.model)
    layers = [layer.name for layer in converted.layers]
    return _unbuilt(str(options.target(model)), options, graph.model, layers, converted.inputs)


def require_boards(
    options: BuildOptions, model: ir.Model, layers: Iterable[str], inputs: Sequence[TensorSpec] = ()
) -> None:
    """Stop a build for a board that will refuse it.

    Args:
        options: names the boards.
        model: the clean float graph.
        layers: names of the Keras layers.
        inputs: what the model takes.

    Raises:
        InputError: a board refuses; the first reason names the Keras layer.
    """
    from edgemed.device.profile import load_profile

    subject = _unbuilt("", options, model, list(layers), inputs)
    for device in options.devices:
        if load_profile(device)[1] is None:
            continue  # an RTX GPU: its own compiler judges, later in the build
        verdict = judge(device, subject)
        if verdict.refusals:
            raise _refusal(verdict)


def _refusal(verdict: Verdict) -> InputError:
    first, *others = verdict.refusals
    more = f" ({len(others)} more: edgemed inspect MODEL --device {verdict.device})" if others else ""
    doubt = f" That rests on unconfirmed fields of its profile: {', '.join(verdict.unverified)}."
    hint = first.remedy + (doubt if verdict.unverified else "")
    return InputError(f"{verdict.device} will refuse {where(first)}: {first.message}{more}", hint)


def where(finding: Finding) -> str:
    """What a finding is about, in words: the Keras layer where it is known, the node, or the whole model."""
    if finding.node is None:
        return "this model"
    return f"layer '{finding.layer}' (node {finding.node})" if finding.layer else f"node {finding.node}"


def _unbuilt(
    name: str, options: BuildOptions, model: ir.Model, layers: list[str], inputs: Sequence[TensorSpec]
) -> Subject:
    """The graphs that a build would write: the float graph's nodes, some with pairs, which every TensorRT takes."""
    graphs: dict[str, tuple[str, Callable[[], ir.Model]]] = {
        written: (f"graphs/{written}.onnx", lambda: model) for written in _WRITES[options.precision]
    }
    return Subject(name=name, precision=options.precision, graphs=graphs, inputs=tuple(inputs), layers=layers)


def _read_weights(model: ir.Model) -> None:
    """Read weights that lie in files of their own, before their folder goes."""
    import onnx_ir as ir

    ir.external_data.load_to_model(model)


def _opener(path: Path) -> Callable[[], ir.Model]:
    def opened() -> ir.Model:
        from edgemed.graph.model import infer_shapes, load

        return infer_shapes(load(path), strict=False)

    return opened


def _layers(bundle: Bundle) -> tuple[str, ...]:
    """The Keras layers that the report names; none where a bundle has no such report."""
    if "report.json" not in bundle.manifest.files:
        return ()
    try:
        names = json.loads(bundle.read("report.json"))["model"]["keras_layers"]
        return tuple(name for name in names if isinstance(name, str))
    except (ValueError, KeyError, TypeError, RecursionError):  # names only serve messages
        return ()


def _spec(value: ir.Value) -> TensorSpec:
    shape = () if value.shape is None else tuple(size if isinstance(size, int) else None for size in value.shape)
    dtype = "float32" if value.dtype is None else value.dtype.numpy().name
    return TensorSpec(value.name or "", dtype, shape)
