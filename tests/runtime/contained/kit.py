"""What the tests of containment share: the faulty Runner as a spec, its golden vectors, and a short patience."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.runners.golden import Golden
from edgemed.runtime.contained.spec import FunctionWorker, GoldenCase
from edgemed.runtime.contained.states import Limits
from tests.runtime.contained import faulty

FAULTY = f"{Path(faulty.__file__).resolve()}:make"
WAIT_S = 60  # for what must come; only a defect waits so long
MS = 1_000_000

QUICK = Limits(
    load_ns=30_000 * MS,
    hang_ns=1000 * MS,
    check_every_ns=None,
    rebuilds=1000,
    backoff_ns=MS,
    backoff_cap_ns=MS,
)


def case(shape: tuple[int, ...] = (1, 16)) -> GoldenCase:
    """Eight golden vectors of the faulty Runner. It computes what we do, to the last bit: there is no tolerance."""
    x = np.random.default_rng(5).random((8, *shape), dtype=np.float32)
    return GoldenCase(Golden({"x": x}, {"fp32": {"y": faulty.answer(x)}}), "fp32", {"y": 0.0})


def worker(control: Path | None = None, *, golden: bool = True, lane: bool = False, **arguments: Any) -> FunctionWorker:
    """The faulty Runner, told what to do through `control`; with `lane` as a lane that the worker drives."""
    if control is not None:
        faulty.Control(control)
        arguments["control"] = str(control)
    return FunctionWorker(f"{FAULTY}_lane" if lane else FAULTY, arguments, golden=case() if golden else None)


def frame(seed: int, shape: tuple[int, ...] = (1, 16)) -> dict[str, NDArray[Any]]:
    """Feeds that no other seed gives."""
    return {"x": np.random.default_rng(seed).random(shape, dtype=np.float32)}


def right(feeds: dict[str, NDArray[Any]], outputs: dict[str, NDArray[Any]]) -> bool:
    """Whether the outputs are those of the feeds, bit for bit."""
    return outputs.keys() == {"y"} and np.array_equal(outputs["y"], faulty.answer(feeds["x"]))
