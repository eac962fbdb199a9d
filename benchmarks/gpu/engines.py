"""The engine of a bundle on this GPU: built here, answered beside ONNX Runtime, timed beside the bare enqueue loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import EdgemedError
from edgemed.base.progress import SilentProgress
from edgemed.bundle.read import Bundle, open_bundle
from edgemed.engine.onboard import build_on_device, find_plan
from edgemed.runners.golden import Golden, largest_difference
from edgemed.runtime.open import open_runner
from edgemed.runtime.tensorrt import OpenedEngine, TensorRtRunner

Report = dict[str, Any]
_TIMES = 3_000  # enough for p99.9 with its bound (profiling.md: 2 995 without a miss)


def run(path: Path) -> Report:
    """Build, load, compare and time; the step that was refused is named, with what was said."""
    bundle = open_bundle(path)
    golden = Golden.from_bytes(bundle.read("golden.npz"))
    report: Report = {"bundle": bundle.digest}
    steps: dict[str, Callable[[], Any]] = {
        "build": lambda: _build(bundle),
        "outputs": lambda: _beside(bundle, golden),
        "times_us": lambda: _times(bundle, golden),
    }
    try:
        for name, step in steps.items():
            report["failed"] = name
            report[name] = step()
        del report["failed"]
    except EdgemedError as error:
        report[report["failed"]] = f"refused: {error}"
    return report


def _build(bundle: Bundle) -> Report:
    with SilentProgress().stage("engine") as stage:
        built = build_on_device(bundle, stage, rebuild=True)
    return {
        "engine": built.folder.name,
        "seconds": round(built.record.build_seconds, 1),
        "bytes": built.record.plan_bytes,
    }


def _beside(bundle: Bundle, golden: Golden) -> Report:
    """Greatest difference to ONNX Runtime over the golden inputs, as a share of its largest output."""
    with open_runner(bundle, runner="onnxruntime").runner as judge:
        wanted = [judge.infer(golden.feeds(index)) for index in range(golden.samples)]
    with open_runner(bundle, runner="tensorrt").runner as engine:
        got = [engine.infer(golden.feeds(index)) for index in range(golden.samples)]
        info = engine.info
    worst = {
        name: largest_difference([one[name] for one in got], np.stack([want[name] for want in wanted]))
        / max(float(np.abs(want[name]).max()) for want in wanted)
        for name in wanted[0]
    }
    return {"runner": str(info), "samples": golden.samples, "error": worst}


def _times(bundle: Bundle, golden: Golden) -> Report:
    feeds = golden.feeds(0)
    runner = open_runner(bundle, runner="tensorrt").runner
    assert isinstance(runner, TensorRtRunner)
    with runner:
        ours = _percentiles(lambda: runner.infer(feeds))
        graphs = runner.lane.graphs
    bare = _percentiles_of_bare(bundle, feeds)
    ratio = {name: round(ours[name] / bare[name], 2) for name in ours}
    return {"infer": ours, "bare_enqueue_loop": bare, "ratio": ratio, "graphs": graphs, "n": _TIMES}


def _percentiles_of_bare(bundle: Bundle, feeds: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Copy in, enqueue, copy out, wait: what an engine costs with nothing of ours around it."""
    engine = OpenedEngine(find_plan(bundle))
    execution = engine.executions[0]
    try:
        with engine.cuda.arena() as arena, engine.cuda.current():
            stream = arena.stream()
            execution.set_input_shapes({name: value.shape for name, value in feeds.items()})
            inputs = []
            for name, value in feeds.items():
                host = arena.pinned(value.shape, value.dtype)
                host[...] = value
                inputs.append((arena.device(value.nbytes), host))
                execution.bind(name, inputs[-1][0])
            outputs = []
            for spec in engine.specs.outputs:
                shape = execution.output_shape(spec.name)
                if shape is None:
                    return {}
                out = arena.pinned(shape, spec.dtype)
                outputs.append((out, arena.device(out.nbytes)))
                execution.bind(spec.name, outputs[-1][1])

            def once() -> None:
                for address, host in inputs:
                    stream.copy_in(address, host)
                execution.enqueue(stream.handle)
                for out, address in outputs:
                    stream.copy_out(out, address)
                stream.synchronize()

            return _percentiles(once)
    finally:
        engine.close()


def _percentiles(once: Callable[[], object]) -> dict[str, float]:
    """Nearest rank, after 200 that are not counted."""
    taken = []
    for number in range(_TIMES + 200):
        start_ns = time.monotonic_ns()
        once()
        if number >= 200:
            taken.append(time.monotonic_ns() - start_ns)
    taken.sort()
    ranks = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {
        name: round(taken[-(-int(share * 1000) * len(taken) // 1000) - 1] / 1e3, 1) for name, share in ranks.items()
    }
