"""NVIDIA's real Python bindings, without TensorRT: fetched once, and asked for their names over stub libraries.

The bindings need a dozen C functions of TensorRT's libraries to be imported. Stubs that return NULL, compiled here,
satisfy the loader; classes, enums and signatures are then the real ones, and `Builder()` raises as without a GPU.
Run as a module (`make test` does) it fills the cache (`scripts/wheels.py`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.wheels import cache_dir, filled, unpack


@dataclass(frozen=True)
class Bindings:
    """One release of the bindings; `last_python` is the newest Python that its wheels are made for."""

    package: str
    version: str
    libraries: tuple[str, ...]
    last_python: tuple[int, int] = (3, 13)

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def unsupported(self) -> str | None:
        """Why this Python cannot import it, or None."""
        if sys.version_info[:2] <= self.last_python:
            return None
        return f"{self.requirement} has no wheel for Python {sys.version_info[0]}.{sys.version_info[1]}"


ROWS = (
    Bindings(
        "tensorrt-bindings",
        "8.6.1",
        ("libnvinfer.so.8", "libnvonnxparser.so.8", "libnvparsers.so.8", "libnvinfer_plugin.so.8"),
        last_python=(3, 11),
    ),
    Bindings(
        "tensorrt-cu12-bindings",
        "10.3.0",
        ("libnvinfer.so.10", "libnvonnxparser.so.10", "libnvinfer_plugin.so.10"),
        last_python=(3, 12),
    ),
    Bindings(
        "tensorrt-cu12-bindings", "10.13.0.35", ("libnvinfer.so.10", "libnvonnxparser.so.10", "libnvinfer_plugin.so.10")
    ),
    Bindings(
        "tensorrt-cu13-bindings", "11.4.0.106", ("libnvinfer.so.11", "libnvonnxparser.so.11", "libnvinfer_plugin.so.11")
    ),
)

FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
    # C++ names that 8.6.1 asks for besides
    "_ZN11nvuffparser15createUffParserEv",
    "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
    "_ZN14nvcaffeparser117createCaffeParserEv",
    "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
)


def fetch(row: Bindings, cache: Path) -> Path:
    """Folder of the unpacked bindings for this Python; downloaded when it is not there."""
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"

    def fill(folder: Path) -> None:
        unpack(row.requirement, folder / "site")
        compile_stubs(row, folder / "stubs")

    return filled(cache / "bindings" / f"{row.package}-{row.version}-{tag}", fill)


def compile_stubs(row: Bindings, folder: Path) -> None:
    """One shared library per name; the first holds the functions, all returning NULL."""
    folder.mkdir()
    for index, library in enumerate(row.libraries):
        names = FUNCTIONS if index == 0 else (f"edgemed_stub_{index}",)
        source = folder / "stub.c"
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in names))
        cc = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library), str(source)]
        subprocess.run(cc, check=True)
    (folder / "stub.c").unlink()


PRELUDE = """
import ctypes, sys
from pathlib import Path
folder, libraries = Path(sys.argv[1]), sys.argv[2].split(",")
kept = [ctypes.CDLL(str(folder / "stubs" / name), mode=ctypes.RTLD_GLOBAL) for name in libraries]
sys.path.insert(0, str(folder / "site"))
import tensorrt_bindings as trt
"""

SURVEY = """
import inspect, json
def members(cls):
    return {name: (inspect.getdoc(inspect.getattr_static(cls, name)) or "").splitlines() for name in dir(cls)}
def properties(cls):
    return [name for name in dir(cls) if "property" in type(inspect.getattr_static(cls, name)).__name__]
found = {name: value for name, value in vars(trt).items() if inspect.isclass(value)}
classes = {name: members(value) for name, value in found.items()}
kinds = {name: properties(value) for name, value in found.items()}
enums = {name: sorted(value.__members__) for name, value in found.items() if hasattr(value, "__members__")}
names = sorted(vars(trt))
print(json.dumps({"version": trt.__version__, "names": names, "classes": classes, "properties": kinds, "enums": enums}))
"""


def run_over_stubs(row: Bindings, folder: Path, code: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Python code in a child process in which `trt` is the real module."""
    command = [sys.executable, "-c", PRELUDE + code, str(folder), ",".join(row.libraries)]
    return subprocess.run(command, check=check, capture_output=True, text=True)


def survey(row: Bindings, cache: Path) -> dict[str, Any]:
    """Version, module names, and per class its attributes with their docstrings, its properties and its members."""
    document: dict[str, Any] = json.loads(run_over_stubs(row, fetch(row, cache), SURVEY).stdout)
    return document


def survey_rtx() -> dict[str, Any]:
    """The same of tensorrt_rtx, which needs no stubs."""
    command = [sys.executable, "-c", "import tensorrt_rtx as trt\n" + SURVEY]
    document: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return document


if __name__ == "__main__":
    for wanted in ROWS:
        if wanted.unsupported:
            sys.stderr.write(f"skipped: {wanted.unsupported}\n")
        else:
            fetch(wanted, cache_dir())
