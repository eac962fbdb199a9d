"""What the slot ring costs and gains: `make bench-runtime`. No GPU: pycuda runs on the host-only libcuda of the tests.

1. Added host time: one slot, no delays. Processor time of the calling thread for a frame by ours, less that for a frame
   by the bare calls that ours ends in. (Wall time is shown too. In it, the shim's own threads compete for the cores.)
2. Throughput: copy in, computation and copy out of some milliseconds each, by ours with three slots and by two
   synchronous loops. The limit is the slowest of the three, by the shim's own trace of the same run.
3. A million frames through the ring on the null Runner: all accounted for, all right, memory flat.
4. Faults: a contained worker is broken 1000 times (`benchmarks/faults.py`).

The shim's operations sleep and copy; it has no kernels, no bus and no driver. So 1 is what Python adds to a frame, 2 is
what is scheduled at once: neither is a GPU's speed. Contestants run in turn, round by round; figures are medians.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runtime_loops import Bare, Ours, RunnerLoop, Textbook
from edgemed.base.runner import RunnerSpecs, TensorSpec
from edgemed.runners.null import NullRunner
from edgemed.runtime.cuda import Cuda, open_cuda
from edgemed.runtime.frames import Frame
from edgemed.runtime.ring import Ring
from edgemed.runtime.runner_lane import RunnerLane
from tests.runtime.fakecuda import handle
from tests.runtime.standin import StandIn

SIZE = 64  # a frame is float32 64×64: 16 KiB, so that copying it into the slot is not what is measured
STAGE_US = 5000
SKIPPED = 10  # frames at the beginning of a round that are not timed: the pipeline fills
OURS, BARE, TEXTBOOK, RUNNER = "edgemed ring", "bare calls", "synchronous loop", "Polygraphy-style runner"


def execution(cuda: Cuda) -> StandIn:
    """A stand-in engine: two kernels on one 64×64 frame."""
    return StandIn(cuda, rows=(SIZE, SIZE, SIZE), columns=SIZE)


def per_frame_us(outputs: Iterator[Mapping[str, np.ndarray]]) -> tuple[float, float]:
    """Wall and processor time of the calling thread between two frames, in µs, the first ones left out."""
    walls, cpu_ns, total = [], 0, 0.0
    for number, each in enumerate(outputs):
        total += float(each["sum"][0])  # whoever asks for answers reads them
        walls.append(time.perf_counter_ns())
        if number == SKIPPED:
            cpu_ns = time.thread_time_ns()
    assert np.isfinite(total)
    count = len(walls) - 1 - SKIPPED
    return (walls[-1] - walls[SKIPPED]) / count / 1e3, (time.thread_time_ns() - cpu_ns) / count / 1e3


def in_turn(contestants: Mapping[str, Any], rounds: int, frames: int) -> dict[str, list[tuple[float, float]]]:
    """Times of each contestant, one for each round."""
    rng = np.random.default_rng(1)
    feeds = {"x": rng.random((SIZE, SIZE), np.float32)}
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    gc.disable()
    try:
        for _ in range(rounds + 1):
            for name, contestant in contestants.items():
                found[name].append(per_frame_us(contestant.loop(feeds, frames)))
            gc.collect()
    finally:
        gc.enable()
    return {name: times[1:] for name, times in found.items()}


def median(times: list[tuple[float, float]], which: int = 0) -> float:
    return statistics.median(each[which] for each in times)


def added_time(cuda: Cuda, rounds: int, frames: int) -> float:
    """Part 1; prints its table."""
    with cores_apart() as meet:
        engines = [execution(cuda) for _ in range(4)]
        contestants = {
            OURS: Ours(cuda, engines[0], 1),
            BARE: Bare(cuda, engines[1], 1),
            TEXTBOOK: Textbook(cuda, engines[2]),
            RUNNER: RunnerLoop(cuda, engines[3]),
        }
        meet()
        found = in_turn(contestants, rounds, frames)
    print(f"\nOne slot, no delays, {rounds} rounds of {frames} frames; µs per frame\n")
    print("| | wall | of them on the processor, in the calling thread |\n| --- | --- | --- |")
    for name, times in found.items():
        print(f"| {name} | {median(times):.1f} | {median(times, 1):.1f} |")
    wall, processor = (
        statistics.median(ours[which] - bare[which] for ours, bare in zip(found[OURS], found[BARE], strict=True))
        for which in (0, 1)
    )
    print(f"\nAdded by ours to the bare calls: {processor:.1f} µs on the processor, {wall:.1f} µs of wall time")
    print("(medians of the rounds' differences).")
    _close(contestants, engines)
    return processor


@contextmanager
def cores_apart() -> Iterator[Callable[[], None]]:
    """Threads that begin inside have all cores but one; the calling thread has that one from the given call on."""
    cores = os.sched_getaffinity(0)
    mine = {min(cores)}
    try:
        os.sched_setaffinity(0, cores - mine or cores)
        yield lambda: os.sched_setaffinity(0, mine)
    finally:
        os.sched_setaffinity(0, cores)


def throughput(cuda: Cuda, fake: handle.FakeCudaHandle, rounds: int, frames: int) -> tuple[float, float]:
    """Part 2; prints its table. Gives ours against the faster synchronous loop, and as a share of the limit."""
    engines = [execution(cuda) for _ in range(5)]
    contestants = {
        OURS: Ours(cuda, engines[0], 3),
        f"{OURS}, four slots": Ours(cuda, engines[4], 4),
        BARE: Bare(cuda, engines[1], 3),
        TEXTBOOK: Textbook(cuda, engines[2]),
        RUNNER: RunnerLoop(cuda, engines[3]),
    }
    for kind in ("copy-in", "copy-out"):
        fake.delay(kind, us=STAGE_US)
    fake.delay("kernel", us=STAGE_US // 2)  # two kernels
    found = in_turn(contestants, rounds, frames)
    fake.set(trace=1)
    in_turn({OURS: contestants[OURS]}, 1, frames)
    stages = stage_times(fake)
    fake.set(trace=0)
    fake.delay()
    limit_us = max(stages.values())
    shown = ", ".join(f"{name} {us / 1e3:.2f}" for name, us in stages.items())
    print(f"\nThree slots, {STAGE_US / 1e3:.0f} ms for each stage, {rounds} rounds of {frames} frames.")
    print(f"By the trace the stages took, in ms: {shown}\n")
    print("| | frames/s | of the limit |\n| --- | --- | --- |")
    for name, times in found.items():
        print(f"| {name} | {1e6 / median(times):.1f} | {limit_us / median(times):.3f} |")
    _close(contestants, engines)
    ours, synchronous = median(found[OURS]), min(median(found[TEXTBOOK]), median(found[RUNNER]))
    return synchronous / ours, limit_us / ours


def stage_times(fake: handle.FakeCudaHandle) -> dict[str, float]:
    """Median time of each stage in µs; a computation is two kernels."""
    by_name: dict[str, list[int]] = defaultdict(list)
    for each in fake.trace():
        by_name[each.name].append(each.end_ns - each.start_ns)
    found = {name: statistics.median(by_name[name]) / 1e3 for name in ("copy-in", "kernel", "copy-out")}
    found["kernel"] *= 2
    return found


def _close(contestants: Mapping[str, Any], engines: list[StandIn]) -> None:
    for each in (*contestants.values(), *engines):
        each.close()


def many_frames(count: int) -> int:
    """Part 3; prints what came out. Gives the frames that are not accounted for, or wrong."""
    specs = RunnerSpecs((TensorSpec("x", "int64", (4,)),), (TensorSpec("y", "int64", (4,)),))
    numbers = np.zeros(4, np.int64)

    def frames(first: int, last: int) -> Iterator[Frame]:
        for number in range(first, last):
            numbers[:] = number
            yield Frame(number, {"x": numbers}, time.monotonic_ns())

    warm = max(count // 20, 1)
    seen = wrong = 0
    with Ring(RunnerLane(NullRunner(specs, lambda feeds: {"y": feeds["x"] + 1}), 3)) as ring:
        begin_ns, before = time.perf_counter_ns(), 0
        for first, last in ((0, warm), (warm, count)):
            before = _resident()
            for outcome in ring.run(frames(first, last)):
                seen += 1
                wrong += outcome.outputs["y"][0] != outcome.frame + 1
        took_s = (time.perf_counter_ns() - begin_ns) / 1e9
        counts = ring.counts()
    missing = count - seen + abs(counts.unaccounted) + counts.in_flight
    grown = (_resident() - before) / 1024
    print(
        f"\n{count:,} frames on the null Runner: {counts.answered:,} answered, {missing} unaccounted, {wrong} wrong, ",
        end="",
    )
    print(f"{1e6 * took_s / count:.1f} µs each, resident memory {grown:+.0f} KiB after the first {warm:,}")
    return missing + int(wrong)


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def after_faults(faults: int) -> tuple[int | None, int | None]:
    """Part 4: wrong answers and lost requests; none of both where it was not asked for."""
    if not faults:
        return None, None
    from benchmarks.faults import fault_campaign

    found = fault_campaign(faults)
    print(f"\n{faults} faults: {json.dumps(found)}")
    return found["wrong"], found["lost"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="of each contestant")
    parser.add_argument("--frames", type=int, default=1_000_000, help="on the null Runner")
    parser.add_argument("--faults", type=int, default=1000, help="0: leave this part out")
    arguments = parser.parse_args()
    fake = handle.activate()
    cuda = open_cuda()
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the start.")
    added_us = added_time(cuda, arguments.rounds, 300)
    vs_sync, of_limit = throughput(cuda, fake, max(arguments.rounds // 5, 1), 60)
    unaccounted = many_frames(arguments.frames)
    wrong, lost = after_faults(arguments.faults)
    figures = {
        "name": "runtime",
        "added_us_per_frame": round(added_us, 1),
        "vs_sync_throughput": round(vs_sync, 2),
        "throughput_of_limit": round(of_limit, 3),
        "frames_unaccounted": unaccounted,
        "wrong_after_fault": wrong,
        "lost_after_fault": lost,
    }
    print(f"\nBENCH {json.dumps(figures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
