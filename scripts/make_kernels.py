"""Compile the preprocessing kernels ahead: edgemed/runtime/kernels/prepare.cu to PTX, by the NVRTC of a pinned wheel.

CUDA 12.0 is the oldest 12.x: its PTX ISA is 8.0, and the drivers of JetPack 6 (CUDA 12.2 and later) take up to 8.2 at
least. `compute_80` is below every GPU that edgemed serves on JetPack 6 and 7; the driver compiles the rest for its own.
Nothing is installed: wheels are unpacked into the cache (`scripts/wheels.py`).
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

from edgemed.runtime.kernels.device import PTX, SOURCE
from scripts.wheels import cache_dir, filled, unpack

NVRTC = ("nvidia-cuda-nvrtc-cu12", "12.0.140")
ASSEMBLER = ("nvidia-cuda-nvcc-cu12", "12.0.140")  # ptxas as old as the compiler
NEW_ASSEMBLER = ("nvidia-cuda-nvcc", "13.0.88")  # knows Thor
OPTIONS = ("--gpu-architecture=compute_80", "--fmad=false")


def unsupported() -> str | None:
    """Why the wheels do not run here, or `None`."""
    if sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64"):
        return None
    return f"NVIDIA's wheels used here are for Linux, this is {sys.platform} {platform.machine()}"


def fetch(package: str, version: str, cache: Path) -> Path:
    """Folder of an unpacked wheel; downloaded when it is not there."""
    return filled(cache / "nvidia" / f"{package}-{version}", partial(unpack, f"{package}=={version}"))


def find(folder: Path, name: str) -> Path:
    """A file of an unpacked wheel."""
    return next(path for path in sorted(folder.rglob(name)) if path.is_file())


def header(source: bytes) -> str:
    """What stands in front of the PTX: what it was made of, and how."""
    return (
        f"// {SOURCE.name} sha256 {hashlib.sha256(source).hexdigest()}\n"
        f"// {NVRTC[0]} {NVRTC[1]} {' '.join(OPTIONS)}; written by scripts/make_kernels.py\n"
    )


def compile_ptx(source: bytes, cache: Path) -> str:
    """The PTX of the kernels, with its header.

    NVRTC works in a process of its own: it sets the locale of the whole process, and leaves it so.

    Raises:
        RuntimeError: NVRTC refuses the source; the message is its log.
    """
    library = find(fetch(*NVRTC, cache), "libnvrtc.so.12")
    command = [sys.executable, "-m", "scripts.make_kernels", "--compile", str(library)]
    done = subprocess.run(command, input=source, capture_output=True, check=False, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    return header(source) + done.stdout.decode()


def _compile_here(path: str, source: bytes) -> int:
    """PTX to stdout, or the compiler's log to stderr."""
    library = ctypes.CDLL(path)
    program = ctypes.c_void_p()
    options = (ctypes.c_char_p * len(OPTIONS))(*(option.encode() for option in OPTIONS))
    library.nvrtcCreateProgram(ctypes.byref(program), source, SOURCE.name.encode(), 0, None, None)
    failed = int(library.nvrtcCompileProgram(program, len(OPTIONS), options))
    log, ptx = (_text(library, program, what) for what in ("ProgramLog", "PTX"))
    library.nvrtcDestroyProgram(ctypes.byref(program))
    (sys.stderr if failed else sys.stdout).buffer.write((log if failed else ptx).encode())
    return failed


def _text(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(max(1, size.value))
    getattr(library, f"nvrtcGet{what}")(program, buffer)
    return buffer.value.decode()


def main() -> None:
    """Write the PTX beside its source; with `--fetch`, only fetch what that and its tests take."""
    if sys.argv[1:] == ["--fetch"]:
        if reason := unsupported():
            sys.stderr.write(f"skipped: {reason}\n")
            return
        for package, version in (NVRTC, ASSEMBLER, NEW_ASSEMBLER):
            fetch(package, version, cache_dir())
        return
    if sys.argv[1:2] == ["--compile"]:
        sys.exit(_compile_here(sys.argv[2], sys.stdin.buffer.read()))
    PTX.write_text(compile_ptx(SOURCE.read_bytes(), cache_dir()), encoding="utf-8")
    print(PTX.relative_to(Path.cwd()) if PTX.is_relative_to(Path.cwd()) else PTX)


if __name__ == "__main__":
    main()
