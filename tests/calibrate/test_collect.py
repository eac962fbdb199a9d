"""Collection equals numpy on the tensors that ONNX Runtime itself hands out."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemed.base.errors import InputError
from edgemed.calibrate.collect import collect, scale_table
from edgemed.calibrate.observers import BINS
from edgemed.graph.instrument import stride
from edgemed.graph.model import float_values, infer_shapes

rng = np.random.default_rng(0)
WEIGHT = rng.standard_normal((8, 3, 3, 3)).astype(np.float32)


def small_net() -> ir.Model:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["conv"], name="c", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"], name="r"),
        helper.make_node("GlobalAveragePool", ["relu"], ["y"], name="g"),
    ]
    weights = [
        numpy_helper.from_array(WEIGHT, "w"),
        numpy_helper.from_array(rng.standard_normal(8).astype(np.float32), "b"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 1, 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return infer_shapes(ir.from_proto(model))


def tensors_by_ort(model: ir.Model, names: list[str], feeds: dict) -> dict:
    proto = ir.to_proto(model)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name != "x")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options)
    got = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))
    return {**got, **feeds}


def samples(n: int = 5) -> list[dict]:
    return [{"x": rng.standard_normal((1, 3, 16, 16)).astype(np.float32) * 2.0**i} for i in range(n)]


def test_histograms_equal_numpy_on_every_tensor():
    model, data = small_net(), samples()
    names = float_values(model)
    assert names == ["x", "conv", "relu", "y"]
    histograms = collect(model, data, tensors=names)
    every = [tensors_by_ort(model, names, feeds) for feeds in data]
    for name in names:
        values = np.concatenate([tensors[name].ravel() for tensors in every]).astype(np.float64)
        amax = np.abs(values).max()
        histogram = histograms[name]
        assert histogram.amax == pytest.approx(amax, rel=1e-6)  # FP32 of one kernel run in two graphs
        assert histogram.exponent == math.floor(math.log2(amax)) + 1
        index = (np.abs(values) * (BINS / 2.0**histogram.exponent)).astype(np.int64)
        # another fusion may move a value by one ULP over the edge of a bin
        assert np.abs(np.cumsum(np.bincount(index, minlength=BINS)) - np.cumsum(histogram.counts)).max() <= 2


def rectifier() -> ir.Model:
    """Every float tensor is x, or a Relu of it, behind nodes that rearrange."""
    text = """<ir_version: 8, opset_import: ["" : 17]> net (float[1,2,8,8] x) => (float[1,128] y)
    <int64[2] two_d = {1, -1}, int64[3] three_d = {2, 8, 8}> {
        turned = Transpose<perm=[0,2,3,1]>(x) relu = Relu(turned) again = Relu(relu)
        folded = Reshape(again, three_d) same = Identity(folded) y = Reshape(same, two_d)
    }"""
    return infer_shapes(ir.from_proto(onnx.parser.parse_model(text)))


def counted(values: np.ndarray) -> tuple[int, np.ndarray]:
    magnitudes = np.abs(values).astype(np.float64)
    exponent = math.frexp(magnitudes.max())[1] if magnitudes.max() else -100
    return exponent, np.bincount((magnitudes * (BINS / 2.0**exponent)).astype(np.int64).ravel(), minlength=BINS)


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 1.0), (-1.0, 0.1), (-1.0, 1e-5), (-1e30, 1e-30), (-0.1, 1.0), (-1.0, -0.5), (0.0, 3.0)]
)
def test_a_relu_that_shares_a_count_gets_the_bins_of_its_own(low, high):
    """Bit for bit what numpy counts of the tensor alone, however far the two ranges lie apart."""
    x = np.linspace(low, high, 128).astype(np.float32)
    x[:32] = np.linspace(0, high, 32)  # enough of them to fill bins on the narrow side
    x = rng.permutation(x).reshape(1, 2, 8, 8)
    model = rectifier()
    names = float_values(model)
    histograms = collect(model, [{"x": x}], tensors=names)
    assert list(histograms) == names == ["x", "turned", "relu", "again", "folded", "same", "y"]
    for name in names:
        exponent, counts = counted(x if name in ("x", "turned") else np.maximum(x, 0))
        assert (histograms[name].exponent, histograms[name].counts.tolist()) == (exponent, counts.tolist())
        assert histograms[name].amax == (np.abs(x).max() if name in ("x", "turned") else max(x.max(), 0))


@pytest.mark.parametrize("shape", [(1, 2, 200, 400), (1, 64, 112, 112), (1, 3, 224, 224)])
def test_of_a_large_tensor_every_so_many_values_are_counted(shape):
    """In step with no dimension; the extremes are those of all values."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]> net (float{list(shape)} x) => (float{list(shape)} y) {{
        y = Relu(x)
    }}"""
    model = infer_shapes(ir.from_proto(onnx.parser.parse_model(text)))
    x = rng.standard_normal(shape).astype(np.float32)
    x.flat[5] = 9.0  # not among those that are counted, but it sets the range
    step = stride(x.size)
    assert x.size // 2**15 <= step < x.size // 2**15 + 20
    assert all(math.gcd(step, size) == 1 for size in shape)
    histogram = collect(model, [{"x": x}], tensors=["x", "y"])["y"]
    assert histogram.amax == 9.0
    assert histogram.exponent == 4
    sampled = np.maximum(x.ravel()[::step], 0)
    wanted = np.bincount((sampled * (BINS / 16)).astype(np.int64), minlength=BINS)
    assert histogram.counts.tolist() == wanted.tolist()


def test_a_relu_alone_is_observed_itself():
    x = rng.standard_normal((1, 2, 8, 8)).astype(np.float32)
    alone = collect(rectifier(), [{"x": x}], tensors=["same"])["same"]
    exponent, counts = counted(np.maximum(x, 0))
    assert (alone.exponent, alone.counts.tolist()) == (exponent, counts.tolist())


def test_without_counts_the_largest_values_are_the_same():
    model, data = small_net(), samples()
    names = float_values(model)
    counted, bare = (collect(model, data, tensors=names, counts=wanted) for wanted in (True, False))
    for name in names:
        assert bare[name].amax == pytest.approx(counted[name].amax, rel=1e-6)  # another graph, another fusion
        assert bare[name].counts is None


@pytest.mark.parametrize("amax", [1.0, 2.0**-20, 65536.0, 0.1, 3.0, 0.0, 1e-40])
def test_powers_of_two_and_zeros_stay_inside_the_bins(amax):
    model = small_net()
    feeds = {"x": np.full((1, 3, 16, 16), -amax, np.float32)}
    histogram = collect(model, [feeds], tensors=["x"])["x"]
    assert histogram.counts.sum() == 3 * 16 * 16
    assert histogram.amax == np.float32(amax)
    assert amax < 2.0**histogram.exponent


def test_the_model_itself_is_not_changed():
    model = small_net()
    before = ir.to_proto(model).SerializeToString()
    collect(model, samples(1), tensors=["relu"])
    assert ir.to_proto(model).SerializeToString() == before


def test_overflow_names_the_tensor():
    model = small_net()
    feeds = {"x": np.full((1, 3, 16, 16), 3e38, np.float32)}
    with pytest.raises(InputError, match=r"Tensor conv is (inf|nan) on calibration sample 1"):
        collect(model, [feeds], tensors=["conv"])


@pytest.mark.parametrize("index", [0, 300, 767])
def test_nan_is_found_wherever_it_stands(index):
    feeds = {"x": rng.standard_normal((1, 3, 16, 16)).astype(np.float32)}
    feeds["x"].reshape(-1)[index] = np.nan
    with pytest.raises(InputError, match="Tensor x is nan on calibration sample 1"):
        collect(small_net(), [feeds], tensors=["x"])


PEAK = """
import resource, sys
import numpy as np, onnx, onnx_ir as ir
from onnx import numpy_helper
from edgemed.calibrate.collect import collect
from edgemed.graph.instrument import stride
from edgemed.graph.model import float_values, infer_shapes
depth = int(sys.argv[1])
body = "".join(f"c{i} = Conv <pads=[1,1,1,1]> (a{i}, w) a{i + 1} = Relu(c{i}) " for i in range(depth))
text = f'<ir_version: 8, opset_import: ["" : 17]> n (float[1,16,256,256] a0) => (float[1,16,1,1] y) '
proto = onnx.parser.parse_model(text + "{" + body + f"y = GlobalAveragePool(a{depth})" + "}")
proto.graph.initializer.append(numpy_helper.from_array(np.full((16, 16, 3, 3), 0.01, np.float32), "w"))
model = infer_shapes(ir.from_proto(proto))
collect(model, [{"a0": np.ones((1, 16, 256, 256), np.float32)}] * 2, tensors=float_values(model))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_depth_of_the_network():
    shallow, deep = (
        int(subprocess.run([sys.executable, "-c", PEAK, depth], capture_output=True, text=True, check=True).stdout)
        for depth in ("4", "24")
    )
    # 40 more tensors of 4 MiB: held until the end they would take 160 MiB more
    assert deep < shallow + 60


def test_no_samples_is_an_error():
    with pytest.raises(InputError, match="no calibration samples"):
        collect(small_net(), [], tensors=["x"])


def test_the_table_holds_every_tensor_and_its_provenance():
    model = small_net()
    histograms = collect(model, samples(), tensors=float_values(model))
    digest = "0" * 64
    table = scale_table(histograms, "minmax", images=5, data_digest=digest, recipe_digest=digest, graph_digest=digest)
    assert set(table.tensors) == {"x", "conv", "relu", "y"}
    for name, entry in table.tensors.items():
        assert entry.amax == histograms[name].amax == entry.seen
        assert entry.scale == pytest.approx(entry.amax / 127, rel=1e-12)
    assert table.percentile is None
