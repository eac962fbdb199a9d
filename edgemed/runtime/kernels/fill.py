"""A ring's fill for lanes whose kernels prepare the frames: raw pixels go into the slot as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.recipe.apply import Prepared
from edgemed.recipe.contract import check_contract
from edgemed.recipe.image import Image, LookupTable
from edgemed.recipe.parts import Time
from edgemed.recipe.schema import Recipe
from edgemed.recipe.steps import Window
from edgemed.runtime.fill import Memory
from edgemed.runtime.frames import Drop, Frame
from edgemed.runtime.kernels.plan import KernelPlan

_HINT = "Plan for frames like these, or prepare them on the CPU (edgemed run --preprocess cpu)."


class RawFill:
    """Writes raw frames into slots, and holds each against what the plan was made for.

    A plan holds what the recipe takes of a file (windows, tables, range, spacing), and all frames are to share it. What
    a frame's own image says otherwise would be prepared wrongly, and is refused; so is what the contract refuses.

    Args:
        plan: of the kernels.
        recipe: that the plan is of.
        name: of the raw frames.
    """

    def __init__(self, plan: KernelPlan, recipe: Recipe, name: str = "pixels") -> None:
        self._plan = plan
        self._contract = recipe.input.contract
        self._by_file = any(isinstance(step, Window) and step.file for step in recipe.input.steps)
        self._time = recipe.input.time
        self._way_back = plan.way_back
        self._name = name
        self._dtype = np.dtype(plan.raw.dtype)

    def __call__(self, frame: Frame, memory: Memory) -> None:
        """Write a frame into its slot.

        Raises:
            InputError: it is not what the plan is for, or the contract refuses it.
        """
        pixels: NDArray[Any] = frame.data[self._name]
        if pixels.shape != self._plan.raw.shape or pixels.dtype != self._dtype:
            want = self._plan.raw
            raise InputError(
                f"The frame is {pixels.dtype} {pixels.shape}; the kernels were planned for {want.dtype} {want.shape}.",
                _HINT,
            )
        if frame.image is not None:
            self._check(frame.image)
        np.copyto(memory(None)[self._name], pixels)

    @property
    def time(self) -> Time | None:
        """Clips that the recipe makes; the source must give them (`sources.clips`)."""
        return self._time

    def prepared(self, frame: int) -> Prepared | None:  # noqa: ARG002 - the same for all
        """The way back of a frame, as `RecipeFill.prepared` gives it."""
        return self._way_back

    def dropped(self, drop: Drop) -> None:
        """Nothing was kept for a frame that is dropped; for the ring's `on_drop`."""

    def _check(self, image: Image) -> None:
        check_contract(self._contract, image.facts)
        raw = self._plan.raw
        spacing = raw.facts.spacing if raw.facts is not None else None
        differing = [
            name
            for name, differs in (
                ("VOI windows", self._by_file and image.windows != raw.windows),
                ("VOI LUTs", self._by_file and not _alike(image.tables, raw.tables)),
                ("range of stored bits", raw.stored_range is not None and image.stored_range != raw.stored_range),
                ("pixel spacing", "spacing" in self._plan.steps and image.facts.spacing != spacing),
            )
            if differs
        ]
        if differing:
            raise InputError(f"The frame has other {' and '.join(differing)} than the kernels were planned for.", _HINT)


def _alike(first: tuple[LookupTable, ...], second: tuple[LookupTable, ...]) -> bool:
    return len(first) == len(second) and all(
        a.first == b.first and a.bits == b.bits and np.array_equal(a.data, b.data)
        for a, b in zip(first, second, strict=True)
    )
