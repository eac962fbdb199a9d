"""Files of Keras 2: loaded by tf_keras, equal to it, and never allowed to run their code."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import h5py
import pytest

from edgemed.base.errors import InputError, UnsafeModelError
from edgemed.convert import ConvertOptions, KerasModel
from edgemed.convert.scan import scan_model
from tests.convert.test_parity import PARITY, operations, parity

pytestmark = pytest.mark.usefixtures("shared_child")

CASES = {
    # file: (inputs, outputs, begins with rescaling)
    "unet.h5": (["image"], ["mask"], False),
    "operations.h5": (["image"], ["score"], True),
    "operations.keras": (["image"], ["score"], True),
    "separable.keras": (["image", "age"], ["zone", "grade"], True),
    "recurrent.h5": (["signal"], ["score"], False),
    "mixed.h5": (["image"], ["score"], False),
}

CLEAN = {  # upsampling is one plain resize; unrolled, with states or reversed, a recurrent layer is one node
    "unet.h5": {"Resize": 1, "ConvTranspose": 1, "Transpose": 0},
    "recurrent.h5": {"LSTM": 2, "GRU": 3, "Loop": 0},
}


@pytest.mark.parametrize("name", CASES)
def test_matches_tf_keras(models: Path, tmp_path: Path, name: str) -> None:
    inputs, outputs, rescales = CASES[name]
    converted, errors = parity(models / "keras2" / name, tmp_path)
    assert max(errors.values()) <= PARITY
    assert [spec.name for spec in converted.inputs] == inputs
    assert [spec.name for spec in converted.outputs] == outputs
    assert converted.rescales_inside is rescales
    assert set(converted.versions) == {"keras_in_file", "tensorflow", "tf_keras", "tf2onnx"}
    found = Counter(operations(converted))
    assert {kind: found[kind] for kind in CLEAN.get(name, {})} == CLEAN.get(name, {})


@pytest.mark.parametrize("version", [None, "2.4.0", "3.9.0"])
def test_version_decides_and_the_other_keras_is_tried(models: Path, tmp_path: Path, version: str | None) -> None:
    """Early files name no version; and a wrong one is no reason to fail."""
    path = tmp_path / "old.keras"  # before 2.12, this suffix stood for HDF5 as well
    shutil.copy(models / "keras2/unet.h5", path)
    with h5py.File(path, "a") as file:
        del file.attrs["keras_version"]
        if version:
            file.attrs["keras_version"] = version
    workdir = tmp_path / "work"
    workdir.mkdir()
    with KerasModel(path, workdir) as model:
        converted = model.convert()
    assert converted.format == "keras-h5"
    assert "tf_keras" in converted.versions
    assert converted.versions.get("keras_in_file") == version


@pytest.mark.parametrize("name", ["lambda.h5", "wrapped.h5", "nested.keras"])
def test_lambda_is_found_before_loading(models: Path, tmp_path: Path, touched: Path, name: str) -> None:
    with KerasModel(models / "keras2" / name, tmp_path) as model, pytest.raises(UnsafeModelError) as caught:
        model.convert()
    assert "layer 'evil' (a Lambda layer with Python bytecode)" in caught.value.what
    assert "SavedModel" in caught.value.hint
    assert not touched.exists()


def test_allowed_lambda_runs(models: Path, tmp_path: Path, touched: Path) -> None:
    """The proof that the payload is real: tf_keras runs it from .h5, whatever its safe mode."""
    code = tmp_path / "custom.py"
    code.write_text("")
    with KerasModel(models / "keras2/lambda.h5", tmp_path, ConvertOptions(allow_code=code)) as model:
        model.convert()
    assert touched.exists()


def test_custom_class_of_keras_2(models: Path, tmp_path: Path) -> None:
    path, code = models / "keras2/custom.h5", tmp_path / "custom.py"
    with pytest.raises(UnsafeModelError, match=r"'scaler' \(the custom class clinic>OldScale\)"):
        scan_model(path)
    code.write_text("import tf_keras\n")
    with KerasModel(path, tmp_path, ConvertOptions(allow_code=code)) as model:
        with pytest.raises(UnsafeModelError, match="Define it for tf_keras") as caught:
            model.convert()
        assert "clinic>OldScale" in caught.value.what
        code.write_text(
            "import tf_keras\n"
            "@tf_keras.utils.register_keras_serializable('clinic')\n"
            "class OldScale(tf_keras.layers.Layer):\n"
            "    def call(self, x):\n"
            "        return x * 2.0\n"
        )
        assert model.convert().outputs[0].name == "head"


def test_half_precision_saved_model_is_refused(models: Path, tmp_path: Path) -> None:
    """Its layer is named from keras_metadata.pb, which Keras 2 put beside the graph."""
    model = KerasModel(models / "keras2/mixed.saved", tmp_path)
    with model, pytest.raises(InputError, match=r"The layer 'half' \(Conv2D\) computes in float16") as caught:
        model.convert()
    assert ".h5 or .keras" in caught.value.hint
