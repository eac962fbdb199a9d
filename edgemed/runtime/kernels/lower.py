"""A recipe's walk with tables in the place of pixels: what `Preprocessor` does to an image, done to all that is known.

Where pixels move, index tables move; where values change, the table of all values that a sample can have, their bounds
and the fills of paddings change, by the recipe's own code. What is left at the end is a `Program`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.recipe import steps
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.operations import run_step
from edgemed.recipe.operations.resample import Method
from edgemed.recipe.operations.spatial import centred, in_proportion
from edgemed.recipe.operations.state import State
from edgemed.recipe.schema import Scaling
from edgemed.runtime.kernels.block import Program
from edgemed.runtime.kernels.places import NEAREST, Axis, is_block_mean, nearest, taps
from edgemed.runtime.kernels.points import Code, Operation, left_to_cpu, operation
from edgemed.runtime.kernels.raw import RawFormat

_MOST_OPERATIONS = 16
_SHORT = 2  # operations of arithmetic that cost less than a look into a table of 65,536


@dataclass(frozen=True)
class Refusal:
    """Why a recipe goes the CPU's way.

    Attributes:
        step: that the kernels do not take over, or `input` for the recipe or model as a whole.
        reason: half a sentence.
    """

    step: str
    reason: str

    def __str__(self) -> str:
        return f"The kernels do not take over the step {self.step}: {self.reason}."


class Refused(Exception):
    """Ends the walk; carries the refusal."""

    def __init__(self, step: str, reason: str) -> None:
        self.refusal = Refusal(step, reason)


class Lowering:
    """Walks through a recipe as `Preprocessor` does, with tables in the place of pixels."""

    def __init__(self, own: Preprocessor, raw: RawFormat, state: State) -> None:
        self._own, self._raw, self._state = own, raw, state
        self.done: list[str] = []
        self._rows, self._columns = Axis.of(raw.rows), Axis.of(raw.columns)
        self._turned = False
        self._spacing = [state.spacing[1], state.spacing[2]]
        self._channels = 3 if raw.color else 1
        # every value that a sample can have, on its way through the steps; None once values are no longer those
        self._domain: NDArray[Any] | None = self._as_pixels(self._values())
        low, high = self._domain.min(), self._domain.max()
        self._bounds = self._as_pixels(np.array([low, high], self._domain.dtype))
        self._fills: list[NDArray[Any]] = []
        self._waiting: list[Operation | None] = []
        self.program = Program(channels=self._channels)

    def _values(self) -> NDArray[Any]:
        if self._raw.values is not None:
            return self._raw.values
        limits = np.iinfo(self._raw.dtype)
        return np.arange(limits.min, limits.max + 1).astype(self._raw.dtype)

    def _as_pixels(self, values: NDArray[Any]) -> NDArray[Any]:
        """`(1, n, 1)`, with three equal channels behind for colour."""
        flat = values.reshape(1, -1, 1)
        return np.repeat(flat[..., None], 3, axis=-1) if self._channels == 3 else flat

    def run(self) -> Lowering:
        """All of the recipe."""
        given = self._own.recipe.input
        if given.color == "gray":
            self._gray("color")
        for step in given.steps:
            self._step(step)
        if self._own.channels == 1:
            self._gray("channels")
        if (size := self._own.size) is not None and self._shape != size and given.resize != "none":
            self._resampled(size, "pillow-nearest" if given.resize == "nearest" else "antialias")
            self.done.append("resize")
        if self._own.channels == 3 and self._channels == 1:
            self._colored("channels")
        if given.scaling != Scaling():
            scaling = steps.Scale(op="scale", offset=given.scaling.offset, divisor=given.scaling.divisor)
            self._point(scaling, "scaling")
        if self._own.spec.dtype == "uint8" and self._domain is None:
            raise Refused("input", "rounding to uint8 after resampling or luma could fall on either side")
        self._close_table()
        self._finish()
        return self

    @property
    def channels(self) -> int:
        """Of what was made so far."""
        return self._channels

    # --- values

    def _step(self, step: steps.Step) -> None:
        if reason := left_to_cpu(step):
            raise Refused(step.op, reason)
        if step.op == "gray":
            self._gray(step.op)
        elif step.op == "rgb":
            if self._channels == 1:
                self._colored(step.op)
        elif not self._place(step):
            self._point(step, step.op)

    def _point(self, step: steps.Step, name: str) -> None:
        """A step on values: what it computes, and what it makes of all that is known of the values."""
        try:
            self._domain, self._bounds, self._fills = self._of_all(lambda state: run_step(step, state))
        except InputError as error:
            raise Refused(name, f"some values of such frames would be refused ({error.what})") from error
        known = self._bounds if self._domain is None else self._domain  # a VOI LUT need not rise, all others do or fall
        self._bounds = np.stack([known.min(axis=1), known.max(axis=1)], axis=1)
        self._check_finite(name)
        self._operate(operation(step, self._state.image), name)
        self.done.append(name)

    def _of_all(self, work: Callable[[State], State]) -> tuple[NDArray[Any] | None, NDArray[Any], list[NDArray[Any]]]:
        def through(pixels: NDArray[Any]) -> NDArray[Any]:
            made: NDArray[Any] = work(replace(self._state, pixels=pixels, valid=None)).pixels
            return made

        domain = None if self._domain is None else through(self._domain)
        return domain, through(self._bounds), [through(fill) for fill in self._fills]

    def _check_finite(self, name: str) -> None:
        known = [self._bounds, *self._fills] + ([] if self._domain is None else [self._domain])
        if not all(np.isfinite(values).all() for values in known):
            raise Refused(name, "it makes NaN or infinity of values that such frames can have")

    def _operate(self, done: Operation | None, name: str) -> None:
        if self._domain is not None:
            self._waiting.append(done)
            return
        if done is None:
            raise Refused(name, "after resampling or luma it needs values that are exact")
        self._add(done, name)

    def _add(self, done: Operation, name: str) -> None:
        listed = self.program.before if not self.program.resampled else self.program.after
        listed.append(done)
        if len(listed) > _MOST_OPERATIONS:
            raise Refused(name, f"there are more than {_MOST_OPERATIONS} operations on values")

    def _close_table(self) -> None:
        """From here on values are computed, not looked up."""
        if self._domain is None:
            return
        short = len(self._waiting) <= (0 if self._raw.dtype == "uint8" else _SHORT)
        plain = [done for done in self._waiting if done is not None and done.code not in (Code.POWER, Code.SIGMOID)]
        if self._raw.values is None and short and len(plain) == len(self._waiting):
            self.program.before.extend(plain)
        else:
            table = self._domain.astype(np.float32).reshape(-1, self._channels).T
            self.program.table = np.ascontiguousarray(table)
        self._domain = None

    # --- colour

    def _gray(self, name: str) -> None:
        if self._channels == 1:
            return
        self._close_table()
        self._add(Operation(Code.GRAY), name)
        self._channels = 1
        low, high = self._bounds[0, 0, 0].astype(np.float64), self._bounds[0, 1, 0].astype(np.float64)
        luma = np.array([0.299, 0.587, 0.114])
        self._bounds = np.array([[[low @ luma], [high @ luma]]], np.float32)
        self._fills = [self._luma(fill) for fill in self._fills]
        self.done.append(name)

    def _luma(self, fill: NDArray[Any]) -> NDArray[Any]:
        gray: NDArray[Any] = run_step(steps.Gray(op="gray"), replace(self._state, pixels=fill, valid=None)).pixels
        return gray

    def _colored(self, name: str) -> None:
        self._close_table()
        self._add(Operation(Code.COLOR), name)
        self._channels = 3
        self._bounds = np.repeat(self._bounds[..., None], 3, axis=-1)
        self._fills = [np.repeat(fill[..., None], 3, axis=-1) for fill in self._fills]
        self.done.append(name)

    # --- places

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self._rows), len(self._columns)

    def _place(self, step: steps.Step) -> bool:
        """A step that moves pixels; whether it is one."""
        if isinstance(step, steps.Resize):
            self._resize(step)
        elif isinstance(step, steps.Spacing):
            self._to_spacing(step)
        elif isinstance(step, steps.Crop):
            self._crop(step)
        elif isinstance(step, steps.Pad):
            target = [max(have, want) for have, want in zip(self._shape, step.size, strict=True)]
            self._pad(target, step.fill, centre=step.where == "around")
        elif isinstance(step, steps.Flip):
            self._flip(rows=step.axis == "rows")
        elif isinstance(step, steps.Rotate90):
            for _ in range(step.turns):
                self._rows, self._columns, self._turned = self._columns, self._rows, not self._turned
                self._spacing.reverse()
                self._flip(rows=True)
        else:
            return False
        self.done.append(step.op)
        return True

    def _flip(self, *, rows: bool) -> None:
        if rows:
            self._rows = self._rows.taken(slice(None, None, -1))
        else:
            self._columns = self._columns.taken(slice(None, None, -1))

    def _resize(self, step: steps.Resize) -> None:
        size = step.size or self._own.size
        if size is None:
            return
        target = (size[0], size[1])
        if step.fit == "stretch":
            self._resampled(target, step.filter)
            return
        inner = in_proportion(self._shape, target, step.fit)
        self._resampled((inner[0], inner[1]), step.filter)
        if step.fit == "pad":
            self._pad(target, step.fill, centre=True)
        else:
            self._cut(centred(self._shape, target), target)

    def _to_spacing(self, step: steps.Spacing) -> None:
        wanted = []
        for have, mm, count in zip(self._spacing, step.mm, self._shape, strict=True):
            if have is None or not 0 < have < math.inf:
                raise Refused(step.op, "the format does not say how far pixels lie apart")
            wanted.append(max(1, math.floor(min(count * have / mm, 1e9) + 0.5)))
        self._resampled((wanted[0], wanted[1]), step.filter)

    def _crop(self, step: steps.Crop) -> None:
        if step.box is not None:
            row, column, rows, columns = step.box
            self._cut((row, column), (rows, columns))
        else:
            assert step.size is not None
            target = (step.size[0], step.size[1])
            self._cut(centred(self._shape, target), target)

    def _cut(self, start: Sequence[int], shape: Sequence[int]) -> None:
        for first, count, have in zip(start, shape, self._shape, strict=True):
            if first < 0 or first + count > have:
                raise InputError(
                    f"The recipe crops {count} of {have} rows or columns.",
                    "Pad before cropping, or correct the recipe.",
                )
        self._rows = self._rows.taken(slice(start[0], start[0] + shape[0]))
        self._columns = self._columns.taken(slice(start[1], start[1] + shape[1]))

    def _pad(self, shape: Sequence[int], fill: float, *, centre: bool) -> None:
        if tuple(shape) == self._shape:
            return
        before = [(new - old) // 2 if centre else 0 for new, old in zip(shape, self._shape, strict=True)]
        with np.errstate(over="ignore"):
            self._fills.append(self._as_pixels(np.array([fill]).astype(np.float32)))
        number = len(self._fills)
        self._rows = self._rows.padded(before[0], shape[0], number)
        self._columns = self._columns.padded(before[1], shape[1], number)
        self._check_finite("pad")

    def _resampled(self, shape: tuple[int, int], how: Method) -> None:
        old = self._shape
        if shape == old:
            return
        self._spacing = [
            None if mm is None else mm * was / now for mm, was, now in zip(self._spacing, old, shape, strict=True)
        ]
        if how in NEAREST:
            self._rows = self._rows if old[0] == shape[0] else self._rows.taken(nearest(old[0], shape[0], how))
            self._columns = self._columns if old[1] == shape[1] else self._columns.taken(nearest(old[1], shape[1], how))
            return
        if self.program.resampled:
            raise Refused("resize", "it is the second resampling, and one pass does one")
        self._close_table()
        self._filter(old, shape, how)

    def _filter(self, old: tuple[int, int], new: tuple[int, int], how: Method) -> None:
        rows, columns = taps(old[0], new[0], how), taps(old[1], new[1], how)
        spread = max(float(np.abs(weights).sum(axis=1).max()) for _, weights in (rows, columns)) ** 2
        if is_block_mean(old, new, how):
            rows, columns = ((index, np.sign(weights)) for index, weights in (rows, columns))
            self.program.divisor = float((old[0] // new[0]) * (old[1] // new[1]))
        self._rows, self._columns = self._rows.resampled(*rows), self._columns.resampled(*columns)
        self.program.resampled, self.program.channels = True, self._channels
        self.program.exact = how not in ("area", "bilinear")
        known = np.concatenate([self._bounds, *self._fills], axis=1).astype(np.float64)
        low, high = known.min(axis=1, keepdims=True), known.max(axis=1, keepdims=True)
        if how in ("bicubic", "lanczos"):  # weights below 0 reach beyond the values
            middle, half = (low + high) / 2, (high - low) / 2 * spread
            low, high = middle - half, middle + half
        low, high = low - np.abs(low) * 1e-6, high + np.abs(high) * 1e-6  # rounding
        self._bounds = np.concatenate([low, high], axis=1).astype(np.float32)
        self.program.fills_before, self._fills = self._packed(self._fills), []

    @staticmethod
    def _packed(fills: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """`(n, 3)`."""
        packed = np.empty((len(fills), 3), np.float32)
        for row, fill in zip(packed, fills, strict=True):
            row[...] = fill.reshape(-1)
        return packed

    def _finish(self) -> None:
        program = self.program
        known = np.concatenate([self._bounds, *self._fills], axis=1)
        program.bounds = float(known.min()), float(known.max())
        if self._own.spec.dtype == "float16" and np.abs(known).max() > float(np.finfo(np.float16).max):
            raise Refused("input", "float16 does not hold all values that such frames can have")
        if not program.resampled:
            program.channels = self._channels
        program.rows, program.columns, program.turned = self._rows, self._columns, self._turned
        program.fills_after = self._packed(self._fills)
