"""NVIDIA's real bindings over a stand-in for libnvinfer (standin_nvinfer.c): every call of ours goes through pybind11.

Slots are places in the tables of virtual functions of `apiv::VRuntime`, `VCudaEngine` and `VExecutionContext`, after
their two destructors, and of the interfaces that callers implement: the order of declarations in each release's
NvInferImpl.h, NvInferRuntime.h and NvInferRuntimeBase.h; 11.4 is held to those of 11.1, to which it only adds.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.engine import fetch_bindings

SOURCE = Path(__file__).with_suffix(".c")

RUNTIME = (
    "deserializeCudaEngine setDLACore getDLACore getNbDLACores setErrorRecorder getErrorRecorder "
    "setEngineHostCodeAllowed getEngineHostCodeAllowed"
)
ENGINE = (
    "createExecutionContext getNbOptimizationProfiles setErrorRecorder getErrorRecorder getTensorShape "
    "getTensorDataType getTensorLocation getTensorIOMode getTensorFormat getProfileShape getNbIOTensors "
    "getIOTensorName getNbAuxStreams"
)
CONTEXT = (
    "getEngine getOptimizationProfile setErrorRecorder getErrorRecorder setOptimizationProfileAsync setInputShape "
    "getTensorShape setTensorAddress inferShapes setInputConsumedEvent setOutputAllocator enqueueV3 setAuxStreams"
)
OURS = "LOGGER_LOG RECORDER_REPORT RECORDER_UP RECORDER_DOWN ALLOCATOR_PLAIN ALLOCATOR_ASYNC ALLOCATOR_SHAPE INT64_DIMS"

_TEN_ENGINE = (3, 8, 11, 12, 17, 18, 19, 21, 24, 27, 28, 29, 31)
_TEN_CONTEXT = (5, 9, 12, 13, 15, 19, 20, 22, 26, 27, 30, 35, 40)
_TEN_OURS = (0, 9, 10, 11, 4, 5, 6, 1)
_TEN = ((1, 3, 4, 5, 7, 8, 19, 20), _TEN_ENGINE, _TEN_CONTEXT, _TEN_OURS)

SLOTS: dict[str, tuple[tuple[int, ...], ...]] = {
    "8.6.1": (
        (0, 1, 2, 3, 5, 6, 18, 19),
        (9, 20, 26, 27, 32, 33, 34, 36, 39, 42, 43, 44, 47),
        (6, 12, 19, 20, 23, 27, 28, 30, 33, 34, 37, 42, 48),
        (0, 7, 8, 9, 1, -1, 2, 0),
    ),
    "10.3.0": _TEN,
    "10.13.0.35": _TEN,
    "11.4.0.106": (
        (1, 2, 3, 4, 6, 7, 18, 19),
        (3, 6, 8, 9, 13, 14, 15, 17, 20, 23, 24, 25, 27),
        (5, 9, 11, 12, 14, 18, 19, 21, 25, 26, 29, 34, 39),
        (4, 9, 10, 11, 4, 5, 6, 1),
    ),
}


def build(row: fetch_bindings.Bindings, fetched: Path, folder: Path) -> Path:
    """A folder like that of `fetch_bindings.fetch`, whose libnvinfer is the stand-in."""
    (folder / "stubs").mkdir(parents=True)
    (folder / "site").symlink_to(fetched / "site")
    library, *others = row.libraries
    for name in others:
        shutil.copy(fetched / "stubs" / name, folder / "stubs" / name)
    rest = folder / "rest.c"  # what the bindings ask for besides
    names = [name for name in fetch_bindings.FUNCTIONS if name != "createInferRuntime_INTERNAL"]
    rest.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in names))
    cc = ["cc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{library}", *_defines(row.version)]
    subprocess.run(
        [*cc, "-o", str(folder / "stubs" / library), str(SOURCE), str(rest), "-l:libstdc++.so.6"], check=True
    )
    return folder


def _defines(version: str) -> list[str]:
    prefixes = ("RUNTIME_", "ENGINE_", "CONTEXT_", "")
    lists = (RUNTIME, ENGINE, CONTEXT, OURS)
    return [
        f"-D{prefix}{name}={slot}"
        for prefix, names, slots in zip(prefixes, lists, SLOTS[version], strict=True)
        for name, slot in zip(names.split(), slots, strict=True)
    ]
