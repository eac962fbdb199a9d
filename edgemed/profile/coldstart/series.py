"""Fresh processes, one after the other: what each stage of a start takes, as distributions."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import Field

from edgemed.base.child import how_ended, package_environment
from edgemed.base.errors import ChildError, DeviceStateError, from_os_error
from edgemed.base.store import fsync_path
from edgemed.profile.records import Positive, Record, Text
from edgemed.profile.stats import Distribution, distribution
from edgemed.runtime.open import RunnerName

PageCache = Literal["kept", "bundle-dropped", "dropped"]
STAGES: Final = ("process", "imports", "bundle", "load", "first", "second")
ENGINE_STAGES: Final = (
    "process", "imports", "bundle", "tensorrt", "context", "deserialise", "buffers", "first", "second"
)  # fmt: skip
_PERCENTILES: Final = ("50", "90")
_DROP: Final = "proc/sys/vm/drop_caches"
_PATIENCE_S: Final = 600.0


class ColdStart(Record):
    """Starts in fresh processes.

    Stages follow each other: `process` until the interpreter runs our code, `imports`, `bundle` read and verified,
    `load` of the model, `first` and `second` inference. With an engine `load` is four: `tensorrt` is imported and the
    engine found, the CUDA `context` made, the plan verified and `deserialise`d with its execution context, and
    `buffers` allocated and warmed up. `answer` is from the start of the process to its first answer.
    """

    page_cache: PageCache = Field(description="what was done before each start")
    runs: Positive
    stages: dict[Text, Distribution]
    answer: Distribution
    note: Text


def cold_start(
    bundle: Path,
    precision: str | None,
    runs: int,
    page_cache: PageCache = "kept",
    *,
    runner: RunnerName = "onnxruntime",
    dla_core: int | None = None,
    root: Path = Path("/"),
    tell: Callable[[str], None] = lambda _: None,
) -> ColdStart:
    """Start a process for a bundle `runs` times.

    Args:
        bundle: folder of the bundle.
        precision: of its graph; `None`: its own.
        runs: how often.
        page_cache: `kept`; `bundle-dropped`: the bundle's files; `dropped`: everything, which only root may.
        runner: `tensorrt` or `onnxruntime`; chosen before, so that all starts are of one kind.
        dla_core: of the engine.
        root: where `proc` is.
        tell: told what is going on.

    Raises:
        DeviceStateError: the page cache may not be dropped.
        ChildError: a process failed.
    """
    rows, stages = [], ENGINE_STAGES if runner == "tensorrt" else STAGES
    for number in range(1, runs + 1):
        tell(f"cold start {number} of {runs}")
        forget(bundle, page_cache, root)
        rows.append(_start(bundle, [precision or "", runner, "" if dla_core is None else str(dla_core)], stages))
    return summarize(rows, page_cache, stages)


def summarize(rows: Sequence[Sequence[int]], page_cache: PageCache, stages: Sequence[str] = STAGES) -> ColdStart:
    """Distributions over runs of (runs, stages) durations in ns."""
    table = np.array(rows, dtype=np.int64)
    before_answer = table[:, : stages.index("first") + 1].sum(axis=1)
    return ColdStart(
        page_cache=page_cache,
        runs=len(table),
        stages={stage: _figures(table[:, index].copy()) for index, stage in enumerate(stages)},
        answer=_figures(before_answer),
        note="the first start of a machine that was just switched on is not among them",
    )


def _figures(durations: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Distribution:
    found = distribution(durations, percentiles=_PERCENTILES)
    assert found is not None, "there is at least one run"
    return found


def forget(bundle: Path, page_cache: PageCache, root: Path = Path("/")) -> None:
    """Have the kernel drop pages of files.

    Raises:
        DeviceStateError: it may not be done here.
        ResourceError: a file of the bundle cannot be read.
    """
    if page_cache == "bundle-dropped":
        try:
            for path in sorted(each for each in bundle.rglob("*") if each.is_file()):
                _forget_file(path)
        except OSError as error:
            raise from_os_error(error, bundle) from error
    if page_cache == "dropped":
        try:
            os.sync()  # what is dirty cannot be dropped
            with (root / _DROP).open("w") as file:
                file.write("3\n")
        except OSError as error:
            raise DeviceStateError(
                "The page cache may not be dropped here.",
                "Run it as root, outside a container, or give --page-cache bundle-dropped or kept.",
            ) from error


def _forget_file(path: Path) -> None:
    fsync_path(path)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def _start(bundle: Path, chosen: Sequence[str], stages: Sequence[str]) -> list[int]:
    """Durations of the stages (ns) of one fresh process."""
    command = [sys.executable, "-m", "edgemed.profile.coldstart.child", str(bundle.resolve()), *chosen]
    began = time.monotonic_ns()
    try:
        done = subprocess.run(
            [*command, str(os.getpid())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            env=package_environment(),
            timeout=_PATIENCE_S,
        )
    except OSError as error:
        raise from_os_error(error) from error
    except subprocess.TimeoutExpired as error:
        raise ChildError(f"A start took longer than {_PATIENCE_S:g} s.", "Run the bundle by `edgemed run`.") from error
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [""]
        raise ChildError(f"A process that was to start {how_ended(done.returncode)}: {last[0][:300]}", "Try it alone.")
    marks = json.loads(done.stdout.splitlines()[-1])
    ends = [began, *(marks[stage] for stage in stages)]
    return [after - before for before, after in itertools.pairwise(ends)]
