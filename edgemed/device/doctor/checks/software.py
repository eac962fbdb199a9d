"""CUDA, TensorRT, pycuda and ONNX Runtime: installed, of one generation, and able to start."""

from __future__ import annotations

from typing import Final

from edgemed.device.doctor.ask import Answer
from edgemed.device.doctor.diagnosis import Facts, Line, note, ok, unknown, wrong
from edgemed.device.doctor.scene import FIRST_TENSORRT, Live, Scene, agree, numbers

_NVINFER: Final = ("libnvinfer11", "libnvinfer10", "libnvinfer8")
_BINDINGS: Final = "python3-libnvinfer"
_OTHER_ROOT: Final = "The software of another root cannot be asked."
_NO_GPU: Final = "No NVIDIA GPU here that it could run on."
_TOO_OLD: Final = "Not on this JetPack: see `jetpack`."
_RUNTIME: Final = "In a container, run it with `--runtime nvidia`"


def cuda(scene: Scene) -> Line:
    """The driver's CUDA against JetPack's and against the toolkit that is installed."""
    if scene.live is None:
        return unknown("cuda", _OTHER_ROOT)
    driver, toolkit = scene.live.driver, _toolkit(scene)
    speaks = driver.text("cuda")
    facts: Facts = {"driver_cuda": speaks, "toolkit": toolkit}
    if driver.state == "fails":
        return wrong("cuda", f"The CUDA driver cannot be asked: {driver.error}.", "Restart the machine.", facts=facts)
    if speaks is None:
        return _no_driver(scene, facts)
    if scene.gpu is None:
        remedy = "See `devices` below; after an upgrade of the driver, restart the machine."
        return wrong("cuda", f"The CUDA {speaks} driver finds no GPU.", remedy, facts=facts)
    if scene.row is not None and numbers(speaks) < numbers(scene.row.cuda) and not agree(speaks, scene.row.cuda):
        found = f"The driver speaks CUDA {speaks}, but this JetPack brings {scene.row.cuda}."
        return wrong("cuda", found, "Finish the upgrade: sudo apt full-upgrade, then restart.", facts=facts)
    if toolkit is not None and numbers(toolkit)[:1] > numbers(speaks)[:1]:
        found = f"The toolkit is CUDA {toolkit}, the driver only speaks {speaks}: what is compiled here will not load."
        remedy = f"Compile with a toolkit of CUDA {numbers(speaks)[0]}: PATH=/usr/local/cuda-{speaks}/bin:$PATH"
        return wrong("cuda", found, remedy, facts=facts)
    beside = f"toolkit {toolkit}" if toolkit else "no toolkit"
    return ok("cuda", f"driver speaks CUDA {speaks}, {beside}", facts=facts)


def tensorrt(scene: Scene) -> Line:
    """TensorRT's library against its Python bindings, and whether this Python can import them."""
    if scene.live is None:
        return unknown("tensorrt", _OTHER_ROOT)
    if scene.too_old:
        return unknown("tensorrt", _TOO_OLD)
    library, answer = scene.package(*_NVINFER), scene.live.tensorrt
    facts: Facts = {
        "library": library[1] if library else None,
        "bindings": answer.text("version"),
        "tensorrt_rtx": scene.live.tensorrt_rtx,
    }
    if answer.state == "absent":
        return _no_bindings(scene, scene.live, library, facts)
    if answer.state == "fails":
        found = f"TensorRT's bindings cannot be imported: {answer.error}."
        return wrong("tensorrt", found, _import_remedy(answer.error), facts=facts)
    return _bindings(scene, answer.text("version") or "?", library, facts)


def pycuda(scene: Scene) -> Line:
    """pycuda: there, made for this driver, and able to see a GPU; asked in a process of its own."""
    if scene.live is None:
        return unknown("pycuda", _OTHER_ROOT)
    if scene.too_old:
        return unknown("pycuda", _TOO_OLD)
    answer, speaks = scene.live.pycuda, scene.live.driver.text("cuda")
    built = answer.text("built")
    facts: Facts = {"version": answer.text("version"), "built_for_cuda": built, "driver_cuda": speaks}
    if answer.state == "absent":
        if not scene.has_gpu:
            return unknown("pycuda", _NO_GPU, facts=facts)
        return wrong(
            "pycuda",
            "pycuda is not installed: TensorRT engines cannot be run.",
            "Install it: PATH=/usr/local/cuda/bin:$PATH pip install 'pycuda>=2025.1.2'",
            facts=facts,
        )
    if answer.state == "works":
        devices = answer.facts.get("devices")
        return ok("pycuda", f"pycuda {facts['version']}, made with CUDA {built}, sees {devices} GPU(s)", facts=facts)
    if not scene.has_gpu and speaks is None:
        return unknown("pycuda", f"{_NO_GPU} It says: {answer.error}.", facts=facts)
    return wrong("pycuda", f"pycuda cannot start: {answer.error}.", _pycuda_remedy(answer, speaks), facts=facts)


def onnxruntime(scene: Scene) -> Line:
    """ONNX Runtime, which runs the golden vectors, `edgemed run`, and the fall-back on the CPU."""
    if scene.live is None:
        return unknown("onnxruntime", _OTHER_ROOT)
    version = scene.live.onnxruntime
    if version is None:
        return note(
            "onnxruntime",
            "ONNX Runtime is not installed: `edgemed run`, `verify` and the CPU fall-back need it.",
            "Install it: pip install 'edgemed[serve]'",
        )
    return ok("onnxruntime", f"ONNX Runtime {version}", facts={"version": version})


def _no_driver(scene: Scene, facts: Facts) -> Line:
    if scene.board is None:
        found = "There is no CUDA driver (libcuda.so.1)."
        return unknown("cuda", found, "It comes with the GPU's driver.", facts=facts)
    return wrong(
        "cuda",
        "There is no CUDA driver (libcuda.so.1), although this is a Jetson.",
        f"{_RUNTIME}; on the board: sudo apt install --reinstall nvidia-l4t-cuda",
        facts=facts,
    )


def _toolkit(scene: Scene) -> str | None:
    """Version of the toolkit under /usr/local/cuda; its file is JSON since CUDA 11."""
    text = scene.tree.text("usr/local/cuda/version.json") or ""
    _, found, rest = text.partition('"cuda"')
    number = rest.partition('"version"')[2].partition('"')[2].partition('"')[0] if found else ""
    return ".".join(map(str, numbers(number))) or None


def _no_bindings(scene: Scene, live: Live, library: tuple[str, str] | None, facts: Facts) -> Line:
    if not scene.has_gpu:
        return unknown("tensorrt", _NO_GPU, facts=facts)
    if scene.board is None:
        if live.tensorrt_rtx is not None:
            return ok("tensorrt", f"TensorRT-RTX {live.tensorrt_rtx}; no TensorRT", facts=facts)
        remedy = "Install one: pip install 'edgemed[tensorrt]' or pip install 'edgemed[rtx]'"
        return wrong("tensorrt", "Neither tensorrt nor tensorrt_rtx is installed.", remedy, facts=facts)
    if library is None:
        remedy = "Install JetPack's: sudo apt install nvidia-jetpack"
        return wrong("tensorrt", "TensorRT is not installed.", remedy, facts=facts)
    if _BINDINGS not in scene.packages:
        return wrong(
            "tensorrt",
            f"TensorRT {library[1]} is installed, its Python bindings are not.",
            f"Install them: sudo apt install {_BINDINGS}",
            facts=facts,
        )
    why = (
        "this virtual environment hides them"
        if not live.python.sees_system
        else f"this is Python {live.python.version}, they may be made for another"
    )
    return wrong(
        "tensorrt",
        f"TensorRT {library[1]} and its Python bindings are installed, but cannot be seen: {why}.",
        "Make the environment with the system's Python: python3 -m venv --system-site-packages venv",
        facts=facts,
    )


def _bindings(scene: Scene, version: str, library: tuple[str, str] | None, facts: Facts) -> Line:
    if library is not None and not agree(version, library[1]):
        return wrong(
            "tensorrt",
            f"The bindings are TensorRT {version}, the library of {library[0]} is {library[1]}.",
            "Remove the wheel that hides JetPack's bindings: pip uninstall tensorrt tensorrt-cu12 tensorrt-cu13",
            facts=facts,
        )
    if numbers(version) < FIRST_TENSORRT:
        return wrong("tensorrt", f"TensorRT {version} is older than 8.6.", "Install a newer one.", facts=facts)
    if scene.row is not None and not agree(version, scene.row.tensorrt):
        return note(
            "tensorrt",
            f"TensorRT {version}, where this JetPack brings {scene.row.tensorrt}.",
            "Engines are keyed by TensorRT's version: build them with the one that shall run them.",
            facts=facts,
        )
    return ok("tensorrt", f"TensorRT {version}", facts=facts)


def _import_remedy(error: str) -> str:
    if "libnvdla_compiler" in error:
        return f"{_RUNTIME}; on the board: sudo apt install nvidia-l4t-dla-compiler"
    if "libcuda.so" in error:
        return f"{_RUNTIME}; on the board: sudo apt install --reinstall nvidia-l4t-cuda"
    return "Reinstall it (on a Jetson: sudo apt install --reinstall python3-libnvinfer libnvinfer10)."


def _pycuda_remedy(answer: Answer, speaks: str | None) -> str:
    rebuild = "PATH=/usr/local/cuda/bin:$PATH pip install --force-reinstall --no-cache-dir --no-binary pycuda pycuda"
    built = answer.text("built")
    if "undefined symbol" in answer.error or (built and speaks and numbers(built) > numbers(speaks)):
        return f"It was made with a newer CUDA than the driver speaks ({speaks or '?'}): {rebuild}"
    if "libcuda.so" in answer.error:
        return f"{_RUNTIME}; on the board: sudo apt install --reinstall nvidia-l4t-cuda"
    if "cuInit" in answer.error:
        return "The driver is there, but gives no GPU: see `devices` below."
    return f"Build it anew here: {rebuild}"
