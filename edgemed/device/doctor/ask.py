"""Questions that run foreign code (a driver, a binding), asked in a child process: it may crash or hang, we do not."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, Final, Literal

_PATIENCE_S: Final = 60  # a first import of TensorRT from a cold SD card takes seconds
_MOST_TEXT: Final = 400
_MARK: Final = "edgemed-answer:"
# isolated, so that neither the working folder nor variables choose what is imported: the path is this process's own
_PRELUDE: Final = f"""
import json, sys
sys.path[:] = json.loads(sys.argv[1])
def answer(**facts):
    print("{_MARK}" + json.dumps(facts), flush=True)
"""

GPU: Final = """
from edgemed.device.gpu import detect_gpu, driver_cuda
gpu = detect_gpu()
answer(cuda=driver_cuda(), name=gpu and gpu.name, compute_capability=gpu and gpu.compute_capability)
"""
TENSORRT: Final = "import tensorrt; answer(version=str(tensorrt.__version__))"
PYCUDA: Final = """
import pycuda, pycuda.driver as driver
answer(version=pycuda.VERSION_TEXT, built=".".join(map(str, driver.get_version()[:2])))
driver.init()
answer(version=pycuda.VERSION_TEXT, built=".".join(map(str, driver.get_version()[:2])), devices=driver.Device.count())
"""


@dataclass(frozen=True)
class Answer:
    """What became of a question. `facts` may be there in part where it failed later on."""

    state: Literal["absent", "works", "fails"]
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def text(self, name: str) -> str | None:
        """A fact that is a text; None where it is missing or something else."""
        value = self.facts.get(name)
        return value if isinstance(value, str) else None


ABSENT: Final = Answer("absent")


def ask_module(module: str, code: str, *, patience_s: float = _PATIENCE_S) -> Answer:
    """Ask a package of Python; `absent` where there is none, which is looked up without importing it."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    return ABSENT if found is None else ask(code, patience_s=patience_s)


def ask(code: str, *, patience_s: float = _PATIENCE_S) -> Answer:
    """Run `code` in a fresh interpreter with this one's path; its last `answer(...)` counts."""
    path = json.dumps([entry for entry in sys.path if entry])
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-c", _PRELUDE + code, path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        return Answer("fails", error=f"no child process could be started: {error.strerror}")
    try:
        out, err = child.communicate(timeout=patience_s)
    except subprocess.TimeoutExpired:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the driver: it stays behind, we go on
            child.communicate(timeout=5)
        return Answer("fails", error=f"it did not answer within {patience_s:g} s")
    facts = _facts(out.decode(errors="replace"))
    if child.returncode == 0 and facts:
        return Answer("works", facts)
    return Answer("fails", facts, _reason(child.returncode, err.decode(errors="replace")))


def version_of(*distributions: str) -> str | None:
    """Version of the first of these distributions that is installed, from its metadata."""
    for name in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def _facts(output: str) -> dict[str, Any]:
    answers = [line.removeprefix(_MARK) for line in output.splitlines() if line.startswith(_MARK)]
    try:
        facts = json.loads(answers[-1]) if answers else {}
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _reason(code: int, errors: str) -> str:
    """The last line of a traceback, or the signal that ended it."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"it crashed ({signal.Signals(-code).name})"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1][:_MOST_TEXT] if lines else f"it ended with code {code} and said nothing"
