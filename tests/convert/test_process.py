"""The child process: errors that travel, code that runs only where allowed, and ends of every kind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from edgemed.base.errors import ChildError, InputError, ResourceError, UnsafeModelError
from edgemed.convert import ConvertOptions, KerasModel
from edgemed.convert.process import ChildLog
from tests.waiting import has_ended, wait_for

CUSTOM = """
import keras

@keras.saving.register_keras_serializable("clinic")
class Scale(keras.layers.Layer):
    def call(self, x):
        return x * 2.0

@keras.saving.register_keras_serializable("clinic")
class Net(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.head = keras.layers.Dense(1)

    def call(self, x):
        return {"score": self.head(x), "double": x * 2.0}
"""


def fails(model: Path, workdir: Path, options: ConvertOptions | None = None) -> Exception:
    with KerasModel(model, workdir, options) as keras_model, pytest.raises(Exception) as caught:  # noqa: PT011
        keras_model.convert()
    return caught.value


@pytest.fixture
def in_one_child(shared_child: None) -> None:
    """The tests that ask for this check messages, not processes."""


@pytest.mark.usefixtures("in_one_child")
class TestMessages:
    """Each failure is the right leaf of the error tree, with a sentence that names the culprit."""

    def test_nan_weights_name_the_layer(self, models: Path, tmp_path: Path) -> None:
        for suffix in (".h5", ".keras"):
            error = fails(models / f"nan{suffix}", tmp_path)
            assert type(error) is InputError
            assert "'burnt'" in str(error)
            assert "NaN" in str(error)

    def test_operation_without_onnx_names_the_layer(self, models: Path, tmp_path: Path) -> None:
        error = fails(models / "antialias.keras", tmp_path)
        assert type(error) is InputError
        assert "'shrink' (Resizing)" in str(error)
        assert "ScaleAndTranslate" in str(error)
        assert not (tmp_path / "model.onnx").exists()

    @pytest.mark.parametrize(
        ("name", "message", "way_out"),
        [
            ("lanczos.keras", "The layer 'shrink' (Resizing)", "interpolation='bilinear'"),
            ("bicubic.keras", "The layer 'shrink' (Resizing)", "interpolation='bilinear'"),
            ("mel.keras", "The layer 'mel' (MelSpectrogram)", "in the recipe"),
            ("bins.keras", "The layer 'bins' (Discretization)", "feed its output"),
            ("hashing.keras", "The layer 'hash' (Hashing)", "feed its output"),
            ("lookup.keras", "(IntegerLookup)", "feed its output"),
            ("word.keras", "The input 'word' takes strings", "in the recipe"),
            ("stateful.keras", "The layer 'memory' (LSTM) is stateful", "stateful=False"),
        ],
    )
    def test_layers_that_cannot_be_converted(
        self, models: Path, tmp_path: Path, name: str, message: str, way_out: str
    ) -> None:
        error = fails(models / name, tmp_path)
        assert type(error) is InputError
        assert message in error.what
        assert way_out in error.hint
        assert not list(tmp_path.glob("model.onnx*"))

    def test_several_signatures(self, models: Path, tmp_path: Path) -> None:
        error = fails(models / "several.saved", tmp_path)
        assert type(error) is InputError
        assert sorted(re.findall(r"score|decode", error.hint)) == ["decode", "score"]
        error = fails(models / "several.saved", tmp_path, ConvertOptions(signature="decode"))
        assert "'png' takes strings" in str(error)
        with KerasModel(models / "several.saved", tmp_path, ConvertOptions(signature="score")) as model:
            converted = model.convert()
        assert converted.rescales_inside
        assert [spec.name for spec in converted.outputs] == ["y"]

    @pytest.mark.parametrize(
        ("shapes", "message"),
        [
            ({}, "open dimensions.*--input image=1x512x512x1"),
            ({"picture": (1, 8, 8, 1)}, "no input 'picture'.*image"),
            ({"image": (8, 8, 1)}, "4 dimensions with the batch, not 3"),
            ({"image": (1, 8, 8, 3)}, "does not fit"),
            ({"image": (1, 0, 8, 1)}, "does not fit"),
        ],
    )
    def test_shapes(self, models: Path, tmp_path: Path, shapes: dict[str, tuple[int, ...]], message: str) -> None:
        error = fails(models / "open.keras", tmp_path, ConvertOptions(shapes))
        assert type(error) is InputError
        with pytest.raises(InputError, match=message):
            raise error

    def test_batch_opset_signature(self, models: Path, tmp_path: Path) -> None:
        for options, message in (
            (ConvertOptions(batch=0), "batch of 0"),
            (ConvertOptions(opset=19), "Opset 19.*17"),
            (ConvertOptions(signature="other"), "no signature 'other'.*serving_default"),
        ):
            with pytest.raises(InputError, match=message):
                raise fails(models / "multi_io.saved", tmp_path, options)

    def test_feeds_must_fit(self, models: Path, tmp_path: Path) -> None:
        image = np.zeros((1, 32, 32, 3), np.float32)
        with KerasModel(models / "seed_cnn.h5", tmp_path) as model:
            with pytest.raises(RuntimeError, match="convert"):
                model.reference([])
            model.convert()
            for feed in ({"image": image.astype("f8")}, {"image": image[0]}, {"photo": image}, {}):
                with pytest.raises(InputError, match="takes"):
                    model.reference([feed])
            assert model.reference([]) == []
            assert model.reference([{"image": image}])[0]["probability"].shape == (1, 1)
        assert not list(tmp_path.glob("*.npz"))

    def test_keras_2_file_says_so(self, models: Path, tmp_path: Path) -> None:
        path = tmp_path / "old.h5"
        shutil.copy(models / "seed_cnn.h5", path)
        with h5py.File(path, "a") as file:
            file.attrs["keras_version"] = "2.15.0"
            config = file.attrs["model_config"]
            file.attrs["model_config"] = config.replace('"strides"', '"time_major": false, "strides"', 1)
        error = fails(path, tmp_path)
        assert type(error) is InputError
        assert "Keras 2.15.0" in str(error)
        assert "tf.saved_model.save" in str(error)

    def test_code_is_not_run(self, models: Path, tmp_path: Path, touched: Path) -> None:
        for name in ("lambda.h5", "lambda.keras", "writes.saved"):
            assert isinstance(fails(models / name, tmp_path), UnsafeModelError)
        assert not touched.exists()

    def test_debug_shows_the_log_as_cause(self, models: Path, tmp_path: Path) -> None:
        assert isinstance(fails(models / "nan.h5", tmp_path).__cause__, ChildLog)


@pytest.mark.usefixtures("in_one_child")
def test_allowed_lambda_runs_in_the_child(models: Path, tmp_path: Path, touched: Path) -> None:
    """The payload's own proof that the refusals above are what kept it from running."""
    code = tmp_path / "custom.py"
    code.write_text(CUSTOM)
    with KerasModel(models / "lambda.keras", tmp_path, ConvertOptions(allow_code=code)) as model:
        model.convert()
    assert touched.exists()


@pytest.mark.usefixtures("in_one_child")
def test_allowed_class(models: Path, tmp_path: Path) -> None:
    code = tmp_path / "custom.py"
    code.write_text(CUSTOM)
    with KerasModel(models / "registered.h5", tmp_path, ConvertOptions(allow_code=code)) as model:
        assert model.convert().outputs[0].shape == (1, 8, 8, 2)


@pytest.mark.usefixtures("in_one_child")
def test_allowed_subclass_needs_its_inputs(models: Path, tmp_path: Path) -> None:
    code = tmp_path / "custom.py"
    code.write_text(CUSTOM)
    error = fails(models / "subclass.keras", tmp_path, ConvertOptions(allow_code=code))
    assert "declares no inputs" in str(error)
    options = ConvertOptions({"scan": (2, 5)}, allow_code=code)
    with KerasModel(models / "subclass.keras", tmp_path, options) as model:
        converted = model.convert()
        sample = np.ones((2, 5), np.float32)
        outputs = model.reference([{"scan": sample}])[0]
    assert [str(spec) for spec in converted.inputs] == ["scan float32 2×5"]
    assert [str(spec) for spec in converted.outputs] == ["score float32 2×1", "double float32 2×5"]
    assert np.array_equal(outputs["double"], sample * 2)


@pytest.mark.usefixtures("in_one_child")
def test_missing_custom_class_is_named(models: Path, tmp_path: Path) -> None:
    code = tmp_path / "custom.py"
    code.write_text("import keras\n")
    error = fails(models / "unregistered.h5", tmp_path, ConvertOptions(allow_code=code))
    assert isinstance(error, UnsafeModelError)
    assert "Unregistered" in str(error)
    assert "--allow-code" in str(error)


@pytest.mark.usefixtures("in_one_child")
def test_allowed_code_that_is_missing_or_raises(models: Path, tmp_path: Path) -> None:
    code = tmp_path / "custom.py"
    assert "custom.py does not exist" in str(fails(models / "registered.h5", tmp_path, ConvertOptions(allow_code=code)))
    code.write_text("1 / 0\n")
    error = fails(models / "registered.h5", tmp_path, ConvertOptions(allow_code=code))
    assert type(error) is InputError
    assert "ZeroDivisionError" in str(error)


def test_killed_child(tmp_path: Path) -> None:
    from edgemed.convert import process

    child = process._Child(tmp_path)
    pid = child.process.pid
    assert os.getpgid(pid) == pid != os.getpgid(0)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ChildError, match="was killed, most likely because memory ran out") as caught:
        child.ask(op="convert")
    assert caught.value.exit_code == 6
    wait_for(lambda: has_ended(pid))


def test_leaving_the_block_kills_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what the child started itself, and also on Ctrl-C while waiting for an answer."""
    from edgemed.convert import process

    child = process._Child(tmp_path)
    pid = child.process.pid
    monkeypatch.setattr(child, "_answers", InterruptedStream(child._answers))
    with pytest.raises(KeyboardInterrupt):
        child.ask(op="load")
    wait_for(lambda: has_ended(pid))


class InterruptedStream:
    def __init__(self, stream: object) -> None:
        self._stream = stream

    def readline(self) -> str:
        raise KeyboardInterrupt

    def close(self) -> None:
        self._stream.close()  # type: ignore[attr-defined]


def test_child_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from edgemed.convert.process import _Child;"
        "child = _Child(Path(sys.argv[1])); print(child.process.pid, flush=True);"
        "time.sleep(600)"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not has_ended(pid)
        parent.kill()
    wait_for(lambda: has_ended(pid))


def test_parent_never_imports_tensorflow_and_leaves_nothing(models: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgemed.convert import KerasModel\n"
        "with KerasModel(Path(sys.argv[1]), Path(sys.argv[2])) as model:\n"
        "    converted = model.convert()\n"
        "    pid = model._child.process.pid\n"
        "assert not {'tensorflow', 'keras', 'tf2onnx'} & set(sys.modules)\n"
        "print(pid)"
    )
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    (cwd / "tensorflow.py").write_text("raise SystemExit('a file of the working directory was imported')")
    workdir = tmp_path / "work"
    workdir.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(models / "gelu.keras"), str(workdir)],
        cwd=cwd, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    wait_for(lambda: has_ended(int(done.stdout)))
    assert {path.name for path in workdir.iterdir()} <= {"model.onnx", "convert.log", "keras-home"}


def test_workdir_must_exist(models: Path, tmp_path: Path) -> None:
    assert isinstance(fails(models / "gelu.keras", tmp_path / "none"), ResourceError)
