"""The Runner protocol, held by both Runners; feeds are checked, never bent."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgemed.base.errors import InputError, IntegrityError, ResourceError
from edgemed.base.runner import Runner, RunnerSpecs, TensorSpec
from edgemed.base.spans import SpanLog
from edgemed.runners.null import NullRunner
from edgemed.runners.ort import OnnxRuntimeRunner

TEXT = '<ir_version: 8, opset_import: ["" : 17]> net (float[1,3] x, float[N,2] t) => (float[1,3] y, float[N,2] u) {'
SPECS = RunnerSpecs(
    (TensorSpec("x", "float32", (1, 3)), TensorSpec("t", "float32", (None, 2))),
    (TensorSpec("y", "float32", (1, 3)), TensorSpec("u", "float32", (None, 2))),
)
FEEDS = {"x": np.array([[1.0, -2.0, 3.0]], np.float32), "t": np.ones((4, 2), np.float32)}


def model() -> bytes:
    return onnx.parser.parse_model(TEXT + " y = Relu(x) u = Neg(t) }").SerializeToString()


def script(feeds):
    return {"y": np.maximum(feeds["x"], 0), "u": -feeds["t"]}


@pytest.fixture(params=["onnxruntime", "null"])
def runner(request: pytest.FixtureRequest):
    made = OnnxRuntimeRunner(model()) if request.param == "onnxruntime" else NullRunner(SPECS, script)
    with made as entered:
        yield entered


def test_it_follows_the_protocol(runner):
    assert isinstance(runner, Runner)
    assert runner.specs == SPECS
    assert runner.info.backend in ("onnxruntime", "null")


def test_it_answers_by_name(runner):
    fetches = runner.infer(FEEDS)
    np.testing.assert_array_equal(fetches["y"], [[1, 0, 3]])
    np.testing.assert_array_equal(fetches["u"], -np.ones((4, 2)))


def test_it_records_the_compute_span(runner):
    log = SpanLog()
    runner.infer(FEEDS, frame=7, spans=log)
    (span,) = log.spans
    assert (span.name, span.frame) == ("compute", 7)
    assert span.duration_ns > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((1, 4), np.float32)}, "got float32 1×4"),
        ({"x": np.zeros((1, 3), np.float64)}, "got float64"),
        ({"x": np.zeros(3, np.float32)}, "got float32 3"),
        ({"z": np.zeros(1, np.float32)}, "takes the inputs x, t"),
    ],
)
def test_feeds_that_do_not_match_are_refused(runner, change, message):
    with pytest.raises(InputError, match=message):
        runner.infer({**FEEDS, **change})


def test_a_missing_feed_is_refused(runner):
    with pytest.raises(InputError, match="got x"):
        runner.infer({"x": FEEDS["x"]})


def test_the_null_runner_takes_its_time():
    with NullRunner(SPECS, script, latency_ns=3_000_000) as runner:
        log = SpanLog()
        runner.infer(FEEDS, spans=log)
    assert log.spans[0].duration_ns >= 3_000_000


@pytest.mark.parametrize("data", [b"", b"not a model", model()[:40]])
def test_bytes_that_are_no_model_are_refused(data):
    with (
        pytest.raises((InputError, IntegrityError), match=r"cannot load the model|is damaged"),
        OnnxRuntimeRunner(data),
    ):
        pass
    with pytest.raises(IntegrityError), OnnxRuntimeRunner(data, promised=SPECS):
        pass


def test_q_dq_pairs_are_run_as_they_stand():
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> net (float[1,4] x) => (float[1,4] y) '
        "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"
    )
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(
        [numpy_helper.from_array(np.float32(0.5), "s"), numpy_helper.from_array(np.int8(0), "z")]
    )
    with OnnxRuntimeRunner(proto.SerializeToString()) as runner:
        y = runner.infer({"x": np.array([[0.24, 0.26, 0.75, 100.0]], np.float32)})["y"]
    np.testing.assert_array_equal(y, [[0.0, 0.5, 1.0, 63.5]])  # round half to even: 1.5 -> 2; 200 saturates at 127


def test_a_model_keeps_what_was_promised():
    with OnnxRuntimeRunner(model(), promised=SPECS) as runner:
        assert runner.specs == SPECS
    fixed = RunnerSpecs(SPECS.inputs, (SPECS.outputs[0], TensorSpec("u", "float32", (4, 2))))
    with OnnxRuntimeRunner(model(), promised=fixed):  # the graph leaves the first dimension open
        pass


@pytest.mark.parametrize(
    "outputs",
    [
        (TensorSpec("y", "float32", (1, 3)),),
        (*SPECS.outputs, TensorSpec("v", "float32", (1,))),
        (TensorSpec("y", "float32", (1, 4)), SPECS.outputs[1]),
        (TensorSpec("y", "int8", (1, 3)), SPECS.outputs[1]),
        (TensorSpec("z", "float32", (1, 3)), SPECS.outputs[1]),
        (TensorSpec("y", "float32", (3,)), SPECS.outputs[1]),
    ],
)
def test_a_model_that_breaks_a_promise_is_refused(outputs):
    with (
        pytest.raises(IntegrityError, match="where the manifest says"),
        OnnxRuntimeRunner(model(), promised=RunnerSpecs(SPECS.inputs, outputs)),
    ):
        pass


@pytest.mark.parametrize("location", ["../../../etc/passwd", "/etc/passwd", "weights.bin"])
def test_weights_outside_the_model_are_never_read(tmp_path, monkeypatch, location):
    (tmp_path / "weights.bin").write_bytes(np.array([1.0, 2.0, 3.0], np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> net (float[3] x) => (float[3] y) { y = Add(x, w) }'
    )
    weights = onnx.TensorProto(name="w", data_type=1, dims=[3], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        weights.external_data.add(key=key, value=value)
    proto.graph.initializer.append(weights)
    with pytest.raises(IntegrityError, match="from a file"), OnnxRuntimeRunner(proto.SerializeToString()):
        pass


def test_the_flatbuffer_format_is_not_taken_for_onnx():
    with pytest.raises((InputError, IntegrityError)), OnnxRuntimeRunner(b"\x18\x00\x00\x00ORTM" + bytes(64)):
        pass


def test_too_little_memory_is_said_so():
    """2^40 floats are asked for, which no machine has."""
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> net (int64[1] n) => (float[M] y) { y = ConstantOfShape(n) }'
    )
    with OnnxRuntimeRunner(proto.SerializeToString()) as runner, pytest.raises(ResourceError, match="out of memory"):
        runner.infer({"n": np.array([1 << 40])})


SESSION = """
import pathlib, sys, time
from edgemed.runners.ort import OnnxRuntimeRunner
with OnnxRuntimeRunner(pathlib.Path(sys.argv[1]).read_bytes()):
    time.sleep(0.5)
"""


def test_idle_threads_do_not_spin():
    """They doubled the processor time of calibration, whose counting nodes run on one thread."""
    with OnnxRuntimeRunner(model()) as runner:
        options = runner._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_session_leaves_nothing_in_home_and_temporary_folder(tmp_path):
    """ONNX Runtime 1.32 and later would keep an identity and a session file there, and report to its maker."""
    (tmp_path / "net.onnx").write_bytes(model())
    places = {name: tmp_path / name.lower() for name in ("HOME", "TMPDIR")}
    for place in places.values():
        place.mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ORT_"))}
    environment = kept | {name: str(place) for name, place in places.items()}
    subprocess.run([sys.executable, "-c", SESSION, str(tmp_path / "net.onnx")], check=True, env=environment)
    assert [path for place in places.values() for path in place.rglob("*")] == []
