"""Everything that only a GPU shows, on this machine's GPU: `python -m benchmarks.gpu_check [BUNDLE] [--output FILE]`.

Needs pycuda and NVIDIA's driver; nvcc or the NVRTC wheel for the stand-in kernels; tensorrt or tensorrt_rtx for the
engine of BUNDLE. What is missing or refuses is reported as such, and the rest goes on. `--suite` runs the runtime's
tests on the real driver first.

On a machine with no GPU, `--shim` runs all of it over the tests' host-only driver: that shows that the script works;
no figure of it means anything.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.gpu import bare, engines, preprocessing, rings
from edgemed.base.errors import EdgemedError
from edgemed.runtime.cuda import Cuda, open_cuda
from tests.runtime.fakecuda.handle import listing
from tests.runtime.standin import SOURCE

REPO = Path(__file__).resolve().parent.parent
Report = dict[str, Any]
_SUITE = tuple(f"tests/runtime/{name}" for name in (
    "test_cuda.py", "test_arena.py", "test_driver.py", "test_device_clock.py", "test_standin.py", "test_cuda_lane.py",
    "kernels/test_in_lane.py", "kernels/test_on_shim.py",
))  # fmt: skip
_COMPUTE_NS = 500_000  # near the time of a 4 MiB copy over PCIe 3, so that all three stages matter


def main() -> int:
    """Run the sections, print and write the report; 1 where a section failed."""
    options = _options()
    os.environ["EDGEMED_CUDA"] = "shim" if options.shim else "driver"
    if options.shim:
        _put_shim_under()
    report: Report = {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "shim": options.shim}
    if options.suite:
        report["suite"] = _section("suite", _suite)
    try:
        cuda = open_cuda()
    except EdgemedError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    report["device"] = asdict(cuda.facts)
    for name, run in _sections(cuda, options.bundle).items():
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


def _sections(cuda: Cuda, bundle: Path | None) -> dict[str, Callable[[], Report]]:
    image = listing(SOURCE)
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
    return arena.module(image).kernel("affine", "PPffI")


def _section(name: str, run: Callable[[], Report]) -> Report:
    """One section; what stops it is its result."""
    sys.stderr.write(f"{name} ...\n")
    try:
        return run()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def _suite() -> Report:
    """The runtime's own tests, on this driver."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *_SUITE]
    done = subprocess.run(command, cwd=REPO, capture_output=True, encoding="utf-8", check=False)
    lines = done.stdout.strip().splitlines()
    report: Report = {"summary": lines[-1] if lines else done.stderr[-500:]}
    if done.returncode:
        report["failed"] = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return report


def _put_shim_under() -> None:
    from tests.runtime.fakecuda.handle import activate
    from tests.runtime.kernels import twin

    activate().kernels(twin.for_shim())


if __name__ == "__main__":
    sys.exit(main())
