"""A fake TensorRT whose executions are kernels: on the shim's streams, with the addresses that it was bound to."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.engine.plans import Plan
from edgemed.runtime import driver
from edgemed.runtime.cuda import Cuda
from tests.engine.engines import PLAN, key, specs_of
from tests.engine.fake_runtime import EngineScript, Enqueued
from tests.runtime.fakecuda.handle import listing
from tests.runtime.standin import GAIN, OFFSET, SOURCE, _Kernels

COLUMNS = 16
FIXED = (("x", "INPUT", "FLOAT", (4, COLUMNS)), ("y", "OUTPUT", "FLOAT", (4, COLUMNS)))
BATCHED = (("x", "INPUT", "FLOAT", (-1, COLUMNS)), ("y", "OUTPUT", "FLOAT", (-1, COLUMNS)))
SMALL = {"x": ((1, COLUMNS), (2, COLUMNS), (4, COLUMNS))}
LARGE = {"x": ((5, COLUMNS), (8, COLUMNS), (16, COLUMNS))}
GROWING = (("x", "INPUT", "FLOAT", (4, COLUMNS)), ("y", "OUTPUT", "FLOAT", (-1, COLUMNS)))


def same_shape(name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    return shapes["x"]


def batched(**changes: Any) -> EngineScript:
    return EngineScript(**{"tensors": BATCHED, "profiles": (SMALL, LARGE), "output_shape": same_shape, **changes})


def expected(x: NDArray[Any]) -> NDArray[Any]:
    """What the kernel makes of an input: rounded as it rounds."""
    answer: NDArray[Any] = np.float32(GAIN) * x + np.float32(OFFSET)
    return answer


def plan_for(cuda: Cuda, script: EngineScript, **changes: Any) -> Plan:
    """A plan that was built for the very device of `cuda`."""
    facts = cuda.facts
    here = {"compute_capability": facts.compute_capability, "board": facts.name, "jetpack": None}
    return Plan(key(**here | changes), specs_of(script), lambda: PLAN, "net/engine")


@contextmanager
def kernels_for(cuda: Cuda, script: EngineScript, names: tuple[str, str] = ("x", "y")) -> Iterator[None]:
    """Have the script's engine compute `y = GAIN * x + OFFSET` on the stream that it is enqueued on."""
    with cuda.current():
        kernels = _Kernels(listing(SOURCE))

    def work(enqueued: Enqueued) -> None:
        count = int(np.prod(enqueued.shapes[names[0]]))
        places = [ctypes.c_ulonglong(enqueued.addresses[name]) for name in names]
        numbers = (ctypes.c_float(GAIN), ctypes.c_float(OFFSET), ctypes.c_uint(count))
        kernels.launch(enqueued.stream, "affine", count, *places, *numbers)
        if enqueued.consumed:
            driver.call("cuEventRecord", ctypes.c_void_p(enqueued.consumed), ctypes.c_void_p(enqueued.stream))

    script.work = work
    try:
        yield
    finally:
        script.work = None
        if cuda.usable:
            with cuda.current():
                kernels.unload()
