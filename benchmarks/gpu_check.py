"""Everything that only a GPU shows, on this machine's GPU: `python -m benchmarks.gpu_check [BUNDLE] [--output FILE]`.

Needs pycuda and NVIDIA's driver; nvcc or the NVRTC wheel for the stand-in kernels; tensorrt or tensorrt_rtx for the
engine of BUNDLE. What is missing or refuses is reported as such, and the rest goes on. `--suite` runs the runtime's
tests on the real driver first.

On a machine with no GPU, `--shim` runs all of it over the tests' host-only driver: that shows that the script works, and
no figure of it means anything.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.gpu import bare, engines, preprocessing, rings
from edgemed.base.errors import EdgemedError
from edgemed.runtime.cuda import Cuda, open_cuda
from tests.runtime.standin import SOURCE

REPO = Path(__file__).resolve().parent.parent
Report = dict[str, Any]
_COMPUTE_NS = 500_000  # near the time of a 4 MiB copy over PCIe 3, so that all three stages matter


def main() -> int:
    """Run the sections, print and write the report; 1 where a section failed."""
    options = _options()
    if options.shim:
        _put_shim_under()
    report: Report = {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "shim": options.shim}
    if options.suite:
        report["suite"] = _section("suite", lambda: _suite(shim=options.shim))
    try:
        cuda = open_cuda()
    except EdgemedError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    report["device"] = asdict(cuda.facts)
    for name, run in _sections(cuda, options.bundle, shim=options.shim).items():
        report[name] = _section(name, run)
    text = json.dumps(report, indent=2, default=str)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")
    print(text)
    return int(any(isinstance(part, dict) and "failed" in part for part in report.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What only a GPU shows.")
    parser.add_argument("bundle", nargs="?", type=Path, help="NAME.edgemed, to build and run its engine")
    parser.add_argument("--output", type=Path, help="write the report there too, as JSON")
    parser.add_argument("--suite", action="store_true", help="run the runtime's tests on this driver first")
    parser.add_argument("--shim", action="store_true", help="over the host-only driver: a rehearsal")
    return parser.parse_args()


def _sections(cuda: Cuda, bundle: Path | None, *, shim: bool) -> dict[str, Callable[[], Report]]:
    image = b"" if shim else _compile(SOURCE, cuda.facts.compute_capability)
    sections = {
        "copies": lambda: _within(cuda, lambda arena: bare.copies(cuda, arena)),
        "launches": lambda: _within(cuda, lambda arena: bare.launches(cuda, arena, _affine(arena, image))),
        "overlap": lambda: rings.overlap(cuda, image, _COMPUTE_NS),
        "graphs": lambda: rings.graph_gain(cuda, image),
        "preprocessing": lambda: preprocessing.compare(cuda),
    }
    if bundle is not None:
        sections["engine"] = lambda: engines.run(bundle)
    return sections


def _within(cuda: Cuda, run: Callable[[Any], Report]) -> Report:
    with cuda.arena() as arena:
        return run(arena)


def _affine(arena: Any, image: bytes) -> Any:
    from tests.runtime.fakecuda.handle import listing

    return arena.module(image or listing(SOURCE)).kernel("affine", "PPffI")


def _section(name: str, run: Callable[[], Report]) -> Report:
    """One section; what stops it is its result."""
    sys.stderr.write(f"{name} ...\n")
    try:
        return run()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def _compile(source: Path, compute_capability: str) -> bytes:
    """PTX of the stand-in kernels, for this GPU or an older one."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise SystemExit("nvcc is not here; put CUDA's bin folder on the PATH.")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "standin.ptx"
        level = "compute_80" if float(compute_capability) >= 8.0 else f"compute_{compute_capability.replace('.', '')}"
        subprocess.run([nvcc, "-ptx", f"-arch={level}", "-o", str(target), str(source)], check=True)
        return target.read_bytes()


def _suite(*, shim: bool) -> Report:
    """The runtime's own tests, on this driver."""
    environment = {**os.environ, "EDGEMED_CUDA": "shim" if shim else "driver"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda", "tests/runtime"]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, encoding="utf-8", check=False)
    lines = done.stdout.strip().splitlines()
    report: Report = {"summary": lines[-1] if lines else done.stderr[-500:]}
    if done.returncode:
        report["failed"] = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return report


def _put_shim_under() -> None:
    from tests.runtime.fakecuda import fetch
    from tests.runtime.kernels import twin

    fake = fetch.ensure()
    library = fake.activate()
    for kernels in (fake.kernels, twin.build()):
        library.fakecuda_kernels(str(kernels).encode())


if __name__ == "__main__":
    sys.exit(main())
