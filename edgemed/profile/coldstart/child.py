"""The process that is timed: `python -m edgemed.profile.coldstart.child BUNDLE PRECISION RUNNER DLA_CORE PARENT`.

Its marks are `time.monotonic_ns`, a clock that all processes of a machine share; the parent knows when it started it.
"""

from __future__ import annotations

import time

_BEGAN = time.monotonic_ns()  # before anything else is imported: the interpreter has started

import json  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from edgemed.bundle.read import Bundle

Mark = Callable[[str], None]


def main(bundle: str, precision: str, runner: str = "onnxruntime", dla_core: str = "") -> dict[str, int]:
    """Load a bundle, answer twice; marks at the end of each stage, see `series.STAGES` and `series.ENGINE_STAGES`."""
    marks = {"process": _BEGAN}

    def mark(stage: str) -> None:
        marks[stage] = time.monotonic_ns()

    import numpy  # noqa: F401, ICN001 - timed, with what follows

    from edgemed.bundle.model import specs_of
    from edgemed.bundle.read import open_bundle
    from edgemed.runners.golden import Golden
    from edgemed.runners.ort import load_library

    if runner != "tensorrt":
        load_library()
    mark("imports")
    opened = open_bundle(Path(bundle))
    feeds = Golden.from_bytes(opened.read(opened.manifest.golden.path), specs_of(opened)).feeds(0)
    mark("bundle")
    if runner != "tensorrt":
        _onnxruntime(opened, precision, feeds, mark)
    else:
        _tensorrt(opened, precision, int(dla_core) if dla_core else None, feeds, mark)
    return marks


def _onnxruntime(bundle: Bundle, precision: Any, feeds: Any, mark: Mark) -> None:
    from edgemed.bundle.model import graph_of, specs_of
    from edgemed.runners.ort import OnnxRuntimeRunner

    chosen, graph = graph_of(bundle, precision or None)  # checked by the parent
    source, promised = bundle.graph_source(graph), specs_of(bundle)
    with OnnxRuntimeRunner(source, precision=chosen, bundle_digest=bundle.digest, promised=promised) as runner:
        mark("load")
        runner.infer(feeds)
        mark("first")
        runner.infer(feeds)
        mark("second")


def _tensorrt(bundle: Bundle, precision: Any, dla_core: int | None, feeds: Any, mark: Mark) -> None:
    from edgemed.engine.plans import Plan
    from edgemed.runtime.cuda import open_cuda
    from edgemed.runtime.cuda_lane import CudaLane
    from edgemed.runtime.open import open_runner
    from edgemed.runtime.tensorrt import OpenedEngine, TensorRtRunner

    chosen = open_runner(bundle, runner="tensorrt", precision=precision or None, dla_core=dla_core).runner
    assert isinstance(chosen, TensorRtRunner)
    assert isinstance(chosen.plan, Plan)
    mark("tensorrt")
    open_cuda()  # the process's one context, which the engine is opened in
    mark("context")
    engine = OpenedEngine(chosen.plan)
    try:
        mark("deserialise")
        with CudaLane(engine.cuda, engine.executions, engine.info, 1) as lane:
            mark("buffers")
            for stage in ("first", "second"):
                memory = lane.inputs(0, {name: array.shape for name, array in feeds.items()})
                for name, array in feeds.items():
                    memory[name][...] = array
                lane.start(0)
                lane.finish(0)
                mark(stage)
    finally:
        engine.close()


if __name__ == "__main__":
    from edgemed.base.child import die_with_parent

    die_with_parent(int(sys.argv[5]))
    sys.stdout.write(json.dumps(main(*sys.argv[1:5])) + "\n")
