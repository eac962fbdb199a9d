"""The stand-in engine computes what it says, so that what is tested with it is tested."""

from __future__ import annotations

import numpy as np
import pytest

from edgemed.base.errors import GpuError, InputError
from edgemed.runtime.cuda import NotCaptured, open_cuda
from edgemed.runtime.execution import Execution
from tests.runtime.fakecuda.handle import FakeCudaHandle
from tests.runtime.standin import StandIn


class Bench:
    """One stand-in with pinned memory for all that goes in and out."""

    def __init__(self, **options: object) -> None:
        self.cuda = open_cuda()
        self.arena = self.cuda.arena()
        self.stream = self.arena.stream()
        self.execution = StandIn(self.cuda, **options)  # type: ignore[arg-type]

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.execution.close()
        self.arena.close()

    def prepare(self, feeds: dict[str, np.ndarray]) -> None:
        """Memory and addresses for these shapes."""
        execution: Execution = self.execution
        execution.set_input_shapes({name: feed.shape for name, feed in feeds.items()})
        self.inputs, self.outputs, self.addresses = {}, {}, {}
        for name, feed in feeds.items():
            self.inputs[name] = self.arena.pinned(feed.shape, feed.dtype)
            self.inputs[name][:] = feed
        for spec in execution.specs.outputs:
            if (shape := execution.output_shape(spec.name)) is not None:
                self.outputs[spec.name] = self.arena.pinned(shape, spec.dtype)
        for name, array in {**self.inputs, **self.outputs}.items():
            self.addresses[name] = self.arena.device(array.nbytes)
            execution.bind(name, self.addresses[name])

    def work(self) -> None:
        for name, array in self.inputs.items():
            self.stream.copy_in(self.addresses[name], array)
        self.execution.enqueue(self.stream.handle)
        for name, array in self.outputs.items():
            self.stream.copy_out(array, self.addresses[name])

    def once(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.prepare(feeds)
        with self.cuda.current():
            self.work()
            self.stream.synchronize()
        return {name: array.copy() for name, array in self.outputs.items()}


def feed(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, 8), np.float32)


def test_the_outputs_are_what_it_says(fakecuda: FakeCudaHandle) -> None:
    feeds = {"x": feed(4), "mask": feed(4, 1)}
    with Bench(inputs=("x", "mask")) as bench:
        got, want = bench.once(feeds), bench.execution.expected(feeds)
    assert sorted(got) == sorted(want) == ["mask_y", "sum", "y"]
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])


def test_rows_may_vary_within_the_profile(fakecuda: FakeCudaHandle) -> None:
    with Bench(rows=(1, 4, 300)) as bench:
        assert bench.execution.profiles == {"x": ((1, 8), (4, 8), (300, 8))}
        assert bench.execution.specs.inputs[0].shape == (None, 8)
        for rows in (1, 300):
            feeds = {"x": feed(rows)}
            got, want = bench.once(feeds), bench.execution.expected(feeds)
            np.testing.assert_array_equal(got["y"], want["y"])
            np.testing.assert_array_equal(got["sum"], want["sum"])
        with pytest.raises(InputError):
            bench.execution.set_input_shapes({"x": (301, 8)})


def test_a_data_dependent_output_is_in_memory_of_the_context(fakecuda: FakeCudaHandle) -> None:
    feeds = {"x": feed(4)}
    with Bench(data_dependent=True) as bench:
        bench.once(feeds)
        address, shape = bench.execution.grown("above")
        above = bench.arena.pinned(shape, np.float32)
        with bench.cuda.current():
            bench.stream.copy_out(above, address)
            bench.stream.synchronize()
        np.testing.assert_array_equal(above, bench.execution.expected(feeds)["above"])
        assert 0 < len(above) < 32


def test_it_replays_as_a_graph_and_refuses_where_told(fakecuda: FakeCudaHandle) -> None:
    with Bench() as bench:
        bench.once({"x": feed(4)})
        graph = bench.arena.capture(bench.stream, bench.work)
        assert not isinstance(graph, NotCaptured), graph
        bench.inputs["x"][:] = feed(4, 7)
        with bench.cuda.current():
            graph.launch(bench.stream.handle)
            bench.stream.synchronize()
        np.testing.assert_array_equal(bench.outputs["y"], bench.execution.expected(bench.inputs)["y"])
    with Bench(refuses_capture=True) as bench:
        bench.once({"x": feed(4)})
        refused = bench.arena.capture(bench.stream, bench.work)
        assert isinstance(refused, NotCaptured)
        assert "CAPTURE_UNSUPPORTED" in refused.reason


def test_inputs_are_consumed_before_the_computation_ends(fakecuda: FakeCudaHandle) -> None:
    fakecuda.hang("kernel", nth=3)  # the one that takes time
    with Bench(compute_ns=1000) as bench:
        bench.prepare({"x": feed(4)})
        event = bench.arena.handle_event()
        bench.execution.signal_input_consumed(event.handle)
        with bench.cuda.current():
            bench.work()
            event.synchronize()
            assert not bench.stream.done()
        fakecuda.release()


def test_it_fails_when_told(fakecuda: FakeCudaHandle) -> None:
    with Bench(fails_at=2) as bench:
        bench.once({"x": feed(4)})
        with pytest.raises(GpuError, match="refused"):
            bench.once({"x": feed(4)})
