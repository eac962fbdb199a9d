"""What published latencies are of our bounds: `python -m benchmarks.estimate`.

Models of keras.applications are converted with random weights: costs come from shapes. Of the others only published
multiply-accumulates and parameters are known, which give the floor alone. Latencies were measured by others, with
models of the same name; a ratio below 1 would show that a bound is none.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemed.convert import ConvertOptions, KerasModel
from edgemed.device.profile import load_profile
from edgemed.profile.estimate import Bound, LayerCost, Precision, bound_device

_SAVE = "import sys, keras; getattr(keras.applications, sys.argv[1])(weights=None).save(sys.argv[2])"


@dataclass(frozen=True)
class Published:
    """A latency that somebody measured: ms of a batch, of which model, on which device in which state."""

    model: str
    device: str
    condition: str
    precision: Precision
    ms: float
    source: str
    batch: int = 1


MLPERF = "MLPerf Inference v3.1 closed, SingleStream p50, TensorRT 8.5.2"
ONNXSIM = "onnxsim README, TensorRT 10.3, GPU time"
ULTRALYTICS = "Ultralytics, 640 x 640, batch 1"
# multiply-accumulates and parameters: torchvision's table, and the models' own (which counts 2 operations for each)
KNOWN = {
    "ResNet-18": (1.814e9, 11.69e6),
    "YOLOv8n": (8.7e9 / 2, 3.2e6),
    "YOLO11n": (6.5e9 / 2, 2.6e6),
    "YOLO11m": (68.0e9 / 2, 20.1e6),
    "YOLO11x": (194.9e9 / 2, 56.9e6),
}
PUBLISHED = (
    Published("ResNet50", "agx-orin-64gb", "MAXN, GPU", "int8", 0.636, MLPERF),
    Published("ResNet50", "orin-nx-16gb", "as stated", "int8", 1.078, MLPERF),
    Published("ResNet50", "orin-nano-8gb", "super", "int8", 1.190, ONNXSIM),
    Published("ResNet50", "orin-nano-8gb", "super", "fp16", 1.814, ONNXSIM),
    Published("ResNet50", "orin-nano-8gb", "super", "int8", 4.93, ONNXSIM, batch=8),
    Published("ResNet50", "orin-nano-8gb", "super", "fp16", 8.82, ONNXSIM, batch=8),
    Published("MobileNetV2", "orin-nano-8gb", "super", "int8", 0.781, ONNXSIM),
    Published("MobileNetV2", "orin-nano-8gb", "super", "fp16", 0.850, ONNXSIM),
    Published("ResNet-18", "orin-nano-8gb", "super", "int8", 0.485, ONNXSIM),
    Published("ResNet-18", "orin-nano-8gb", "super", "fp16", 0.758, ONNXSIM),
    Published("YOLO11n", "orin-nano-8gb", "super", "int8", 3.91, ULTRALYTICS),
    Published("YOLO11n", "orin-nano-8gb", "super", "fp16", 4.91, ULTRALYTICS),
    Published("YOLO11m", "orin-nano-8gb", "super", "int8", 9.58, ULTRALYTICS),
    Published("YOLO11m", "orin-nano-8gb", "super", "fp16", 14.0, ULTRALYTICS),
    Published("YOLO11x", "orin-nano-8gb", "super", "int8", 20.7, ULTRALYTICS),
    Published("YOLO11x", "orin-nano-8gb", "super", "fp16", 32.9, ULTRALYTICS),
    Published("YOLOv8n", "orin-nano-8gb", "super", "int8", 3.49, "hokwangchoi/jetson-orin-nano-benchmarks"),
    Published("YOLO11n", "orin-nx-16gb", "as stated", "int8", 4.37, ULTRALYTICS),
    Published("YOLO11n", "orin-nx-16gb", "as stated", "fp16", 4.85, ULTRALYTICS),
    Published("YOLO11x", "orin-nx-16gb", "as stated", "int8", 22.3, ULTRALYTICS),
    Published("YOLO11x", "orin-nx-16gb", "as stated", "fp16", 36.0, ULTRALYTICS),
)


def costs_of(application: str, folder: Path) -> tuple[LayerCost, ...]:
    """Costs of a model: of keras.applications as a build counts them, of others as one layer."""
    if application in KNOWN:
        macs, parameters = KNOWN[application]
        size = round(4 * parameters)
        return (LayerCost(node="all", op="Conv", macs=round(macs), weight_bytes=size, input_bytes=0, output_bytes=0),)
    from edgemed.graph.costs import costs
    from edgemed.graph.model import load
    from edgemed.graph.passes import clean_graph

    path = folder / f"{application}.keras"
    subprocess.run([sys.executable, "-c", _SAVE, application, path], check=True, capture_output=True)
    with KerasModel(path, folder, ConvertOptions()) as keras:
        graph = clean_graph(load(keras.convert().path)).model
    return tuple(LayerCost.model_validate(vars(cost)) for cost in costs(graph))


def bound_of(row: Published, costs: Sequence[LayerCost]) -> Bound:
    """The bound of a published row; all that multiplies is quantized, as in those engines."""
    device, _ = load_profile(row.device)
    costs = [_times(cost, row.batch) for cost in costs]
    first, last = costs[0], costs[-1]
    every = frozenset(cost.node for cost in costs)
    bounds = bound_device(device, costs, every, first.input_bytes + last.output_bytes, row.precision)
    return next(bound for bound in bounds if bound.point.condition == row.condition)


def _times(cost: LayerCost, batch: int) -> LayerCost:
    """The cost of a batch: weights are read once for all of it."""
    scaled = {name: getattr(cost, name) * batch for name in ("macs", "input_bytes", "output_bytes")}
    return cost.model_copy(update=scaled)


def main() -> None:
    """Print a table and one BENCH line."""
    with tempfile.TemporaryDirectory() as folder:
        known = {model: costs_of(model, Path(folder)) for model in dict.fromkeys(row.model for row in PUBLISHED)}
    print("| model | device, state | precision | published ms | floor ms | ratio | roofline ms | ratio | source |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    ratios = []
    for row in PUBLISHED:
        bound = bound_of(row, known[row.model])
        mark = "*" if bound.point.unverified else ""
        roofline, times = "n/a", row.ms / bound.floor_ms
        if row.model not in KNOWN:
            roofline, times = f"{bound.roofline_ms:.3f}", row.ms / bound.roofline_ms
        ratios.append(times)
        batch = f", batch {row.batch}" if row.batch > 1 else ""
        print(
            f"| {row.model}{batch} | {row.device}, {row.condition}{mark} | {row.precision.upper()} | {row.ms:.3f} | "
            f"{bound.floor_ms:.3f} | {row.ms / bound.floor_ms:.1f} | {roofline} | "
            f"{'n/a' if roofline == 'n/a' else f'{times:.1f}'} | "
            f"{row.source} |"
        )
    macs = {model: sum(cost.macs for cost in costs) for model, costs in known.items()}
    print("\n" + ", ".join(f"{model}: {count / 1e9:.2f} G multiply-accumulates" for model, count in macs.items()))
    result = {"name": "estimate", "ratio_min": round(min(ratios), 2), "ratio_max": round(max(ratios), 2)}
    print("BENCH " + json.dumps(result, separators=(",", ":")))


if __name__ == "__main__":
    main()
