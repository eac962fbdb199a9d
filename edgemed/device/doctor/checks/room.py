"""Memory, swap and disk. Sizes are judged by what is known to be needed, not by taste."""

from __future__ import annotations

from typing import Final

from edgemed.device.doctor.diagnosis import Facts, Line, note, ok, unknown, wrong
from edgemed.device.doctor.scene import BundleNeeds, Scene
from edgemed.device.memory import Memory, read_memory, read_swaps

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30
# a CUDA context and TensorRT's libraries take some hundred MiB before the first weight; below that nothing starts
_LEAST_MEMORY: Final = 512 * _MIB
# builders were killed on boards of up to 8 GB (NVIDIA/TensorRT 1404, tkDNN 193: 4 GB of swap was the cure)
_SMALL_BOARD: Final = 9 * 10**9
_BUILD_SWAP: Final = 4 * 10**9
_SWAPPING: Final = 0.9  # of swap in use, with little memory left: it is paging, not parking
_LEAST_DISK: Final = 64 * _MIB  # records and logs; an engine needs its own size, which is asked of the bundle


def memory(scene: Scene) -> Line:
    """What a new program could get, against what is needed at least."""
    here, needed = read_memory(scene.tree), _needed(scene.bundle)
    facts: Facts = {
        "total_bytes": here.total,
        "available_bytes": here.available,
        "container_limit_bytes": here.limit,
        "needed_at_least_bytes": needed,
    }
    if here.available is None:
        return unknown("memory", "/proc/meminfo does not say how much memory is available.", facts=facts)
    found = f"{_size(here.available)} available of {_size(here.total)}" + _limit(here)
    if here.available < needed:
        return wrong(
            "memory",
            f"{found}; at least {_size(needed)} are needed to run an engine.",
            "Close other programs; without a desktop (sudo systemctl set-default multi-user.target) there is more.",
            facts=facts,
        )
    if here.available < 2 * needed:
        return note(
            "memory",
            f"{found}: enough to start, and little to spare.",
            "Close other programs before you build an engine here.",
            facts=facts,
        )
    return ok("memory", found, facts=facts)


def swap(scene: Scene) -> Line:
    """Swap: enough to build on a small board, and not in heavy use."""
    here, areas = read_memory(scene.tree), read_swaps(scene.tree)
    if here.swap_total is None or here.swap_free is None:
        return unknown("swap", "/proc/meminfo does not tell of swap.")
    zram = sum(area.size for area in areas if area.is_zram)
    facts: Facts = {"total_bytes": here.swap_total, "free_bytes": here.swap_free, "zram_bytes": zram}
    used = here.swap_total - here.swap_free
    if here.swap_total and used > _SWAPPING * here.swap_total and (here.available or 0) < _LEAST_MEMORY:
        return wrong(
            "swap",
            f"{_size(used)} of {_size(here.swap_total)} swap are in use and memory is short: the board is paging.",
            "Close other programs: an inference that waits for a page misses every deadline.",
            facts=facts,
        )
    on_disk = here.swap_total - zram
    if scene.board is not None and (here.total or 0) < _SMALL_BOARD and on_disk < _BUILD_SWAP:
        what = f"only zram ({_size(zram)})" if zram and on_disk <= 0 else f"{_size(here.swap_total)}"
        return note(
            "swap",
            f"{what} of swap on a board of {_size(here.total)}: building an engine may be killed.",
            "Before a build add a swap file of 4 GB (docs/jetson.md); to run, none is needed.",
            facts=facts,
        )
    return ok("swap", f"{_size(here.swap_total)}, {_size(used)} in use", facts=facts)


def disk(scene: Scene) -> Line:
    """The place where engines are kept: writable, and room for one."""
    if scene.live is None:
        return unknown("disk", "The state folder of another root's user cannot be asked.")
    room = scene.live.room
    needed = _LEAST_DISK if scene.bundle is None else max(_LEAST_DISK, 2 * _largest(scene.bundle))
    facts: Facts = {"state_dir": str(room.path), "free_bytes": room.free, "needed_bytes": needed}
    if not room.writable:
        return wrong(
            "disk",
            f"This user may not write to {room.path}, where engines are kept.",
            "Set EDGEMED_STATE to a folder that can be written; in a container mount a volume there.",
            facts=facts,
        )
    if room.free is None:
        return unknown("disk", f"How much is free for {room.path} cannot be told.", facts=facts)
    if room.free < needed:
        return wrong(
            "disk",
            f"{_size(room.free)} are free for {room.path}, {_size(needed)} are needed.",
            "Free some space, or set EDGEMED_STATE to another disk.",
            facts=facts,
        )
    return ok("disk", f"{_size(room.free)} free for {room.path}", facts=facts)


def _needed(bundle: BundleNeeds | None) -> int:
    """Least memory: the context, and each weight twice (read from the file, and on the GPU, which shares memory)."""
    return _LEAST_MEMORY + (0 if bundle is None else 2 * _largest(bundle))


def _largest(bundle: BundleNeeds) -> int:
    return max((size for _, size in bundle.graphs.values()), default=0)


def _limit(here: Memory) -> str:
    return "" if here.limit is None else f" (this container: {_size(here.limit)})"


def _size(count: int | None) -> str:
    if count is None:
        return "?"
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"
