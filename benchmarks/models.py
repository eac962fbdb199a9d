"""Parity, INT8 error, sizes and times of full-size builds: `make bench-models`.

Models have random weights, biases and BatchNorm statistics, images are smooth noise: parity is a claim, the INT8 error
only says that the graph works.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgemed.bundle.read import open_bundle
from tests.build.conftest import write_images

REPO = Path(__file__).resolve().parent.parent
MODELS = {
    "seed CNN 256×256×3": "seed_cnn:size=256",
    "U-Net, skip concat, 256×256×1": "unet:size=256",
    "ResNet50 224×224×3": "resnet50:size=224",
}


def build(spec: str, folder: Path) -> dict[str, float]:
    """Build one model in `folder` and read the figures off its bundle."""
    quiet = {"check": True, "capture_output": True}
    environment = {**os.environ, "KERAS_HOME": str(folder / ".keras")}
    subprocess.run(
        [sys.executable, REPO / "tests" / "keras_models.py", spec, folder / "model.h5"], env=environment, **quiet
    )
    write_images(folder / "calibration", 40, size=256)
    start_ns, before = time.monotonic_ns(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "edgemed", "build", "model.h5", "--int8"], cwd=folder, **quiet)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    manifest = open_bundle(folder / "model.edgemed").manifest
    (plan,) = manifest.engines
    return {
        "parity": max(f.relative_error for f in manifest.fidelity.float_vs_keras),
        "int8_error": max(f.relative_error for f in manifest.fidelity.int8_vs_float),
        "int8_mac_share": manifest.fidelity.int8_mac_share or 0.0,
        "h5_mb": (folder / "model.h5").stat().st_size / 1e6,
        "plan_mb": manifest.files[plan.path].size / 1e6,
        "wall_s": (time.monotonic_ns() - start_ns) / 1e9,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def main() -> None:
    """Build every model, print a table and one BENCH line."""
    results = {}
    print("| model | parity | INT8 error | INT8 MACs | .h5 MB | plan MB | wall s | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, spec in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            found = results[name] = build(spec, Path(folder))
        print(
            f"| {name} | {found['parity']:.1e} | {found['int8_error']:.2%} | {found['int8_mac_share']:.1%} | "
            f"{found['h5_mb']:.1f} | {found['plan_mb']:.1f} | {found['wall_s']:.0f} | {found['cpu_s']:.0f} |",
            flush=True,
        )
    print("BENCH " + json.dumps({"name": "models", "worst_parity": max(r["parity"] for r in results.values())}))


if __name__ == "__main__":
    main()
