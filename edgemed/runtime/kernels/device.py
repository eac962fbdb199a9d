"""The kernels on a device: PTX that was compiled ahead, loaded once, and launched for each frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgemed.base.runner import TensorSpec
from edgemed.runtime.kernels.plan import KernelPlan

if TYPE_CHECKING:
    from edgemed.runtime.arena import Arena
    from edgemed.runtime.cuda import Facts
    from edgemed.runtime.prepare import Work
    from edgemed.runtime.streams import Kernel, Stream

SOURCE: Final = Path(__file__).with_name("prepare.cu")
PTX: Final = Path(__file__).with_name("prepare.ptx")
PARAMETERS: Final = "PPP"  # raw frame, sample, block


_LEAST_CAPABILITY: Final = (8, 0)  # .target of the PTX
_LEAST_CUDA: Final = (12, 0)  # that knows its .version


def unfit(facts: Facts) -> str | None:
    """Why a device cannot load the kernels, in half a sentence, or `None`."""
    if _numbers(facts.compute_capability) < _LEAST_CAPABILITY:
        return f"{facts.name} has compute capability {facts.compute_capability}, the kernels need 8.0"
    if _numbers(facts.driver_version) < _LEAST_CUDA:
        return f"the driver knows CUDA {facts.driver_version}, the kernels need 12.0"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


class KernelPrepare:
    """Makes one input of a model by the kernels. The `Prepare` of a CUDA lane.

    Args:
        plan: from `plan_kernels`.
        name: of the raw frames among what a frame holds; sources call them `pixels`.
    """

    def __init__(self, plan: KernelPlan, name: str = "pixels") -> None:
        self.plan = plan
        self._name = name
        self._kernel: Kernel | None = None
        self._words = 0

    @property
    def raw(self) -> tuple[TensorSpec, ...]:
        """The raw frame."""
        return (TensorSpec(self._name, self.plan.raw.dtype, self.plan.raw.shape),)

    @property
    def makes(self) -> tuple[TensorSpec, ...]:
        """The model's input."""
        return (TensorSpec(self.plan.input, self.plan.dtype, self.plan.shape),)

    def load(self, arena: Arena, stream: Stream) -> None:
        """Load the kernels and the plan's block; see `Prepare.load`."""
        block = self.plan.block
        kernel = arena.module(PTX.read_bytes()).kernel(block.kernel, PARAMETERS)
        self._words = arena.device(block.words.nbytes)
        stream.copy_in(self._words, block.words)
        stream.synchronize()
        self._kernel = kernel

    def work(self, raw: Mapping[str, int], made: Mapping[str, int]) -> Work:
        """One launch; see `Prepare.work`."""
        if self._kernel is None:
            raise RuntimeError("The kernels are loaded before their work is asked for.")
        block = self.plan.block
        kernel, grid, threads, shared = self._kernel, block.grid, (block.threads, 1, 1), block.shared_bytes
        source, target, words = raw[self._name], made[self.plan.input], self._words

        def launch(stream: Stream) -> None:
            kernel.launch(stream, grid, threads, source, target, words, shared_bytes=shared)

        return launch
