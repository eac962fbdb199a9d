"""A bundle is used whole or not at all: any changed, missing, added or linked file is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemed.base.errors import InputError, IntegrityError
from edgemed.base.hashing import sha256_bytes
from edgemed.build.writer import BundleWriter, json_bytes
from edgemed.bundle.manifest import Fidelity, Golden, GraphRef, InputTensor, Manifest, OutputTensor, RecipeRef, Source
from edgemed.bundle.read import open_bundle

FILES = {
    "recipe.toml": b"assumed = false\n",
    "graphs/float.onnx": b"a graph" * 50,
    "golden.npz": b"vectors",
    "report.json": b"{}",
}


def write(folder: Path, **changes: object) -> Path:
    """A small bundle; its graphs are not real, its hashes are."""
    folder.mkdir()
    writer = BundleWriter(folder)
    entries = {name: writer.add(name, data) for name, data in FILES.items()}
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
    raw = raw.replace(old, new)
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
