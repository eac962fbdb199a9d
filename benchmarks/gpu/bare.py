"""Copies and launches by themselves: what the device, its driver and pycuda give before any of our scheduling."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edgemed.runtime.cuda import Arena, Cuda, Graph, Kernel, Stream

Report = dict[str, Any]
_MIB = 1 << 20
SIZES = (64 << 10, _MIB, 16 * _MIB, 64 * _MIB)
_ROUNDS = 20
_LAUNCHES = 20


def copies(cuda: Cuda, arena: Arena) -> Report:
    """GB/s of copies in and out, pinned and pageable, and of both ways at once; medians of 20."""
    rows = []
    one, two = arena.stream(), arena.stream()
    for nbytes in SIZES:
        here, there = arena.device(nbytes), arena.device(nbytes)
        pinned, other = arena.pinned(nbytes, np.uint8), arena.pinned(nbytes, np.uint8)
        pageable = np.ones(nbytes, np.uint8)

        def both(here: int = here, there: int = there, pinned: Any = pinned, other: Any = other) -> None:
            one.copy_in(here, pinned)
            two.copy_out(other, there)
            two.synchronize()

        ways: dict[str, Callable[[], None]] = {
            "in_pinned": lambda here=here, pinned=pinned: one.copy_in(here, pinned),
            "in_pageable": lambda here=here, pageable=pageable: one.copy_in(here, pageable),
            "out_pinned": lambda here=here, pinned=pinned: one.copy_out(pinned, here),
            "out_pageable": lambda here=here, pageable=pageable: one.copy_out(pageable, here),
            "both_pinned": both,
        }
        rows.append({"bytes": nbytes} | {name: _gb_s(cuda, one, nbytes, way) for name, way in ways.items()})
        rows[-1]["both_pinned"] = round(2 * rows[-1]["both_pinned"], 2)
    return {"gb_per_s": rows}


def _gb_s(cuda: Cuda, stream: Stream, nbytes: int, way: Callable[[], None]) -> float:
    taken = []
    with cuda.current():
        for _ in range(_ROUNDS):
            start_ns = time.monotonic_ns()
            way()
            stream.synchronize()
            taken.append(time.monotonic_ns() - start_ns)
    return round(nbytes / statistics.median(taken), 2)


def launches(cuda: Cuda, arena: Arena, kernel: Kernel) -> Report:
    """Microseconds on the host to put work on a stream: one kernel, 20 kernels, and a graph of the same 20.

    Args:
        kernel: `affine` of the stand-in kernels.
    """
    stream = arena.stream()
    x, y = arena.device(1 << 12), arena.device(1 << 12)

    def some(count: int) -> Callable[[], None]:
        def put() -> None:
            for _ in range(count):
                kernel.launch(stream, (4,), (256,), x, y, 2.0, 1.0, 1 << 10)

        return put

    graph = arena.capture(stream, some(_LAUNCHES))
    ways = {"one_kernel": some(1), "kernels": some(_LAUNCHES)}
    if isinstance(graph, Graph):
        ways["graph"] = lambda: graph.launch(stream.handle)
    put = {name: _host_us(cuda, stream, way) for name, way in ways.items()}
    report: Report = {"launches": _LAUNCHES, "enqueue_us": {name: times[0] for name, times in put.items()}}
    report["until_done_us"] = {name: times[1] for name, times in put.items()}
    if isinstance(graph, Graph):
        report["graph_gain"] = round(put["kernels"][0] / put["graph"][0], 2)
    else:
        report["graph"] = f"not captured: {graph.reason}"
    return report


def _host_us(cuda: Cuda, stream: Stream, way: Callable[[], None]) -> tuple[float, float]:
    """Medians: until the call is back, and until the device is done."""
    enqueue, whole = [], []
    with cuda.current():
        for _ in range(5 * _ROUNDS):
            start_ns = time.monotonic_ns()
            way()
            enqueue.append(time.monotonic_ns() - start_ns)
            stream.synchronize()
            whole.append(time.monotonic_ns() - start_ns)
    return round(statistics.median(enqueue) / 1e3, 2), round(statistics.median(whole) / 1e3, 2)
