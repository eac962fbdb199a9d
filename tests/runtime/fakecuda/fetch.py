"""Real pycuda without a GPU: its wheel, built once, over a `libcuda.so.1` of our own that runs on the host.

Run as a module (`make fakecuda`) it fills the cache (`scripts/wheels.py`).
In a test, ask for the fixture `fakecuda` of `tests/runtime/cuda_fixture.py`; in a child process:

    from tests.runtime.fakecuda import fetch
    fetch.ensure().activate()         # before anything imports pycuda
    import pycuda.driver

`activate` puts the unpacked wheel on `sys.path` and loads the shim; the loader then takes it for the driver, by its
soname. Nothing is installed into the virtual environment. Three things are cached, each under a key of all it is made
from: NVIDIA's headers, pycuda's wheel (two minutes), the shim with the stand-in kernels (seconds, at each change).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from scripts.wheels import cache_dir, filled

HERE = Path(__file__).resolve().parent
PYCUDA = "2026.1"
# the oldest headers of CUDA 12, so that the wheel asks for no name that a driver of JetPack 6 lacks
HEADERS = ("nvidia-cuda-runtime-cu12==12.0.107", "nvidia-cuda-profiler-api-cu12==12.0.76")
SOURCES = ("driver.c", "streams.c", "capture.c", "races.c", "control.c", "fakecuda.h", "twin.h", "fetch.py")
KERNELS = "standin.cu"
WARNINGS = ("-O2", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Werror")

# read by pycuda's setup.py, which compiles its 60 files one after the other unless told otherwise
SITECONF = """
CUDA_INC_DIR = [{include!r}]
CUDADRV_LIB_DIR = [{library!r}]
CUDA_ENABLE_CURAND = False
from distutils.ccompiler import CCompiler
def compile(self, sources, output_dir=None, macros=None, include_dirs=None, debug=0, extra_preargs=None,
            extra_postargs=None, depends=None):
    from concurrent.futures import ThreadPoolExecutor
    macros, objects, extra_postargs, pp_opts, build = self._setup_compile(
        output_dir, macros, include_dirs, sources, depends, extra_postargs)
    cc_args = self._get_cc_args(pp_opts, debug, extra_preargs)
    with ThreadPoolExecutor({jobs}) as pool:
        list(pool.map(lambda item: self._compile(item[0], *item[1], cc_args, extra_postargs, pp_opts), build.items()))
    return objects
CCompiler.compile = compile
del CCompiler, compile  # it refuses names that are no options
"""


@dataclass(frozen=True)
class FakeCuda:
    """What a test puts under pycuda."""

    site: Path
    library: Path
    kernels: Path

    def activate(self) -> ctypes.CDLL:
        """Make this process's `libcuda.so.1` the shim, and pycuda importable."""
        library = ctypes.CDLL(str(self.library), mode=ctypes.RTLD_GLOBAL)
        if str(self.site) not in sys.path:
            sys.path.insert(0, str(self.site))
        return library


def unsupported() -> str | None:
    """Why it cannot be built here, or None."""
    if sys.platform == "linux" and platform.machine() == "x86_64":
        return None
    return f"the host-only libcuda is for x86-64 Linux, this is {sys.platform} {platform.machine()}"


CACHE = cache_dir()  # now: fixtures move XDG_CACHE_HOME to a private place later


def ensure(cache: Path | None = None) -> FakeCuda:
    """Fetch and build what the cache lacks."""
    root = (cache or CACHE) / "fakecuda"
    include = headers(cache)
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    recipe = digest(PYCUDA, SITECONF, *HEADERS)
    site = filled(root / f"pycuda-{PYCUDA}-{tag}-{recipe}", lambda folder: build_pycuda(include, folder))
    sources = digest(*HEADERS, *((HERE / name).read_text() for name in (*SOURCES, KERNELS) if (HERE / name).is_file()))
    shim = filled(root / f"shim-{sources}", lambda folder: build_shim(include, folder))
    return FakeCuda(site, shim / "libcuda.so.1", shim / "libstandin.so")


def headers(cache: Path | None = None) -> Path:
    """Folder of NVIDIA's headers."""
    return filled((cache or CACHE) / "fakecuda" / f"headers-{digest(*HEADERS)}", fetch_headers)


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def fetch_headers(folder: Path) -> None:
    """`cuda.h` and `cudaProfiler.h` out of NVIDIA's wheels."""
    with tempfile.TemporaryDirectory() as scratch:
        pip("download", "--only-binary", ":all:", "--dest", scratch, *HEADERS)
        for wheel in Path(scratch).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.endswith((".h", ".hpp")) and "/include/" in name:
                        path = folder / name.partition("/include/")[2]
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(archive.read(name))


def build_pycuda(headers: Path, folder: Path) -> None:
    """Unpacked wheel of pycuda, linked against stubs that carry the driver's soname."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        pip("download", "--no-binary", "pycuda", "--dest", scratch, f"pycuda=={PYCUDA}")
        shutil.unpack_archive(next(work.glob("pycuda-*.tar.gz")), work)
        source = next(path for path in work.glob("pycuda-*") if path.is_dir())
        stubs = work / "stubs"
        stubs.mkdir()
        (stubs / "stubs.c").write_text(stub_source(headers))
        link(stubs / "libcuda.so", stubs / "stubs.c")
        jobs = len(os.sched_getaffinity(0))
        siteconf = SITECONF.format(include=str(headers), library=str(stubs), jobs=jobs)
        (source / "siteconf.py").write_text(siteconf)
        flags = {"CFLAGS": "-O1 -w", "CXXFLAGS": "-O1 -w"}
        pip("wheel", "--wheel-dir", scratch, str(source), env={**os.environ, **flags})
        pip("install", "--no-compile", "--target", str(folder), str(next(work.glob("pycuda-*.whl"))))


def build_shim(headers: Path, folder: Path) -> None:
    """`libcuda.so.1` and the stand-in kernels."""
    (folder / "stubs.c").write_text(stub_source(headers))
    sources = [HERE / name for name in SOURCES if name.endswith(".c")]
    link(folder / "libcuda.so.1", *sources, folder / "stubs.c", flags=(f"-I{headers}", f"-I{HERE}", *WARNINGS))
    compile_host_kernels(HERE / KERNELS, folder / "libstandin.so")


def compile_host_kernels(source: Path, target: Path, *flags: str) -> None:
    """Host twins of a file of kernels, for `fakecuda_kernels`."""
    cc = ["cc", "-x", "c", "-shared", "-fPIC", "-O2", "-Wall", f"-I{HERE}", *flags, "-o", str(target), str(source)]
    subprocess.run([*cc, "-lm"], check=True)


def stub_source(headers: Path) -> str:
    """C for a weak function per name of the driver API, all answering CUDA_ERROR_NOT_SUPPORTED; real ones override."""
    text = "".join((headers / name).read_text() for name in ("cuda.h", "cudaProfiler.h"))
    names = set(re.findall(r"\b(cu[A-Z]\w*)\s*\(", text))
    names |= set(re.findall(r"^\s*#define cu\w+\s+(?:__CUDA_API_P\w+\()?(cu[A-Z]\w*)", text, re.MULTILINE))
    lines = (f"__attribute__((weak)) int {name}(void) {{ return 801; }}" for name in sorted(names))
    return "\n".join(("#pragma GCC visibility push(default)", *lines, ""))


def link(target: Path, *sources: Path, flags: tuple[str, ...] = ()) -> None:
    command = [
        "cc",
        "-std=gnu11",
        "-shared",
        "-fPIC",
        "-pthread",
        "-fvisibility=hidden",
        *flags,
        "-Wl,-soname,libcuda.so.1",
    ]
    subprocess.run([*command, "-o", str(target), *map(str, sources), "-ldl"], check=True)


def pip(command: str, *arguments: str, env: dict[str, str] | None = None) -> None:
    """Quietly; what it said is shown when it fails."""
    line = [sys.executable, "-m", "pip", "--disable-pip-version-check", command, "--no-deps", *arguments]
    done = subprocess.run(line, env=env, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.stderr.write(done.stdout)
        raise SystemExit(f"pip {command} failed, see above")


if __name__ == "__main__":
    if reason := unsupported():
        sys.stderr.write(f"skipped: {reason}\n")
    else:
        ensure()
