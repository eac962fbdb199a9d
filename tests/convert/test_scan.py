"""The look before loading: formats, faults and code, found without TensorFlow."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import EdgemedError, InputError, UnsafeModelError
from edgemed.convert.known import CODE_CLASSES, KERAS_CLASSES, KERAS_OPERATIONS
from edgemed.convert.scan import scan_model


def test_formats(models: Path) -> None:
    assert scan_model(models / "seed_cnn.h5").format == "keras-h5"
    assert scan_model(models / "gelu.keras").format == "keras-v3"
    assert scan_model(models / "multi_io.saved").format == "saved-model"
    assert not scan_model(models / "seed_cnn.h5").keras2


def test_every_good_model_passes(models: Path) -> None:
    for name in (
        "unet.h5",
        "tiny_resnet.h5",
        "sequential.h5",
        "functional.keras",
        "grouped.h5",
        "mixed.keras",
        "mixed.h5",
    ):
        assert scan_model(models / name).unsafe == ()


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize(
    ("stem", "layer", "what"),
    [
        ("lambda", "evil", "Lambda"),
        ("lambda_activation", "hidden", "pickled"),
        ("registered", "scaler", "clinic>Scale"),
        ("unregistered", "stranger", "Unregistered"),
        ("function", "activated", "clinic_activation"),
    ],
)
def test_code_is_refused_by_layer_name(
    models: Path, touched: Path, stem: str, layer: str, what: str, suffix: str
) -> None:
    path = models / f"{stem}{suffix}"
    with pytest.raises(UnsafeModelError, match=f"'{layer}'.*{what}") as caught:
        scan_model(path)
    assert "--allow-code" in caught.value.hint
    assert caught.value.exit_code == 2
    assert len(scan_model(path, allow_code=True).unsafe) == 1
    assert not touched.exists()


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("writes", "WriteFile"),
        ("python", "PyFunc"),
        ("reads", "ReadFile"),
        ("saves", "SaveV2"),
        ("disguised", "a call of __inference__traced_save_99"),
    ],
)
def test_saved_model_that_touches_the_machine(models: Path, touched: Path, name: str, operation: str) -> None:
    for allow in (False, True):  # a graph is data: no Python file of the user's can make it harmless
        with pytest.raises(UnsafeModelError, match=operation):
            scan_model(models / f"{name}.saved", allow_code=allow)
    assert not touched.exists()


def cut(source: Path, target: Path) -> Path:
    data = source.read_bytes()
    target.write_bytes(data[: len(data) * 2 // 3])
    return target


def test_cut_files(models: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cut\.h5 is cut"):
        scan_model(cut(models / "seed_cnn.h5", tmp_path / "cut.h5"))
    with pytest.raises(InputError, match=r"cut\.keras is cut"):
        scan_model(cut(models / "gelu.keras", tmp_path / "cut.keras"))
    shutil.copytree(models / "multi_io.saved", tmp_path / "cut.saved")
    pb = tmp_path / "cut.saved/saved_model.pb"
    cut(pb, pb)
    with pytest.raises(InputError, match="damaged or cut"):
        scan_model(tmp_path / "cut.saved")


def test_missing_weights(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "less.h5"
    shutil.copy(models / "seed_cnn.h5", path)
    with h5py.File(path, "a") as file:
        group = file["model_weights/probability"]
        del group[group.attrs["weight_names"][0]]
    with pytest.raises(InputError, match="lacks weights of the layer 'probability'"):
        scan_model(path)
    with h5py.File(path, "a") as file:
        del file["model_weights"]
    with pytest.raises(InputError, match="holds no weights"):
        scan_model(path)
    shutil.copytree(models / "multi_io.saved", tmp_path / "less.saved")
    shutil.rmtree(tmp_path / "less.saved/variables")
    with pytest.raises(InputError, match="variables"):
        scan_model(tmp_path / "less.saved")


def test_weights_only(models: Path) -> None:
    with pytest.raises(InputError, match="weights only"):
        scan_model(models / "only.weights.h5")


def test_checkpoints_and_parts_of_models(tmp_path: Path) -> None:
    checkpoint = tmp_path / "ckpt"
    checkpoint.mkdir()
    (checkpoint / "model.ckpt.index").write_bytes(b"x" * 10)
    with pytest.raises(InputError, match=r"weights only.*load_weights.*model\.save"):
        scan_model(checkpoint)
    with pytest.raises(InputError, match="part of a checkpoint"):
        scan_model(checkpoint / "model.ckpt.index")
    (tmp_path / "architecture.json").write_text('{"class_name": "Sequential"}')
    with pytest.raises(InputError, match="without weights"):
        scan_model(tmp_path / "architecture.json")
    (tmp_path / "saved/1").mkdir(parents=True)
    (tmp_path / "saved/1/saved_model.pb").write_bytes(b"x")
    with pytest.raises(InputError, match=r"Give .*saved/1"):
        scan_model(tmp_path / "saved")
    with pytest.raises(InputError, match="give the directory"):
        scan_model(tmp_path / "saved/1/saved_model.pb")


@pytest.mark.parametrize("kind", ["link", "external", "virtual"])
def test_weights_in_other_files_of_the_machine(models: Path, tmp_path: Path, kind: str) -> None:
    path, secret = tmp_path / "model.h5", tmp_path / "secret.h5"
    shutil.copy(models / "seed_cnn.h5", path)
    with h5py.File(secret, "w") as file:
        file["kernel"] = [0.0]
    with h5py.File(path, "a") as file:
        group = file["model_weights/probability"]
        name = group.attrs["weight_names"][0]
        name = name.decode() if isinstance(name, bytes) else name
        del group[name]
        if kind == "link":
            group[name] = h5py.ExternalLink(str(secret), "kernel")
        elif kind == "external":
            group.create_dataset(name, (4,), "f4", external=[(str(secret), 0, 16)])
        else:
            layout = h5py.VirtualLayout((1,), "f8")
            layout[:] = h5py.VirtualSource(str(secret), "kernel", (1,))
            group.create_virtual_dataset(name, layout)
    with pytest.raises(UnsafeModelError, match="from another file"):
        scan_model(path)
    whole = {"config.json": CONFIG, "model.weights.h5": path.read_bytes()}
    with pytest.raises(UnsafeModelError, match="from another file"):
        scan_model(archive(tmp_path / "model.keras", whole))


NOT_MODELS: dict[str, bytes] = {
    "random.h5": bytes(range(1, 256)) * 20,
    "text.h5": b"this is not a model\n",
    "model.onnx": b"\x08\x08\x12\x04onnx" + b"\0" * 50,
    "almost.h5": b"\x89HDF\r\n\x1a\n" + b"\0" * 4,
    "almost.keras": b"PK\x03\x04",
}


@pytest.mark.parametrize("name", NOT_MODELS)
def test_not_a_model(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(NOT_MODELS[name])
    with pytest.raises(InputError, match=name) as caught:
        scan_model(path)
    assert caught.value.hint


def test_missing_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        scan_model(tmp_path / "none.h5")
    (tmp_path / "empty.h5").touch()
    with pytest.raises(InputError, match="is empty"):
        scan_model(tmp_path / "empty.h5")
    with pytest.raises(InputError, match=r"without saved_model\.pb"):
        scan_model(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(InputError, match="is not a SavedModel"):
        scan_model(tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = [1.0]
    with pytest.raises(InputError, match="not a Keras model"):
        scan_model(tmp_path / "other.h5")


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


CONFIG = json.dumps({"class_name": "Sequential", "module": "keras", "config": {"layers": []}}).encode()


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.h5")
    with pytest.raises(InputError, match="not a regular file"):
        scan_model(tmp_path / "model.h5")


def no_weights() -> bytes:
    """A whole HDF5 file with nothing in it."""
    buffer = io.BytesIO()
    h5py.File(buffer, "w").close()
    return buffer.getvalue()


def test_hostile_archives(tmp_path: Path) -> None:
    whole = {"config.json": CONFIG, "model.weights.h5": no_weights()}
    assert scan_model(archive(tmp_path / "good.keras", whole)).format == "keras-v3"
    for name, members, message in (
        ("torch.zip", {"m/data.pkl": b"x"}, "PyTorch"),
        ("climb.keras", {**whole, "../../x": b"x"}, "land outside"),
        ("root.keras", {**whole, "/x": b"x"}, "land outside"),
        ("bomb.keras", {**whole, "assets/zeros": bytes(1 << 25)}, "unpacks to"),
        ("none.keras", {"config.json": CONFIG}, "no weights"),
        ("list.keras", {**whole, "config.json": b"[1]"}, "unreadable"),
        ("text.keras", {**whole, "config.json": b"{"}, "unreadable"),
        ("deep.keras", {**whole, "config.json": b'{"a":' * 300 + b"1" + b"}" * 300}, "nested too deeply"),
        ("abyss.keras", {**whole, "config.json": b'{"a":' * 100_000 + b"1" + b"}" * 100_000}, "unreadable"),
    ):
        with pytest.raises(InputError, match=message):
            scan_model(archive(tmp_path / name, members))


def test_two_members_of_one_name(tmp_path: Path) -> None:
    path = archive(tmp_path / "twice.keras", {"config.json": CONFIG, "model.weights.h5": b"x"})
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as file:
        file.writestr("config.json", CONFIG)
    with pytest.raises(InputError, match="two files of one name"):
        scan_model(path)


def test_flipped_byte_in_archive(models: Path, tmp_path: Path) -> None:
    data = bytearray((models / "gelu.keras").read_bytes())
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "flipped.keras"
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        scan_model(path)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["config", "a", "layers"]), inner),
    max_leaves=8,
)
hidden_code: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"class_name": name, "config": {}} for name in CODE_CLASSES]
    + [
        {"class_name": "Dense", "module": "os", "config": {}},
        {"class_name": "Dense", "registered_name": "x>Dense", "config": {}},
        {"class_name": "x>Dense", "config": {}},
        {"class_name": "function", "module": "os", "config": "system"},
        {"class_name": "get_file", "module": "keras.utils", "config": {}},
        {"class_name": "load_model", "module": "keras.models", "config": {}},
    ]
)
around_code = st.recursive(
    hidden_code,
    lambda inner: st.one_of(
        st.tuples(plain, inner).map(list),
        st.tuples(plain, inner).map(lambda pair: {"a": pair[0], "config": pair[1]}),
        inner.map(lambda value: {"class_name": "Sequential", "config": {"name": "outer", "layers": [value]}}),
    ),
    max_leaves=5,
)


@given(config=around_code)
def test_code_is_found_wherever_it_hides(tmp_path_factory: pytest.TempPathFactory, config: Any) -> None:
    path = tmp_path_factory.mktemp("hidden") / "model.keras"
    body = {"class_name": "Sequential", "config": {"layers": [config]}}
    with pytest.raises(UnsafeModelError):
        scan_model(archive(path, {"config.json": json.dumps(body).encode(), "model.weights.h5": no_weights()}))


@given(data=st.binary(max_size=200), position=st.integers(0, 3000))
def test_damaged_saved_models_never_crash_the_scan(
    models: Path, tmp_path_factory: pytest.TempPathFactory, data: bytes, position: int
) -> None:
    folder = tmp_path_factory.mktemp("saved")
    original = (models / "multi_io.saved/saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(original[:position] + data + original[position + len(data) :])
    (folder / "variables").mkdir()
    (folder / "variables/variables.index").touch()
    try:
        scan_model(folder)
    except EdgemedError as error:
        assert error.exit_code == 2  # noqa: PT017 - passing is fine as well


def test_known_names_are_those_of_the_installed_keras(facts: dict[str, Any]) -> None:
    """Keras 3.12 (the newest for Python 3.10) has fewer, so: nothing may be missing, and code is never in."""
    assert set(facts["classes"]) - KERAS_CLASSES <= set(CODE_CLASSES)
    assert set(facts["operations"]) <= KERAS_OPERATIONS
    assert not (KERAS_CLASSES | KERAS_OPERATIONS) & set(CODE_CLASSES)


def test_scan_needs_no_tensorflow(models: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgemed.convert import scan_model;"
        "[scan_model(Path(p)) for p in sys.argv[1:]];"
        "assert not {'tensorflow', 'keras', 'tf2onnx', 'onnx'} & set(sys.modules), 'heavy'"
    )
    names = ("seed_cnn.h5", "gelu.keras", "multi_io.saved")
    subprocess.run([sys.executable, "-c", code, *(str(models / n) for n in names)], check=True)
