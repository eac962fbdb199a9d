"""Cost of `.h5` to INT8, ours against a script around ONNX Runtime and against NVIDIA ModelOpt: `make bench-build`.

Ours is the whole `edgemed build`: conversion, parity with Keras, calibration, verification, the FP16 part, a plan by
TensorRT-RTX where it is installed, and the report. The others convert and quantize, no more. ModelOpt wants PyTorch
and other versions of ONNX than ours; it gets a virtual environment of its own under `$EDGEMED_BENCH_CACHE`
(`~/.cache/edgemed-bench`), about 6.5 GB.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import CommandError, Cost, measure
from tests.build.conftest import write_images

REPO = Path(__file__).resolve().parent.parent
SCRIPT = REPO / "benchmarks" / "usual_script.py"
MODELS = {"ResNet50 224×224×3": ("resnet50:size=224", 3), "seed CNN 256×256×3": ("seed_cnn:size=256", 1)}
"""How each is made, and how many rounds it runs: every contestant once a round; figures are medians."""
IMAGES = 128
MODELOPT = "nvidia-modelopt[onnx]==0.47.0"
CACHE = Path(os.environ.get("EDGEMED_BENCH_CACHE") or Path.home() / ".cache" / "edgemed-bench")

OURS, OURS_MINMAX = "edgemed build, entropy", "edgemed build, minmax"
USUAL, USUAL_MINMAX = "tf2onnx + quantize_static, Entropy", "tf2onnx + quantize_static, MinMax"
NVIDIA = "tf2onnx + ModelOpt, entropy"
CONVERSION = "tf2onnx alone (part of the rows below)"


def modelopt_python() -> Path:
    """The Python of ModelOpt's environment, which is made if there is none.

    Raises:
        CommandError: it cannot be installed, or not be imported.
    """
    python = CACHE / "modelopt" / "bin" / "python"
    if not python.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        print(f"Installing {MODELOPT} below {CACHE}: PyTorch with CUDA, some gigabytes.", file=sys.stderr, flush=True)
        measure([sys.executable, "-m", "venv", python.parent.parent], CACHE)
    try:
        measure([python, "-c", "import modelopt.onnx.quantization"], CACHE)
    except CommandError:
        measure([python, "-m", "pip", "install", MODELOPT], CACHE)
        measure([python, "-c", "import modelopt.onnx.quantization"], CACHE)
    return python


def edgemed(folder: Path, method: str) -> Cost:
    """The whole build, as a user types it."""
    command = [sys.executable, "-m", "edgemed", "build", "model.h5", "--int8", "--method", method]
    return measure([*command, "--output", f"{method}.edgemed"], folder, {"PYTHONPATH": str(REPO)})


def convert(folder: Path) -> Cost:
    """`model.onnx` by tf2onnx's command line; by way of a SavedModel where it fails on the file itself."""
    tf2onnx = [sys.executable, "-m", "tf2onnx.convert", "--output", "model.onnx", "--opset", "17"]
    quiet = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        return measure([*tf2onnx, "--keras", "model.h5"], folder, quiet)
    except CommandError:
        exported = measure([sys.executable, SCRIPT, "export", "model.h5", "saved"], folder, quiet)
        return exported + measure([*tf2onnx, "--saved-model", "saved"], folder, quiet)


def usual(folder: Path, method: str) -> Cost:
    """`quantize_static` with its preparation."""
    return measure([sys.executable, SCRIPT, "quantize", "model.onnx", f"{method}.onnx", method], folder)


def modelopt(folder: Path, python: Path) -> Cost:
    """ModelOpt's command line with its defaults, on the CPU."""
    arrays = measure([sys.executable, SCRIPT, "arrays", "model.onnx", "images.npy"], folder)
    command = [python, "-m", "modelopt.onnx.quantization", "--onnx_path=model.onnx", "--quantize_mode=int8"]
    options = ["--calibration_data_path=images.npy", "--calibration_eps", "cpu", "--output_path=modelopt.onnx"]
    return arrays + measure([*command, *options], folder)


def prepare(spec: str, folder: Path) -> None:
    """The model and its calibration images."""
    environment = {**os.environ, "KERAS_HOME": str(folder / ".keras")}
    maker = [sys.executable, REPO / "tests" / "keras_models.py", spec, folder / "model.h5"]
    subprocess.run(maker, env=environment, check=True, capture_output=True)
    write_images(folder / "calibration", IMAGES, size=256)


def compare(folder: Path) -> dict[str, Cost | str]:
    """Every contestant on one model, once: what it took, or why there is no figure."""
    for bundle in folder.glob("*.edgemed"):
        shutil.rmtree(bundle)
    found: dict[str, Cost | str] = {OURS: edgemed(folder, "entropy"), OURS_MINMAX: edgemed(folder, "minmax")}
    found[CONVERSION] = conversion = convert(folder)
    found[USUAL_MINMAX] = conversion + usual(folder, "MinMax")
    found[USUAL] = conversion + usual(folder, "Entropy")
    try:
        found[NVIDIA] = conversion + modelopt(folder, modelopt_python())
    except CommandError as error:
        found[NVIDIA] = str(error)
    return found


def show(name: str, rounds: list[dict[str, Cost | str]]) -> None:
    """The rows of one model: of each contestant the round of the median CPU time."""
    for contestant in rounds[0]:
        costs = [found[contestant] for found in rounds]
        measured = sorted((cost for cost in costs if isinstance(cost, Cost)), key=lambda cost: cost.cpu_s)
        cost = measured[len(measured) // 2] if measured else costs[0]
        if isinstance(cost, Cost):
            figures = f"{cost.wall_s:.0f} | {cost.cpu_s:.1f} | {cost.peak_bytes / 1e9:.2f}"
        else:
            figures = f"{cost} | |"
        print(f"| {name} | {contestant} | {figures} |", flush=True)


def show_stages(folder: Path) -> None:
    """Where our wall time went; the report itself is the rest."""
    stages = json.loads((folder / "entropy.edgemed" / "report.json").read_text())["stages"]
    print("Ours by stage (wall s): " + ", ".join(f"{s['name']} {s['seconds']:.1f}" for s in stages), flush=True)


def ratios(rounds: list[dict[str, Cost | str]], ours: str, theirs: str, field: str) -> list[float]:
    """Ours divided by theirs in each round, where both have a figure."""
    pairs = ((found[ours], found[theirs]) for found in rounds)
    return [
        round(getattr(one, field) / getattr(other, field), 3)
        for one, other in pairs
        if isinstance(one, Cost) and isinstance(other, Cost)
    ]


def ratio(rounds: list[dict[str, Cost | str]], ours: str, theirs: str, field: str) -> float | None:
    """The median of `ratios`; of one round, its only one."""
    found = ratios(rounds, ours, theirs, field)
    return statistics.median(found) if found else None


def main() -> None:
    """Print one table of all models, what was compared, and one BENCH line for the first model."""
    print("| model | .h5 to INT8 by | wall s | CPU s | peak GB |\n| --- | --- | --- | --- | --- |")
    results: dict[str, list[dict[str, Cost | str]]] = {}
    for name, (spec, rounds) in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            prepare(spec, Path(folder))
            results[name] = [compare(Path(folder)) for _ in range(rounds)]
            show(name, results[name])
            show_stages(Path(folder))
    for model, found in results.items():
        for method, ours, theirs in (("minmax", OURS_MINMAX, USUAL_MINMAX), ("entropy", OURS, USUAL)):
            print(f"{model}, CPU time against the script, {method}: {ratios(found, ours, theirs, 'cpu_s')}")
        print(f"{model}, CPU time against ModelOpt, entropy: {ratios(found, OURS, NVIDIA, 'cpu_s')}")
    print(f"{IMAGES} images for all; of them ours calibrates with all but the 16 that it keeps to judge the result.")
    print("The BENCH line compares entropy with entropy: the default of ours and of ModelOpt.")
    first = next(iter(results.values()))
    figures = {
        "cpu_vs_script": ratio(first, OURS, USUAL, "cpu_s"),
        "cpu_vs_modelopt": ratio(first, OURS, NVIDIA, "cpu_s"),
        "rss_vs_script": ratio(first, OURS, USUAL, "peak_bytes"),
    }
    print("BENCH " + json.dumps({"name": "build", **figures}))


if __name__ == "__main__":
    main()
