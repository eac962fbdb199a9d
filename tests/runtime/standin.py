"""A stand-in for a TensorRT context: the execution surface over three small kernels, on the shim as on a real driver.

y = a · x + b            for each input x, element by element
sum                      of each row of the first input
above                    elements of the first input that exceed `limit`: an output whose shape depends on data
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import GpuError, InputError
from edgemed.base.runner import RunnerSpecs, TensorSpec
from edgemed.runtime import driver
from edgemed.runtime.arena import Arena
from edgemed.runtime.cuda import Cuda
from edgemed.runtime.execution import Shape
from tests.runtime.fakecuda.handle import listing

SOURCE = Path(__file__).parent / "fakecuda" / "standin.cu"
GAIN, OFFSET, LIMIT = 2.0, 1.0, 0.5
_BLOCK = 256


@dataclass
class StandIn:
    """One context. Implements `edgemed.runtime.execution.Execution`.

    Args:
        cuda: where it runs.
        columns: elements of a row.
        rows: least, usual and greatest number of rows of every input; equal ones make a fixed shape.
        inputs: their names; a single one called `x` gives the output `y`, others `<name>_y`.
        data_dependent: give the output `above`, too.
        capturable: what it says of itself.
        refuses_capture: waits for the stream within `enqueue`, which no capture allows.
        fails_at: number of the `enqueue` (from 1) that raises `failure`.
        compute_ns: time that an execution takes at least.
        image: PTX of `standin.cu` where a real driver runs it.
    """

    cuda: Cuda
    columns: int = 8
    rows: tuple[int, int, int] = (4, 4, 4)
    inputs: tuple[str, ...] = ("x",)
    data_dependent: bool = False
    capturable: bool = True
    refuses_capture: bool = False
    fails_at: int = 0
    failure: GpuError = field(default_factory=lambda: GpuError("The stand-in refused.", "It was told to."))
    compute_ns: int = 0
    image: bytes = b""

    def __post_init__(self) -> None:
        self._shapes: dict[str, Shape] = dict.fromkeys(self.inputs, (self.rows[1], self.columns))
        self._addresses: dict[str, int] = {}
        self._consumed = 0
        self.enqueued = 0
        self._arena: Arena | None = self.cuda.arena()
        self._grown = self._arena.device(4 * self.rows[2] * self.columns)
        self._count, self._count_address = self._arena.mapped((1,), np.uint32)
        with self.cuda.current():
            self._kernels = _Kernels(self.image or listing(SOURCE))

    @property
    def specs(self) -> RunnerSpecs:
        fixed = self.rows[0] == self.rows[2]
        rows = self.rows[1] if fixed else None
        outputs = [TensorSpec(self._output(name), "float32", (rows, self.columns)) for name in self.inputs]
        outputs.append(TensorSpec("sum", "float32", (rows,)))
        if self.data_dependent:
            outputs.append(TensorSpec("above", "float32", (None,)))
        return RunnerSpecs(
            tuple(TensorSpec(name, "float32", (rows, self.columns)) for name in self.inputs), tuple(outputs)
        )

    @property
    def profiles(self) -> Mapping[str, tuple[Shape, Shape, Shape]]:
        if self.rows[0] == self.rows[2]:
            return {}
        least, usual, greatest = ((rows, self.columns) for rows in self.rows)
        return dict.fromkeys(self.inputs, (least, usual, greatest))

    @property
    def greatest(self) -> list[dict[str, Shape]]:
        return [{name: bounds[2] for name, bounds in self.profiles.items()}]

    def set_input_shapes(self, shapes: Mapping[str, Shape]) -> None:
        for name, shape in shapes.items():
            fits = name in self._shapes and len(shape) == 2 and shape[1] == self.columns
            if not fits or not self.rows[0] <= shape[0] <= self.rows[2]:
                raise InputError(f"{name} cannot have the shape {shape}.", f"The rows go from {self.rows[0]} up.")
        self._shapes.update(shapes)

    def output_shape(self, name: str) -> Shape | None:
        if name == "above":
            return None
        if name == "sum":
            return self._shapes[self.inputs[0]][:1]
        return self._shapes[next(each for each in self.inputs if self._output(each) == name)]

    def bind(self, name: str, address: int) -> None:
        self._addresses[name] = address

    def grown(self, name: str) -> tuple[int, Shape]:
        assert name == "above"
        return self._grown, (int(self._count[0]),)

    def signal_input_consumed(self, event: int) -> None:
        self._consumed = event

    def check(self) -> None:
        """Its errors are the driver's."""

    def enqueue(self, stream: int) -> None:
        self.enqueued += 1
        if self.enqueued == self.fails_at:
            raise self.failure
        if self.refuses_capture:
            driver.call("cuStreamSynchronize", ctypes.c_void_p(stream))
        for name in self.inputs:
            self._affine(stream, name)
        first, (rows, columns) = self._addresses[self.inputs[0]], self._shapes[self.inputs[0]]
        self._kernels.launch(stream, "row_sum", rows, _P(first), _P(self._addresses["sum"]), _U(rows), _U(columns))
        if self.data_dependent:
            limit, count = ctypes.c_float(LIMIT), _U(rows * columns)
            self._kernels.launch(stream, "above", 1, _P(first), _P(self._grown), _P(self._count_address), limit, count)
        if self._consumed:
            driver.call("cuEventRecord", ctypes.c_void_p(self._consumed), ctypes.c_void_p(stream))
        if self.compute_ns:
            self._kernels.launch(stream, "burn", 1, ctypes.c_ulonglong(self.compute_ns))

    def close(self) -> None:
        if self._arena is not None:
            arena, self._arena = self._arena, None
            if self.cuda.usable:
                with self.cuda.current():
                    self._kernels.unload()
            arena.close()

    def expected(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What an execution must give, rounded as the kernels do."""
        first = feeds[self.inputs[0]]
        answers = {self._output(name): np.float32(GAIN) * feeds[name] + np.float32(OFFSET) for name in self.inputs}
        answers["sum"] = np.cumsum(first, axis=1, dtype=np.float32)[:, -1]
        if self.data_dependent:
            answers["above"] = first[first > np.float32(LIMIT)]
        return answers

    def _output(self, name: str) -> str:
        return "y" if name == "x" else f"{name}_y"

    def _affine(self, stream: int, name: str) -> None:
        count = self._shapes[name][0] * self._shapes[name][1]
        source, target = self._addresses[name], self._addresses[self._output(name)]
        gain, offset = ctypes.c_float(GAIN), ctypes.c_float(OFFSET)
        self._kernels.launch(stream, "affine", count, _P(source), _P(target), gain, offset, _U(count))


_P, _U = ctypes.c_ulonglong, ctypes.c_uint


class _Kernels:
    """Launches on a stream that is known by its handle alone, as TensorRT does; pycuda wants its own object."""

    def __init__(self, image: bytes) -> None:
        self._module = ctypes.c_void_p()
        driver.call("cuModuleLoadData", ctypes.byref(self._module), ctypes.c_char_p(image))
        self._functions = {name: self._function(name) for name in ("affine", "row_sum", "above", "burn")}

    def launch(self, stream: int, name: str, threads: int, *arguments: Any) -> None:
        one, zero = _U(1), _U(0)
        grid, block = _U(-(-threads // _BLOCK)), _U(min(threads, _BLOCK))
        places = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
        where = (zero, ctypes.c_void_p(stream), places, None)
        driver.call("cuLaunchKernel", self._functions[name], grid, one, one, block, one, one, *where)

    def unload(self) -> None:
        driver.call("cuModuleUnload", self._module)

    def _function(self, name: str) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        driver.call("cuModuleGetFunction", ctypes.byref(function), self._module, ctypes.c_char_p(name.encode()))
        return function
