"""The process that is timed: `python -m edgemed.profile.coldstart.child BUNDLE PRECISION PARENT`.

Its marks are `time.monotonic_ns`, a clock that all processes of a machine share; the parent knows when it started it.
"""

from __future__ import annotations

import time

_BEGAN = time.monotonic_ns()  # before anything else is imported: the interpreter has started

import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402


def main(bundle: str, precision: str) -> dict[str, int]:
    """Load a bundle, answer twice; marks at the end of each stage."""
    marks = {"process": _BEGAN}

    def mark(stage: str) -> None:
        marks[stage] = time.monotonic_ns()

    import numpy  # noqa: F401, ICN001 - timed, with what follows

    from edgemed.bundle.model import graph_of, specs_of
    from edgemed.bundle.read import open_bundle
    from edgemed.runners.golden import Golden
    from edgemed.runners.ort import OnnxRuntimeRunner, load_library

    load_library()
    mark("imports")
    opened = open_bundle(Path(bundle))
    chosen, graph = graph_of(opened, precision or None)  # type: ignore[arg-type]  # checked by the parent
    feeds = Golden.from_bytes(opened.read(opened.manifest.golden.path), specs_of(opened)).feeds(0)
    mark("bundle")
    runner = OnnxRuntimeRunner(
        opened.graph_source(graph), precision=chosen, bundle_digest=opened.digest, promised=specs_of(opened)
    )
    with runner:
        mark("load")
        runner.infer(feeds)
        mark("first")
        runner.infer(feeds)
        mark("second")
    return marks


if __name__ == "__main__":
    from edgemed.base.child import die_with_parent

    die_with_parent(int(sys.argv[3]))
    sys.stdout.write(json.dumps(main(sys.argv[1], sys.argv[2])) + "\n")
