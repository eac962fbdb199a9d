"""Converted graphs against Keras' own outputs, on random inputs, for each file format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.convert import Converted, ConvertOptions, KerasModel
from edgemed.graph.batch import pinned
from edgemed.graph.costs import costs
from edgemed.graph.model import load
from edgemed.graph.passes import clean_graph
from edgemed.graph.values import static_shape

pytestmark = pytest.mark.usefixtures("shared_child")

# Both sides compute in FP32, but sum in another order (Eigen's blocks against MLAS'), and BatchNorm is folded into
# weights: a few ulp per layer. 1e-4 of the output range is issue 2's bound; a wrong weight or layout gives > 1e-2.
PARITY = 1e-4


def feeds_for(converted: Converted, count: int = 2, high: float = 1.0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    # pixels up to `high`, rows of a table up to 1: a saturated sigmoid has nothing to compare
    ends = {s.name: high if len(s.shape) == 4 else 1.0 for s in converted.inputs}
    return [
        {s.name: rng.uniform(0, ends[s.name], s.shape).astype(s.dtype) for s in converted.inputs} for _ in range(count)
    ]


def parity(model: Path, workdir: Path, options: ConvertOptions | None = None) -> tuple[Converted, dict[str, float]]:
    """Convert, run both sides, and give max|Δ| / max|reference| per output."""
    with KerasModel(model, workdir, options) as keras_model:
        converted = keras_model.convert()
        feeds = feeds_for(converted, high=255.0 if converted.rescales_inside else 1.0)
        references = keras_model.reference(feeds)
    session = onnxruntime.InferenceSession(str(converted.path), providers=["CPUExecutionProvider"])
    names = [spec.name for spec in converted.outputs]
    assert [value.name for value in session.get_outputs()] == names
    errors = dict.fromkeys(names, 0.0)
    for feed, reference in zip(feeds, references, strict=True):
        assert list(reference) == names
        for spec, found in zip(converted.outputs, session.run(names, feed), strict=True):
            wanted = reference[spec.name]
            assert found.shape == wanted.shape == spec.shape
            assert found.dtype == wanted.dtype == spec.dtype
            errors[spec.name] = max(errors[spec.name], float(np.abs(found - wanted).max() / np.abs(wanted).max()))
    return converted, errors


def operations(converted: Converted) -> list[str]:
    return [node.op_type for node in onnx.load_model(str(converted.path)).graph.node]


CASES = {
    # file: (inputs, outputs, begins with rescaling, activations)
    "seed_cnn.h5": (["image"], ["probability"], False, ["sigmoid"]),
    "unet.h5": (["image"], ["mask"], False, ["sigmoid"]),
    "unet_nearest.keras": (["image"], ["mask"], False, ["sigmoid"]),
    "tiny_resnet.h5": (["image"], ["classes"], False, ["softmax"]),
    "functional.keras": (["image"], ["score"], False, ["none"]),
    "multi_io.keras": (["image", "age"], ["zone", "grade"], False, ["none", "sigmoid"]),
    "multi_io.saved": (["age", "image"], ["grade", "zone"], False, ["sigmoid", "none"]),
    "normalization.h5": (["image"], None, True, ["none"]),
    "normalization.saved": (["image"], ["output_0"], True, ["none"]),
    "sequential.h5": (None, None, False, ["none"]),
    "grouped.h5": (None, None, False, ["none"]),
    "gelu.keras": (None, None, False, ["none"]),
    "rescaling.keras": (None, ["softmax"], True, ["softmax"]),
}


@pytest.mark.parametrize("name", CASES)
def test_every_format_and_trap_matches_keras(models: Path, tmp_path: Path, name: str) -> None:
    inputs, outputs, rescales, activations = CASES[name]
    converted, errors = parity(models / name, tmp_path)
    assert max(errors.values()) <= PARITY
    assert inputs is None or [spec.name for spec in converted.inputs] == inputs
    assert outputs is None or [spec.name for spec in converted.outputs] == outputs
    assert converted.rescales_inside is rescales
    assert list(converted.output_activations.values()) == activations
    assert all(spec.shape[0] == 1 for spec in converted.inputs)
    assert converted.parameters > 0


@pytest.mark.parametrize(
    ("name", "format", "origin"),
    [
        ("seed_cnn.h5", "keras-h5", "keras_in_file"),
        ("functional.keras", "keras-v3", "keras_in_file"),
        ("multi_io.saved", "saved-model", "tensorflow_in_file"),
    ],
)
def test_file_on_disk_is_what_is_reported(models: Path, tmp_path: Path, name: str, format: str, origin: str) -> None:
    with KerasModel(models / name, tmp_path) as model:
        converted = model.convert()
    assert converted.format == format
    assert set(converted.versions) == {origin, "tensorflow", "keras", "tf2onnx"}
    proto = onnx.load_model(str(converted.path))
    onnx.checker.check_model(proto, full_check=True)
    assert proto.ir_version == 8
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 17)]
    assert [value.name for value in proto.graph.input] == [spec.name for spec in converted.inputs]
    assert not {tensor.name for tensor in proto.graph.initializer} & {value.name for value in proto.graph.input}


def test_seed_cnn_is_described(models: Path, tmp_path: Path) -> None:
    with KerasModel(models / "seed_cnn.h5", tmp_path) as model:
        converted = model.convert()
    assert converted.inputs == (TensorSpec("image", "float32", (1, 32, 32, 3)),)
    assert converted.outputs == (TensorSpec("probability", "float32", (1, 1)),)
    assert [layer.class_name for layer in converted.layers if layer.class_name in ("Conv2D", "Dense")] == [
        "Conv2D", "Conv2D", "Conv2D", "Dense", "Dense",
    ]  # fmt: skip
    expected = 3 * 32 * 9 + 32 + 32 * 64 * 9 + 64 + 64 * 128 * 9 + 128 + 2 * 2 * 128 * 64 + 64 + 64 + 1
    assert converted.parameters == expected


def test_nearest_upsampling_leaves_no_transpose(models: Path, tmp_path: Path) -> None:
    converted, errors = parity(models / "unet_nearest.keras", tmp_path)
    found = operations(converted)
    assert found.count("Resize") == 2
    assert "Transpose" not in found
    assert "Tile" not in found
    assert max(errors.values()) <= PARITY


def test_recurrent_layers_are_one_node_each(models: Path, tmp_path: Path) -> None:
    """With states in and out, unrolled, backwards, bidirectional, with and without biases."""
    converted, errors = parity(models / "recurrent.keras", tmp_path)
    found = operations(converted)
    assert (found.count("LSTM"), found.count("GRU"), found.count("RNN"), found.count("Loop")) == (2, 3, 1, 0)
    assert max(errors.values()) <= PARITY


def test_masked_recurrent_layer_stays_a_loop(models: Path, tmp_path: Path) -> None:
    """A mask may skip any step; ONNX' LSTM can only end early."""
    converted, errors = parity(models / "masked.keras", tmp_path)
    assert operations(converted).count("Loop") == 1
    assert max(errors.values()) <= PARITY


def test_biases_survive(models: Path, tmp_path: Path) -> None:
    """With zero biases TensorFlow drops them, and the fixtures would hide what trained models meet."""
    with KerasModel(models / "seed_cnn.h5", tmp_path) as model:
        converted = model.convert()
    convolutions = [n for n in onnx.load_model(str(converted.path)).graph.node if n.op_type == "Conv"]
    assert [len(node.input) for node in convolutions] == [3, 3, 3]


@pytest.mark.parametrize(("opset", "ir"), [(13, 7), (15, 8)])
def test_older_opsets(models: Path, tmp_path: Path, opset: int, ir: int) -> None:
    converted, errors = parity(models / "tiny_resnet.h5", tmp_path, ConvertOptions(opset=opset))
    proto = onnx.load_model(str(converted.path))
    assert (proto.opset_import[0].version, proto.ir_version) == (opset, ir)
    assert max(errors.values()) <= PARITY


@pytest.mark.parametrize("name", ["mixed.h5", "mixed.keras"])
def test_mixed_precision_is_converted_in_float32(models: Path, tmp_path: Path, name: str) -> None:
    converted, errors = parity(models / name, tmp_path)
    assert max(errors.values()) <= PARITY
    kinds = {tensor.data_type for tensor in onnx.load_model(str(converted.path)).graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in kinds


@pytest.mark.parametrize("name", ["multi_io.keras", "recurrent.keras", "keras2/separable.keras", "decides.keras"])
def test_many_references_are_what_few_are(models: Path, tmp_path: Path, name: str) -> None:
    """Traced once instead of run node by node: the same to some ulp of the largest output, in the same order."""
    with KerasModel(models / name, tmp_path) as model:
        feeds = feeds_for(model.convert(), count=12)
        many = model.reference(feeds)
        few = [*model.reference(feeds[:6]), *model.reference(feeds[6:])]
    for one, other in zip(many, few, strict=True):
        assert list(one) == list(other)
        for output, array in one.items():
            assert array.dtype == other[output].dtype
            np.testing.assert_allclose(array, other[output], atol=1e-5 * np.abs(other[output]).max())


def test_batch_and_open_dimensions(models: Path, tmp_path: Path) -> None:
    converted, errors = parity(models / "open.keras", tmp_path, ConvertOptions({"image": (2, 16, 24, 1)}))
    assert converted.inputs[0].shape == (2, 16, 24, 1)
    assert max(errors.values()) <= PARITY
    converted, errors = parity(models / "multi_io.saved", tmp_path, ConvertOptions(batch=3))
    assert [spec.shape[0] for spec in converted.inputs + converted.outputs] == [3, 3, 3, 3]
    assert max(errors.values()) <= PARITY


@pytest.mark.parametrize("suffix", [".h5", ".keras"])  # Keras itself cannot read an operation from its own .h5
def test_arithmetic_on_the_input_counts_as_rescaling(models: Path, tmp_path: Path, suffix: str) -> None:
    converted, errors = parity(models / f"arithmetic{suffix}", tmp_path)
    assert converted.rescales_inside
    assert max(errors.values()) <= PARITY


@pytest.mark.parametrize("name", ["seed_cnn.h5", "unet_nearest.keras", "multi_io.saved", "recurrent.keras"])
def test_batch_that_varies(models: Path, tmp_path: Path, name: str) -> None:
    """Named alike at every input and output; three samples at once are what each gives by itself."""
    with KerasModel(models / name, tmp_path, ConvertOptions(batch=None)) as model:
        converted = model.convert()
        assert {spec.shape[0] for spec in converted.inputs + converted.outputs} == {None}
        three = [TensorSpec(s.name, s.dtype, (3, *s.shape[1:])) for s in converted.inputs]
        rng = np.random.default_rng(0)
        feeds = {s.name: rng.uniform(0, 1, s.shape).astype(s.dtype) for s in three}
        (reference,) = model.reference([feeds])
    graph = onnx.load_model(str(converted.path)).graph
    assert {v.type.tensor_type.shape.dim[0].dim_param for v in (*graph.input, *graph.output)} == {"batch"}
    session = onnxruntime.InferenceSession(str(converted.path), providers=["CPUExecutionProvider"])
    for output, found in zip(converted.outputs, session.run(list(reference), feeds), strict=True):
        assert np.abs(found - reference[output.name]).max() <= PARITY * np.abs(reference[output.name]).max()


def test_shapes_that_a_graph_computes_follow_a_pinned_batch(models: Path, tmp_path: Path) -> None:
    """MultiHeadAttention multiplies sizes in the graph, which ONNX' shape inference does not follow."""
    with KerasModel(models / "attention.keras", tmp_path, ConvertOptions(batch=None)) as model:
        converted = model.convert()
    clean = clean_graph(load(converted.path)).model
    fixed = pinned(clean, 3)
    shapes = [static_shape(v) for n in fixed.graph if n.op_type in ("MatMul", "Softmax") for v in n.outputs]
    assert None not in shapes
    assert {shape[0] for shape in shapes if shape is not None} <= {3, 6}  # six are three samples of two heads
    assert sum(cost.macs for cost in costs(pinned(clean, 1))) * 3 == sum(cost.macs for cost in costs(fixed)) > 0


def test_the_users_class_wins_over_an_operation_of_its_name(models: Path, tmp_path: Path) -> None:
    code = tmp_path / "custom.py"
    code.write_text(
        "import keras\nclass Normalize(keras.layers.Layer):\n    def call(self, x):\n        return x * 5.0\n"
    )
    workdir = tmp_path / "work"
    workdir.mkdir()
    with KerasModel(models / "normalize.h5", workdir, ConvertOptions(allow_code=code)) as model:
        converted = model.convert()
        row = np.ones((1, 4), np.float32)
        (reference,) = model.reference([{converted.inputs[0].name: row}])
        (other,) = model.reference([{converted.inputs[0].name: 2 * row}])
    np.testing.assert_allclose(other["score"], 2 * reference["score"], rtol=1e-5)  # normalized, both would be equal


def test_fixed_batch_cannot_vary(models: Path, tmp_path: Path) -> None:
    with (
        KerasModel(models / "stateful.keras", tmp_path, ConvertOptions(batch=None)) as model,
        pytest.raises(InputError, match=r"stateful|fixed batch"),
    ):
        model.convert()


def test_format_is_known_by_content_not_by_name(models: Path, tmp_path: Path) -> None:
    odd = tmp_path / "model.bin"
    odd.write_bytes((models / "gelu.keras").read_bytes())
    workdir = tmp_path / "work"
    workdir.mkdir()
    converted, errors = parity(odd, workdir)
    assert converted.format == "keras-v3"
    assert max(errors.values()) <= PARITY


@pytest.mark.slow
def test_resnet50(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = Path(__file__).resolve().parents[1] / "keras_models.py"
    path = tmp_path / "resnet50.h5"
    subprocess.run([sys.executable, str(script), "resnet50", str(path)], check=True, capture_output=True)
    _, errors = parity(path, tmp_path)
    assert max(errors.values()) <= PARITY
