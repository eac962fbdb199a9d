"""May this user open the GPU and the cameras? Asked of modes and groups: no device is opened."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from typing import Final

from edgemed.device.doctor.diagnosis import Facts, Line, note, ok, unknown, wrong
from edgemed.device.doctor.scene import Scene, User, group_name

# what CUDA opens: nvmap and nvhost up to L4T 35, nvgpu from 36 on, nvidia* on Thor and on discrete GPUs
_GPU: Final = re.compile(r"nvmap|nvhost-(ctrl|ctrl-gpu|as-gpu|gpu)|nvidia\d+|nvidiactl|nvidia-uvm|host1x-fence")
_NVGPU: Final = "dev/nvgpu/igpu0"
_NVGPU_NODES: Final = ("as", "channel", "ctrl", "power")
_RENDER: Final = re.compile(r"renderD\d+")
_CAMERA: Final = re.compile(r"video\d+")
_MOST_NAMED: Final = 6
_READ, _WRITE = 4, 2


def devices(scene: Scene) -> Line:
    """Device nodes of the GPU: there, and open to this user; cameras likewise."""
    if scene.live is None:
        return unknown("devices", "The rights of another root's users cannot be asked.")
    nodes, cameras = tuple(_gpu_nodes(scene)), tuple(_matching(scene, "dev", _CAMERA))
    if not nodes:
        return _no_nodes(scene)
    user = scene.live.user
    closed = [path for path in nodes if not _may_open(scene, path, user)]
    closed_cameras = [path for path in cameras if not _may_open(scene, path, user)]
    facts: Facts = {
        "gpu_nodes": tuple(f"/{path}" for path in nodes),
        "cameras": tuple(f"/{path}" for path in cameras),
        "closed": tuple(f"/{path}" for path in (*closed, *closed_cameras)),
    }
    if closed and scene.gpu is None:
        return wrong("devices", f"This user may not open {_named(closed)}.", _remedy(scene, closed), facts=facts)
    if closed:  # which of them CUDA needs depends on its release; it got the GPU
        found = f"CUDA works for this user, although {_named(closed)} may not be opened."
        return note("devices", found, _remedy(scene, closed), facts=facts)
    if closed_cameras:
        return note(
            "devices",
            f"The GPU is open to this user, {_named(closed_cameras)} is not.",
            _remedy(scene, closed_cameras),
            facts=facts,
        )
    also = f" and {len(cameras)} video device(s)" if cameras else ""
    return ok("devices", f"{len(nodes)} node(s) of the GPU{also} are open to this user", facts=facts)


def _no_nodes(scene: Scene) -> Line:
    if not scene.has_gpu:
        return unknown("devices", "There are no device nodes of an NVIDIA GPU.")
    if scene.in_container:
        remedy = "Run the container with `--runtime nvidia` (and NVIDIA_VISIBLE_DEVICES=all)."
        return wrong("devices", "The container has no device nodes of the GPU.", remedy)
    return wrong(
        "devices",
        "There are no device nodes of the GPU (/dev/nvmap, /dev/nvhost*, /dev/nvgpu, /dev/nvidia*).",
        "Look for the driver's errors with: sudo dmesg | grep -iE 'nvgpu|nvidia'",
    )


def _gpu_nodes(scene: Scene) -> Iterator[str]:
    yield from _matching(scene, "dev", _GPU)
    yield from (f"{_NVGPU}/{name}" for name in scene.tree.names(_NVGPU) if name in _NVGPU_NODES)
    yield from _matching(scene, "dev/dri", _RENDER)


def _matching(scene: Scene, folder: str, pattern: re.Pattern[str]) -> Iterator[str]:
    yield from (f"{folder}/{name}" for name in scene.tree.names(folder) if pattern.fullmatch(name))


def _may_open(scene: Scene, path: str, user: User) -> bool:
    """Whether mode, owner and group let the user read and write; a container's device rules are not seen."""
    status = scene.tree.stat(path)
    if status is None:
        return False
    if user.uid == 0:
        return True
    shift = 6 if status.st_uid == user.uid else 3 if status.st_gid in user.gids else 0
    return stat.S_IMODE(status.st_mode) >> shift & (_READ | _WRITE) == _READ | _WRITE


def _remedy(scene: Scene, closed: list[str]) -> str:
    gids = sorted({status.st_gid for path in closed if (status := scene.tree.stat(path)) is not None})
    groups = [group_name(scene.tree, gid) for gid in gids if gid != 0]
    if not groups:
        return "They belong to root alone: a udev rule must give them to the group video (docs/jetson.md has one)."
    if scene.in_container:
        return f"Give the container their groups: {' '.join(f'--group-add {gid}' for gid in gids if gid != 0)}"
    return f"Join their groups, then log out and in again: sudo usermod -aG {','.join(groups)} $USER"


def _named(paths: list[str]) -> str:
    names = [f"/{path}" for path in paths[:_MOST_NAMED]]
    more = len(paths) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
