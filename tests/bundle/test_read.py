"""A bundle is used whole or not at all: any changed, missing, added or linked file is found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgemed.base.errors import InputError, IntegrityError
from edgemed.base.hashing import sha256_bytes
from edgemed.build.writer import BundleWriter, json_bytes
from edgemed.bundle.manifest import (
    BatchRange,
    Fidelity,
    Golden,
    GraphRef,
    InputTensor,
    Manifest,
    OutputTensor,
    RecipeRef,
    Source,
)
from edgemed.bundle.read import enclosing_bundle, is_bundle, open_bundle

FILES = {
    "recipe.toml": b"assumed = false\n",
    "graphs/float.onnx": b"a graph" * 50,
    "golden.npz": b"vectors",
    "report.json": b"{}",
}


def write(folder: Path, files: Mapping[str, bytes] = FILES, **changes: object) -> Path:
    """A small bundle; its graphs are not real, its hashes are."""
    folder.mkdir()
    writer = BundleWriter(folder)
    entries = {name: writer.add(name, data) for name, data in files.items()}
    fields: dict[str, object] = {
        "schema_": "edgemed/bundle/1",
        "name": "small",
        "created": "2026-01-01T00:00:00+00:00",
        "edgemed": "0.1.0",
        "source": Source(file="m.h5", sha256="0" * 64, format="keras-h5", versions={}),
        "inputs": (InputTensor(name="x", dtype="float32", shape=(1, 2), layout="NC"),),
        "outputs": (OutputTensor(name="y", dtype="float32", shape=(1, 1), layout="NC"),),
        "precision": "fp32",
        "recipe": RecipeRef(path="recipe.toml", sha256=entries["recipe.toml"].sha256, assumed=False),
        "graphs": {
            "float": GraphRef(
                path="graphs/float.onnx", sha256=entries["graphs/float.onnx"].sha256, opset=17, ir_version=8
            )
        },
        "fidelity": Fidelity(samples=8, float_vs_keras=()),
        "golden": Golden(path="golden.npz", samples=8, tolerance={"fp32": {"y": 1e-4}}),
        "files": writer.files,
    }
    writer.finish(Manifest(**{**fields, **changes}))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bundle") / "small.edgemed")


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "small.edgemed"))


def test_a_whole_bundle_opens_and_gives_its_files(whole: Path):
    opened = open_bundle(whole)
    assert opened.digest == sha256_bytes((whole / "manifest.json").read_bytes())
    assert opened.graph("float") == FILES["graphs/float.onnx"]
    assert opened.file("report.json").read_bytes() == b"{}"
    with pytest.raises(InputError, match="no int8 graph"):
        opened.graph("int8")
    with pytest.raises(IntegrityError, match="not listed"):
        opened.read("../outside")


ALL_FILES = [*FILES, "manifest.json", "manifest.sha256"]


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_flipped_bit_is_found(whole: Path, data: st.DataObject):
    path = whole / data.draw(st.sampled_from(ALL_FILES))
    original = path.read_bytes()
    position = data.draw(st.integers(0, len(original) - 1))
    flipped = bytearray(original)
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(flipped)
    try:
        with pytest.raises(IntegrityError):
            open_bundle(whole)
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_missing_or_shortened_file_is_found(bundle: Path, name: str):
    path = bundle / name
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(IntegrityError):
        open_bundle(bundle)
    path.unlink()
    with pytest.raises(IntegrityError):
        open_bundle(bundle)


def test_an_added_file_is_refused(bundle: Path):
    (bundle / "graphs" / "extra.onnx").write_bytes(b"x")
    with pytest.raises(IntegrityError, match=r"graphs/extra.onnx is not listed"):
        open_bundle(bundle)


def test_links_are_refused(bundle: Path, tmp_path: Path):
    outside = tmp_path / "outside"
    shutil.move(bundle / "report.json", outside)
    (bundle / "report.json").symlink_to(outside)
    with pytest.raises(IntegrityError, match="not a regular file"):
        open_bundle(bundle)
    (bundle / "report.json").unlink()
    shutil.move(outside, bundle / "report.json")
    (bundle / "linked").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(IntegrityError, match="linked"):
        open_bundle(bundle)


def test_a_file_changed_after_opening_is_found_when_read(bundle: Path):
    opened = open_bundle(bundle)
    (bundle / "golden.npz").write_bytes(b"another")
    with pytest.raises(IntegrityError, match="after the bundle was opened"):
        opened.read("golden.npz")


def _resealed(bundle: Path, old: bytes, new: bytes) -> None:
    raw = (bundle / "manifest.json").read_bytes()
    assert old in raw
    _sealed(bundle, raw.replace(old, new))


def _sealed(bundle: Path, raw: bytes) -> None:
    (bundle / "manifest.json").write_bytes(raw)
    (bundle / "manifest.sha256").write_text(f"{sha256_bytes(raw)}  manifest.json\n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"report.json"', b'"../report.json"', "schema"),
        (b'"report.json"', b'"/etc/passwd"', "schema"),
        (b'"report.json"', b'"graphs/../report.json"', "schema"),
        (b"edgemed/bundle/1", b"edgemed/bundle/9", "schema"),
        (b'"golden": {\n  "path": "golden.npz"', b'"golden": {\n  "path": "report.html"', "does not list"),
        (b'"assumed": false', b'"assumed": false, "more": 1', "schema"),
    ],
)
def test_a_manifest_that_lies_is_refused_even_with_a_fitting_hash(bundle: Path, old: bytes, new: bytes, message: str):
    _resealed(bundle, old, new)
    with pytest.raises(IntegrityError, match=message):
        open_bundle(bundle)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"float": {', b'"int8": {', "graphs lack float"),
        (b'"precision": "fp32"', b'"precision": "int8"', "graphs lack int8"),
        (b'"precision": "fp32"', b'"precision": "fp16"', "graphs lack fp16"),
        (b'"y": 0.0001', b'"y": -1', "golden.tolerance.fp32.y"),
        (b'"y": 0.0001', b'"y": NaN', "golden.tolerance.fp32.y"),
        (b'"y": 0.0001', b'"y": Infinity', "golden.tolerance.fp32.y"),
        (b'"dtype": "float32"', b'"dtype": "object"', "inputs.0.dtype"),
        (b'"classes": []', b'"classes": ["\\u001b[2J"]', "outputs.0.classes"),
        (b'"threshold": null', b'"threshold": 1.5', "outputs.0.threshold"),
        (b'"name": "small"', b'"name": "sm\\nall"', "name"),
        (b'"name": "small"', b'"name": "%s"' % (b"a" * 256), "name"),
    ],
)
def test_values_that_mean_nothing_are_refused(bundle: Path, old: bytes, new: bytes, message: str):
    _resealed(bundle, old, new)
    with pytest.raises(IntegrityError, match=f"schema: .*{message}"):
        open_bundle(bundle)


@pytest.mark.parametrize("shape", [b"[1, -1]", b"[0]", b"[1, 1000000000000000000000]"])
def test_impossible_shapes_are_refused(bundle: Path, shape: bytes):
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest["inputs"][0]["shape"] = json.loads(shape)
    _sealed(bundle, json.dumps(manifest).encode())
    with pytest.raises(IntegrityError, match=r"schema: inputs\.0\.shape"):
        open_bundle(bundle)


@pytest.mark.parametrize("key", ["inputs", "outputs"])
def test_a_model_takes_and_gives_something(bundle: Path, key: str):
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    _sealed(bundle, json.dumps({**manifest, key: []}).encode())
    with pytest.raises(IntegrityError, match=f"schema: {key}"):
        open_bundle(bundle)


@pytest.mark.parametrize("raw", [b"", b"{", b"[" * 200_000])
def test_what_is_no_json_has_no_empty_place_in_its_message(bundle: Path, raw: bytes):
    _sealed(bundle, raw)
    with pytest.raises(IntegrityError, match="does not follow its schema: Invalid JSON"):
        open_bundle(bundle)


def test_folders_that_hold_nothing_listed_are_refused_and_not_entered(bundle: Path):
    (bundle / "a").mkdir()
    with pytest.raises(IntegrityError, match="a is not listed"):
        open_bundle(bundle)
    here = os.open(bundle / "a", os.O_RDONLY)
    for _ in range(3000):  # deeper than Python recurses, and than a path may be long
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        with pytest.raises(IntegrityError, match="a is not listed"):
            open_bundle(bundle)
    finally:
        subprocess.run(["rm", "-rf", bundle / "a"], check=True)


def test_only_a_regular_file_is_a_signature(bundle: Path):
    signature = bundle / "signature.json"
    signature.write_text("{}")
    open_bundle(bundle)
    signature.unlink()
    for make in (lambda: signature.symlink_to("/etc/passwd"), signature.mkdir, lambda: os.mkfifo(signature)):
        make()
        with pytest.raises(IntegrityError, match=r"signature\.json is not listed"):
            open_bundle(bundle)
        signature.rmdir() if signature.is_dir() else signature.unlink()


def test_a_name_that_no_file_can_have_is_bad_input():
    for check in (is_bundle, open_bundle, enclosing_bundle):
        with pytest.raises(InputError, match="cannot be looked up"):
            check(Path("a" * 300))


def test_what_lies_in_a_bundle_is_known(bundle: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(bundle / "graphs")
    moved = bundle.rename(tmp_path / "renamed")
    (tmp_path / "again.edgemed").symlink_to(moved)
    for path in (moved, moved / "graphs", moved / "new" / "folder", tmp_path / "again.edgemed" / "x"):
        assert enclosing_bundle(path) == moved.resolve()
    for path in (tmp_path, tmp_path / "new", tmp_path / "new.edgemed"):
        assert enclosing_bundle(path) is None


def test_two_hashes_of_one_file_must_agree(bundle: Path):
    manifest = open_bundle(bundle).manifest
    graph = manifest.graphs["float"].model_copy(update={"sha256": "1" * 64})
    raw = json_bytes(manifest.model_copy(update={"graphs": {"float": graph}}))
    (bundle / "manifest.json").write_bytes(raw)
    (bundle / "manifest.sha256").write_text(f"{sha256_bytes(raw)}  manifest.json\n")
    with pytest.raises(IntegrityError, match="contradicts itself about graphs/float"):
        open_bundle(bundle)


def test_what_is_no_bundle_is_bad_input(tmp_path: Path):
    with pytest.raises(InputError, match="does not exist"):
        open_bundle(tmp_path / "none.edgemed")
    with pytest.raises(InputError, match="not a bundle"):
        open_bundle(tmp_path)


def with_data(folder: Path, location: str = "float.onnx.data", **changes: object) -> Path:
    """A bundle whose graph keeps a weight in a file beside it."""
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    proto = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor])).SerializeToString()
    files = {**FILES, "graphs/float.onnx": proto, "graphs/float.onnx.data": b"12345678"}
    ref = {"path": "graphs/float.onnx", "sha256": sha256_bytes(proto), "opset": 17, "ir_version": 8}
    graphs = {"float": GraphRef(**{**ref, "data": ("graphs/float.onnx.data",), **changes})}  # type: ignore[arg-type]
    return write(folder, files, graphs=graphs)


def test_large_weights_lie_in_a_listed_file(tmp_path: Path):
    opened = open_bundle(with_data(tmp_path / "m.edgemed"))
    assert opened.graph_source("float") == tmp_path / "m.edgemed" / "graphs" / "float.onnx"
    (tmp_path / "m.edgemed" / "graphs" / "float.onnx.data").write_bytes(b"87654321")
    with pytest.raises(IntegrityError, match=r"float\.onnx\.data was changed"):
        opened.graph_source("float")


@pytest.mark.parametrize("location", ["golden.npz", "../golden.npz", "/etc/hostname", "other.data"])
def test_a_graph_reads_no_other_file(tmp_path: Path, location: str):
    opened = open_bundle(with_data(tmp_path / "m.edgemed", location))
    with pytest.raises(IntegrityError, match="a file that the bundle does not hold"):
        opened.graph_source("float")


@pytest.mark.parametrize("data", [("graphs/missing.data",), ("golden.npz",)])
def test_data_of_a_graph_is_listed_and_lies_beside_it(tmp_path: Path, data: tuple[str, ...]):
    folder = with_data(tmp_path / "m.edgemed", data=data)
    with pytest.raises(IntegrityError, match="contradicts itself"):
        open_bundle(folder)


def test_a_whole_graph_is_given_as_bytes(tmp_path: Path):
    proto = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])).SerializeToString()
    graphs = {"float": GraphRef(path="graphs/float.onnx", sha256=sha256_bytes(proto), opset=17, ir_version=8)}
    folder = write(tmp_path / "m.edgemed", {**FILES, "graphs/float.onnx": proto}, graphs=graphs)
    assert open_bundle(folder).graph_source("float") == proto


@pytest.mark.parametrize(
    ("shape", "batch"), [((None, 2), None), ((1, 2), BatchRange(min=1, opt=2, max=4)), ((1, None), None)]
)
def test_only_a_batch_with_a_range_varies(tmp_path: Path, shape: tuple[int | None, ...], batch: BatchRange | None):
    inputs = (InputTensor(name="x", dtype="float32", shape=shape, layout="NC"),)
    with pytest.raises(ValidationError, match="varies in"):
        write(tmp_path / "m.edgemed", inputs=inputs, batch=batch)
