"""All that the checks see: files under one root, and what only the running system can answer."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgemed.base.state import state_dir
from edgemed.device.board import Board, detect_board
from edgemed.device.doctor.ask import ABSENT, GPU, PYCUDA, TENSORRT, Answer, ask, ask_module, version_of
from edgemed.device.gpu import Gpu
from edgemed.device.packages import installed_packages, upstream
from edgemed.device.profile import DeviceProfile, SoftwareRow, shipped_profiles
from edgemed.device.sysfs import Tree

FIRST_PYTHON: Final = (3, 10)
FIRST_TENSORRT: Final = (8, 6)
_CONTAINER_MARKS: Final = (".dockerenv", "run/.containerenv")


@dataclass(frozen=True)
class User:
    """Who runs this process, and the groups that it is in now."""

    uid: int
    gids: frozenset[int]


@dataclass(frozen=True)
class Python:
    """This interpreter; `sees_system` is False in a virtual environment that hides Debian's packages."""

    version: str
    in_venv: bool = False
    sees_system: bool = True


@dataclass(frozen=True)
class Room:
    """Where state is kept: bytes that are free there, and whether this user may write."""

    path: Path
    free: int | None
    writable: bool


@dataclass(frozen=True)
class Live:
    """What only the running system can answer; there is none of it for another root."""

    user: User
    python: Python
    room: Room
    driver: Answer = ABSENT
    tensorrt: Answer = ABSENT
    pycuda: Answer = ABSENT
    onnxruntime: str | None = None
    tensorrt_rtx: str | None = None

    @property
    def gpu(self) -> Gpu | None:
        """The GPU that the driver names first."""
        name, capability = self.driver.text("name"), self.driver.text("compute_capability")
        return None if name is None or capability is None else Gpu(name, capability)


@dataclass(frozen=True)
class BundleNeeds:
    """What a bundle asks of a machine. `graphs` gives opset and bytes of each graph that it could be built from."""

    name: str
    digest: str
    precision: str
    graphs: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Scene:
    """One machine as the checks see it."""

    tree: Tree
    board: Board | None
    packages: Mapping[str, str] = field(default_factory=dict)
    live: Live | None = None
    bundle: BundleNeeds | None = None

    @property
    def gpu(self) -> Gpu | None:
        """The GPU, where the driver could be asked."""
        return self.live.gpu if self.live is not None else None

    @property
    def profile(self) -> DeviceProfile | None:
        """The board's profile, else that of the desktop GPUs of this compute capability."""
        if self.board is not None:
            return self.board.profile
        capability = self.gpu.compute_capability if self.gpu is not None else None
        desktop = (p for p in shipped_profiles() if p.kind == "desktop" and p.compute_capability == capability)
        return next(desktop, None)

    @property
    def compute_capability(self) -> str | None:
        """As the driver says, else as the board's SoC has it."""
        if self.gpu is not None:
            return self.gpu.compute_capability
        return self.board.compute_capability if self.board is not None else None

    @property
    def name(self) -> str:
        """The name that engines are kept under."""
        if self.board is not None:
            return self.board.id
        return self.gpu.name if self.gpu is not None else "unknown"

    @property
    def row(self) -> SoftwareRow | None:
        """What this JetPack brings, as the profile knows it."""
        if self.board is None or self.board.profile is None:
            return None
        rows = self.board.profile.software
        named = [row for row in rows if self.board.jetpack in row.jetpack]
        return next(iter(named or [row for row in rows if self.board.l4t in row.l4t]), None)

    @property
    def too_old(self) -> bool:
        """Whether this JetPack's Python or TensorRT is older than edgemed runs on."""
        row = self.row
        return row is not None and (numbers(row.python) < FIRST_PYTHON or numbers(row.tensorrt) < FIRST_TENSORRT)

    @property
    def in_container(self) -> bool:
        """Whether this is the inside of a container, where parts of the board are not to be seen."""
        return any(self.tree.exists(mark) for mark in _CONTAINER_MARKS)

    @property
    def has_gpu(self) -> bool:
        """Whether there should be a GPU: a Jetson's own, or one that the driver names."""
        return self.board is not None or self.gpu is not None

    def package(self, *names: str) -> tuple[str, str] | None:
        """Name and leading version of the first of these packages that is installed."""
        found = ((name, upstream(self.packages.get(name))) for name in names)
        return next(((name, version) for name, version in found if version is not None), None)


def look(root: Path = Path("/"), bundle: BundleNeeds | None = None) -> Scene:
    """Gather everything once. Of another root than `/` only files are read: this process is none of its own."""
    tree = Tree(root)
    live = _look_alive() if tree.is_this_machine else None
    return Scene(tree, detect_board(tree), installed_packages(tree), live, bundle)


def numbers(version: str) -> tuple[int, ...]:
    """`10.3.0.30` as numbers; what does not begin with any is empty."""
    leading = upstream(version)
    return tuple(int(part) for part in leading.split(".")) if leading else ()


def agree(one: str, other: str) -> bool:
    """Whether two versions are the same as far as both go: `10.3.0` and `10.3.0.30` are."""
    pairs = list(zip(numbers(one), numbers(other), strict=False))
    return bool(pairs) and all(a == b for a, b in pairs)


def _look_alive() -> Live:
    return Live(
        user=User(os.geteuid(), frozenset({*os.getgroups(), os.getegid()})),
        python=_python(),
        room=_room(state_dir()),
        driver=ask(GPU),
        tensorrt=ask_module("tensorrt", TENSORRT),
        pycuda=ask_module("pycuda", PYCUDA),
        onnxruntime=version_of("onnxruntime", "onnxruntime-gpu"),
        tensorrt_rtx=version_of("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
    )


def _python() -> Python:
    in_venv = sys.prefix != sys.base_prefix
    config = Tree(Path(sys.prefix)).text("pyvenv.cfg") or ""
    hides = in_venv and "include-system-site-packages = true" not in config.lower()
    return Python(f"{sys.version_info[0]}.{sys.version_info[1]}", in_venv, not hides)


def _room(path: Path) -> Room:
    """Free space and rights of the nearest folder that exists: state is made when it is first needed."""
    there = next((folder for folder in (path, *path.parents) if folder.is_dir()), Path("/"))
    try:
        free = shutil.disk_usage(there).free
    except OSError:
        free = None
    return Room(path, free, os.access(there, os.W_OK | os.X_OK))


def group_name(tree: Tree, gid: int) -> str:
    """Name of a group in that root's own list, else its number."""
    for line in (tree.text("etc/group") or "").splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2] == str(gid):
            return fields[0]
    return str(gid)
