"""The kernels and the recipe's own way, side by side on one frame: how far apart, and how long each takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.runner import TensorSpec
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.schema import Layout, Recipe
from edgemed.runtime.kernels.device import KernelPrepare
from edgemed.runtime.kernels.plan import KernelPlan, Refusal, plan_kernels
from edgemed.runtime.kernels.raw import RawFormat

if TYPE_CHECKING:
    from edgemed.runtime.cuda import Cuda


@dataclass(frozen=True)
class Beside:
    """What was found.

    Attributes:
        plan: of the kernels.
        difference: the greatest, as a share of the greatest value that a sample can have.
        cpu_ns: of each repetition on the CPU.
        kernel_ns: of each launch on the device, by its events; copies are not in it.
        copy_in_ns: of each copy of the raw frame to the device.
        sample: what the kernels made.
        expected: what the recipe made.
    """

    plan: KernelPlan
    difference: float
    cpu_ns: tuple[int, ...]
    kernel_ns: tuple[int, ...]
    copy_in_ns: tuple[int, ...]
    sample: NDArray[Any]
    expected: NDArray[Any]


def beside(
    cuda: Cuda,
    recipe: Recipe,
    spec: TensorSpec,
    layout: Layout,
    raw: RawFormat,
    frame: NDArray[Any],
    *,
    repeats: int = 20,
) -> Beside | Refusal:
    """Prepare one raw frame both ways.

    Args:
        cuda: the process's.
        recipe: the whole one.
        spec: the model's input.
        layout: of `spec`.
        raw: what the frame is.
        frame: of `raw.shape` and `raw.dtype`.
        repeats: of both; the first of each warms up and is not counted.

    Raises:
        InputError: the recipe refuses the frame.
        GpuError: the device refused.
    """
    plan = plan_kernels(recipe, spec, layout, raw)
    if isinstance(plan, Refusal):
        return plan
    own, cpu_ns = Preprocessor(recipe, spec, layout), []
    for _ in range(repeats + 1):
        start = time.perf_counter_ns()
        expected = own.prepare(raw.image(frame)).sample
        cpu_ns.append(time.perf_counter_ns() - start)
    sample, *times = _on_device(cuda, plan, frame, repeats + 1)
    kernel_ns, copy_in_ns = (tuple(each[1:]) for each in times)
    return Beside(plan, _apart(plan, sample, expected), tuple(cpu_ns[1:]), kernel_ns, copy_in_ns, sample, expected)


def _apart(plan: KernelPlan, sample: NDArray[Any], expected: NDArray[Any]) -> float:
    most = np.abs(sample.astype(np.float64) - expected.astype(np.float64)).max()
    return float(most / (max(abs(bound) for bound in plan.bounds) or 1.0))


def _on_device(
    cuda: Cuda, plan: KernelPlan, frame: NDArray[Any], times: int
) -> tuple[NDArray[Any], list[int], list[int]]:
    """The sample, and the time of each launch and copy."""
    prepare, kernel_ns, copy_in_ns = KernelPrepare(plan), [], []
    with cuda.arena() as arena, cuda.current():
        stream = arena.stream()
        prepare.load(arena, stream)
        host, sample = arena.pinned(frame.shape, frame.dtype), arena.pinned(plan.shape, plan.dtype)
        source, target = arena.device(host.nbytes), arena.device(plan.nbytes)
        work = prepare.work({spec.name: source for spec in prepare.raw}, {plan.input: target})
        begin, copied, done = (arena.event(timing=True) for _ in range(3))
        host[...] = frame
        for _ in range(times):
            begin.record(stream)
            stream.copy_in(source, host)
            copied.record(stream)
            work(stream)
            done.record(stream)
            done.synchronize()
            copy_in_ns.append(copied.elapsed_ns(begin))
            kernel_ns.append(done.elapsed_ns(copied))
        stream.copy_out(sample, target)
        stream.synchronize()
        return sample.copy(), kernel_ns, copy_in_ns
