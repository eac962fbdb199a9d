"""Loading and driving an engine through NVIDIA's real bindings, over a stand-in for the library behind them.

What this shows: every call reaches the virtual function that it must, with our integers in it; our recorder and
allocator are called back from C++ while the GIL is free; objects go in order. It shows nothing of TensorRT itself.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engine import fetch_bindings, standin_nvinfer
from tests.engine.conftest import CACHE, ROWS
from tests.runtime.fakecuda import fetch as fetch_cuda

DRIVE = """
import ctypes, json
from edgemed.base.errors import EdgemedError
from edgemed.base.runner import RunnerSpecs, TensorSpec
from edgemed.device.gpu import Gpu
from edgemed.device.here import Here
from edgemed.engine.bridge import Bridge, ErrorLog
from edgemed.engine.load import load_engine
from edgemed.engine.output import DeviceCalls
from edgemed.engine.plans import Plan
from edgemed.engine.record import EngineKey

standin = kept[0]
standin.standin_trace.restype = ctypes.c_char_p
bridge = Bridge(trt, "tensorrt", ErrorLog())
here = Here(None, Gpu("stand-in", "8.7"))
synchronized, freed, said = [], [], {}
addresses = iter(range(0x100000, 0x900000, 0x1000))


def plan_of(text, dla_core=None):
    columns = 6 if "grow" in text else 2
    specs = RunnerSpecs((TensorSpec("x", "float32", (None, 3, 8, 8)),), (TensorSpec("y", "float32", (None, columns)),))
    key = EngineKey(bundle="0" * 64, flavour="tensorrt", version=trt.__version__, compute_capability="8.7",
                    board="stand-in", precision="fp16", dla_core=dla_core)
    return Plan(key, specs, text.encode, "engine")


def calls(**changes):
    given = dict(stream=0x77, synchronize=lambda: synchronized.append(1), allocate=lambda size: next(addresses),
                 free=freed.append)
    return DeviceCalls(**(given | changes))


def failing(text, act, **changes):
    try:
        with load_engine(plan_of(text), bridge, here) as engine:
            act(engine.execution(calls(**changes)))
    except EdgemedError as error:
        return [type(error).__name__, error.exit_code, getattr(error, "sticky", None), str(error)]


def bound(execution):
    execution.bind("x", 0x10000)
    if execution.output_shape("y") is not None:
        execution.bind("y", 0x20000)
    execution.enqueue(0x55)


with load_engine(plan_of("plain", dla_core=1), bridge, here) as engine:
    said["aux"] = engine.aux_streams
    said["profiles"] = [p["x"] for p in engine.profiles]
    execution = engine.execution(calls(aux_streams=(0x81, 0x82)))
    other = engine.execution(calls())
    said["first"] = execution.output_shape("y")
    execution.set_input_shapes({"x": (8, 3, 8, 8)})
    said["second"] = execution.output_shape("y")
    execution.signal_input_consumed(0x99)
    bound(execution)
    execution.signal_input_consumed(0)
said["synchronized"] = len(synchronized)
with load_engine(plan_of("grow"), bridge, here) as engine:
    execution = engine.execution(calls())
    said["unknown"] = execution.output_shape("y")
    bound(execution)
    bound(execution)
    said["grown"] = execution.grown("y")
said["freed"] = freed
said["null"] = failing("null", bound)
said["starve"] = failing("starve", bound)
said["refuse"] = failing("refuse", bound)
said["late"] = failing("late", bound)
said["no memory"] = failing("grow", bound, allocate=lambda size: 1 / 0)
said["unbound"] = failing("plain", lambda execution: execution.enqueue(0x55))
said["trace"] = standin.standin_trace().decode().splitlines()
print(json.dumps(said))
"""


@ROWS
def test_an_engine_runs_through_the_real_bindings(row: fetch_bindings.Bindings, tmp_path: Path) -> None:
    if row.unsupported:
        pytest.skip(row.unsupported)
    folder = standin_nvinfer.build(row, fetch_bindings.fetch(row, CACHE), tmp_path / "standin")
    done = fetch_bindings.run_over_stubs(row, folder, DRIVE, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # where pybind11 puts an exception that left a callback
    said = json.loads(done.stdout)

    assert said["aux"] == 2
    assert said["profiles"] == [[[n, 3, 8, 8] for n in batches] for batches in ((1, 2, 4), (5, 6, 8))]
    assert (said["first"], said["second"]) == ([2, 2], [8, 2])
    assert said["synchronized"] == 2
    assert said["unknown"] is None
    assert said["grown"] == [0x100000, [5, 6]]
    assert said["freed"] == [0x100000]

    assert said["null"][:2] == ["IntegrityError", 5]
    assert said["starve"][:3] == ["GpuMemoryError", 6, False]
    assert said["refuse"][:3] == ["GpuError", 6, True]
    assert "an illegal memory access was encountered" in said["refuse"][3]
    assert said["late"][:3] == ["GpuError", 6, False]
    assert "an earlier kernel failed" in said["late"][3]
    assert "division by zero" in said["no memory"][3]
    assert "an address is missing" in said["unbound"][3]

    plain = said["trace"][: said["trace"].index("free runtime") + 1]
    assert plain == [
        "make runtime",
        "deserialize plain host code 0 dla 1",
        "make engine",
        "make context",
        "aux 0x81 0x82",
        "shape x 4:2,3",
        "make context",
        "shape x 4:2,3",
        "profile 1 on 0x77",
        "shape x 4:8,3",
        "bind x 0x10000",
        "bind y 0x20000",
        "enqueue on 0x55 x 0x10000 y 0x20000 consumed 0x99",
        "free context",
        "free context",
        "free engine",
        "free runtime",
    ]
    made, freed = (sum(line.startswith(word) for line in said["trace"]) for word in ("make", "free"))
    assert made == freed


# the whole way: our Runner, lane and ring, pycuda, NVIDIA's bindings, and work on the stream that comes out below
ON_CUDA = """
import json, sys, time
import numpy as np
from tests.runtime.fakecuda import handle
fake = handle.activate()
fake.fresh()
sys.modules["tensorrt"] = trt
from edgemed.base.runner import RunnerSpecs, TensorSpec
from edgemed.engine.plans import Plan
from edgemed.engine.record import EngineKey
from edgemed.runtime.cuda import open_cuda
from edgemed.runtime.frames import Frame
from edgemed.runtime.ring import Ring
from edgemed.runtime.tensorrt import TensorRtLane, TensorRtRunner

facts = open_cuda().facts


def plan_of(text):
    columns = 6 if "grow" in text else 2
    specs = RunnerSpecs((TensorSpec("x", "float32", (None, 3, 8, 8)),), (TensorSpec("y", "float32", (None, columns)),))
    key = EngineKey(bundle="0" * 64, flavour="tensorrt", version=trt.__version__, board=facts.name,
                    compute_capability=facts.compute_capability, precision="fp16")
    return Plan(key, specs, text.encode, "engine")


def frame(rows, seed):
    return np.random.default_rng(seed).random((rows, 3, 8, 8), dtype=np.float32)


def right(x, y):
    return bool(np.array_equal(y, x.ravel()[: y.size].reshape(y.shape))) and y.shape[0] in (5, len(x))


fake.delay(us=200)
said = {}
for integrated in (0, 1):
    fake.set(integrated=integrated)
    for graphs in (True, False):
        with TensorRtRunner(plan_of("copy"), graphs=graphs) as runner:
            frames = [frame(rows, seed) for seed, rows in enumerate((2, 2, 2, 7, 7, 1, 8, 8, 2))]
            answers = [right(x, runner.infer({"x": x})["y"]) for x in frames]
            said[f"runner {integrated} {graphs}"] = [all(answers), runner.lane.graphs]
with TensorRtRunner(plan_of("copy grow")) as runner:
    x = frame(4, 1)
    said["grown"] = [right(x, runner.infer({"x": x})["y"]), right(x, runner.infer({"x": x})["y"])]
for contexts in (1, 2):
    frames = [frame(3, seed) for seed in range(40)]
    with Ring(TensorRtLane(plan_of("copy"), 4, contexts=contexts)) as ring:
        source = (Frame(number, {"x": x}, time.monotonic_ns()) for number, x in enumerate(frames))
        answers = [right(frames[outcome.frame], outcome.outputs["y"]) for outcome in ring.run(source)]
    said[f"ring {contexts}"] = [len(answers), all(answers)]
said["races"], said["live"] = fake.races(), fake.live()
print(json.dumps(said))
"""


@ROWS
def test_a_runner_and_a_ring_compute_through_the_real_bindings(
    row: fetch_bindings.Bindings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := row.unsupported or fetch_cuda.unsupported():
        pytest.skip(reason)
    fetch_cuda.ensure()
    monkeypatch.setenv("EDGEMED_CACHE", str(CACHE))  # the child's own is a private place
    folder = standin_nvinfer.build(row, fetch_bindings.fetch(row, CACHE), tmp_path / "standin")
    done = fetch_bindings.run_over_stubs(row, folder, ON_CUDA, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert json.loads(done.stdout) == {
        "runner 0 True": [True, "replayed"],
        "runner 0 False": [True, "not used: not wanted"],
        "runner 1 True": [True, "replayed"],
        "runner 1 False": [True, "not used: not wanted"],
        "grown": [True, True],
        "ring 1": [40, True],
        "ring 2": [40, True],
        "races": [],
        "live": {},
    }
