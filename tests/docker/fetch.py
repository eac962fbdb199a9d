"""What the rehearsal of `docker/jetson` needs, kept by key in the cache: Debian packages for a small root, and wheels.

No container engine runs in CI. The final stage of the images is rehearsed instead in a root made of Debian's packages
(of the host's release; the images are Ubuntu), with the very scripts that the Dockerfiles run. Run as a module
(`make test` does) it fills the cache (`scripts/wheels.py`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.wheels import cache_dir, filled

REPO = Path(__file__).resolve().parents[2]
SCRIPTS = REPO / "docker" / "jetson"
HERE = REPO / "tests" / "docker"
CACHE = cache_dir() / "rehearsal"  # now: a fixture moves XDG_CACHE_HOME to a private place later
PYTHON = (3, 11)  # Debian 12's, for which `constraints-py311.txt` is made
# what every Ubuntu or CUDA image has, and python3
RUNTIME = (
    "python3",
    "dash",
    "coreutils",
    "grep",
    "sed",
    "libc-bin",
    "libstdc++6",
    "passwd",
    "util-linux",
    "base-passwd",
)
# what the stage that installs has besides
ASSEMBLY = ("python3-venv",)


@dataclass(frozen=True)
class Board:
    """Pins of one image: the file, and what uv calls the Ubuntu that they are for."""

    pins: str
    python: str
    platform: str


BOARDS = (
    Board("docker/jetson/constraints-py310.txt", "3.10", "aarch64-manylinux_2_35"),
    Board("docker/jetson/build-py310.txt", "3.10", "aarch64-manylinux_2_35"),
    Board("docker/jetson/constraints-py312.txt", "3.12", "aarch64-manylinux_2_39"),
    Board("docker/jetson/build-py312.txt", "3.12", "aarch64-manylinux_2_39"),
)


def unsupported() -> str | None:
    """Why nothing can be rehearsed on this machine, or None."""
    if missing := [tool for tool in ("apt-get", "dpkg-deb", "unshare", "chroot", "mount") if not shutil.which(tool)]:
        return f"this machine lacks {', '.join(missing)}"
    return None


def other_python() -> str | None:
    """Why this interpreter cannot fetch the wheels, or None."""
    if sys.version_info[:2] == PYTHON:
        return None
    return f"its wheels are pinned for Python 3.11, Debian 12's; this is {sys.version_info[0]}.{sys.version_info[1]}"


def kept(kind: str, fill: Callable[[Path], None], *sources: str | Path) -> Path:
    """Folder of the cache for these sources (texts, or files by their content), filled when it is not there."""
    texts = [source.read_bytes() if isinstance(source, Path) else source.encode() for source in sources]
    digest = hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]
    return filled(CACHE / f"{kind}-{digest}", fill)


def packages() -> Path:
    """Folder with `runtime/*.deb` and `assembly/*.deb`: the closures, as if nothing were installed."""
    release = Path("/etc/os-release").read_text(encoding="utf-8")
    return kept("packages", _download_packages, release, *RUNTIME, "|", *ASSEMBLY)


def wheels() -> Path:
    """Folder with `wheels/`, fetched by the images' own script, and `tools/`, which builds edgemed's wheel."""
    tools, pins, script = HERE / "build-py311.txt", HERE / "constraints-py311.txt", SCRIPTS / "fetch.sh"

    def fill(folder: Path) -> None:
        command = [str(script), str(tools), str(pins), str(folder / "tools"), str(folder / "wheels")]
        subprocess.run(command, check=True, env={**os.environ, "PYTHON": sys.executable})

    return kept("wheels", fill, tools, pins, script)


def resolution(board: Board) -> str:
    """What uv says of a board's pins: one line for each that it would install there, from wheels, held to hashes.

    Asks the index for metadata only. The answer is kept by the content of the file.

    Raises:
        CalledProcessError: a pin has no wheel for that Python and platform; stderr says which.
    """
    pins = REPO / board.pins

    def fill(folder: Path) -> None:
        command = [Path(sys.executable).with_name("uv"), "pip", "install", "--dry-run", "--no-deps", "--require-hashes"]
        command += ["--only-binary", ":all:", "--python-version", board.python, "--python-platform", board.platform]
        command += ["--target", folder / "nothing", "--requirement", pins]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        done.check_returncode()
        (folder / "said.txt").write_text(done.stderr, encoding="utf-8")

    folder = kept(f"resolution-{pins.stem}", fill, pins, board.python, board.platform)
    return (folder / "said.txt").read_text(encoding="utf-8")


def _download_packages(folder: Path) -> None:
    try:
        _apt_download(folder)
    except subprocess.CalledProcessError:  # no lists yet, or old ones
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        _apt_download(folder)


def _apt_download(folder: Path) -> None:
    for name, wanted in (("assembly", (*RUNTIME, *ASSEMBLY)), ("runtime", RUNTIME)):
        (folder / name / "partial").mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        options = [
            f"Dir::State::status={folder}/status",
            f"Dir::Cache::archives={folder / name}/",
            "Debug::NoLocking=1",
            "APT::Sandbox::User=root",
        ]
        command = ["apt-get", "-qq", "--yes", "--no-install-recommends", "--download-only"]
        command += [part for option in options for part in ("-o", option)]
        subprocess.run([*command, "install", *wanted], check=True, capture_output=True)


if __name__ == "__main__":
    if reason := unsupported() or other_python():
        sys.stderr.write(f"The images of docker/jetson are not rehearsed: {reason}.\n")
    else:
        packages()
        wheels()
    for row in BOARDS:
        resolution(row)
