"""A bundle becomes an engine on the board: real bundle, real files, a fake TensorRT."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemed.base.errors import (
    DeviceStateError,
    InputError,
    IntegrityError,
    MissingSoftwareError,
    ResourceError,
)
from edgemed.base.hashing import sha256_bytes, sha256_file
from edgemed.base.progress import SilentProgress
from edgemed.base.state import state_dir
from edgemed.bundle.manifest import Manifest
from edgemed.bundle.read import Bundle, open_bundle
from edgemed.device.board import Board
from edgemed.device.gpu import Gpu
from edgemed.device.here import Here
from edgemed.device.profile import load_profile
from edgemed.engine import onboard
from edgemed.engine.bridge import Bridge, ErrorLog
from edgemed.engine.onboard import DeviceEngine, build_on_device, check_precision, choose_graph, key_slug
from edgemed.engine.record import EngineKey, read_engine
from tests.engine.fake_tensorrt import Script, make_fake


def graph(name: str) -> bytes:
    """A model that is nothing but its producer's name."""
    return bytes([0x12, len(name)]) + name.encode()


def write_bundle(path: Path, graphs: tuple[str, ...] = ("float", "int8"), **changes: Any) -> Bundle:
    """A whole little bundle that `open_bundle` accepts; its graphs are words."""
    files = {"recipe.toml": b"recipe", "golden.npz": b"golden"}
    files |= {f"graphs/{name}.onnx": graph(name) for name in graphs}
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    refs = {
        name: {"path": f"graphs/{name}.onnx", "sha256": sha256_bytes(files[f"graphs/{name}.onnx"])} for name in graphs
    }
    manifest = Manifest.model_validate(
        {
            "schema": "edgemed/bundle/1",
            "name": "net",
            "created": "2026-01-01T00:00:00+00:00",
            "edgemed": "0.1.0",
            "source": {"file": "m.h5", "sha256": "0" * 64, "format": "keras-h5", "versions": {}},
            "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 3, 8, 8], "layout": "NCHW"}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": [1, 2], "layout": "NC"}],
            "precision": "int8",
            "recipe": {"path": "recipe.toml", "sha256": sha256_bytes(b"recipe"), "assumed": False},
            "graphs": {name: {**ref, "opset": 13, "ir_version": 8} for name, ref in refs.items()},
            "fidelity": {"samples": 1, "float_vs_keras": []},
            "golden": {"path": "golden.npz", "samples": 1, "tolerance": {}},
            "files": {name: {"sha256": sha256_bytes(data), "size": len(data)} for name, data in files.items()},
            **changes,
        }
    )
    raw = manifest.model_dump_json(by_alias=True).encode()
    (path / "manifest.json").write_bytes(raw)
    (path / "manifest.sha256").write_bytes(f"{sha256_bytes(raw)}  manifest.json\n".encode())
    return open_bundle(path)


def orin_nano(jetpack: str = "6.2") -> Here:
    profile, _ = load_profile("orin-nano-8gb")
    board = Board("Jetson Orin Nano", ("p3767-0005",), "tegra234", "36.4.3", jetpack, profile, "8.7")
    return Here(board, Gpu("Orin", "8.7"))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "net.edgemed")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEMED_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """TensorRT 10.3, as JetPack 6.2 brings it."""
    script = Script()
    monkeypatch.setitem(sys.modules, "tensorrt", make_fake("10.3.0", script))
    return script


def build(bundle: Bundle, **options: Any) -> DeviceEngine:
    with SilentProgress().stage("engine") as stage:
        return build_on_device(bundle, stage, **{"here": orin_nano(), **options})


def parsed(script: Script) -> list[bytes]:
    return [call[1] for call in script.calls if call[0] == "parse"]


def test_a_batch_that_varies_is_built_with_its_range(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(inputs=(("x", "FLOAT", (-1, 3, 8, 8)),))
    monkeypatch.setitem(sys.modules, "tensorrt", make_fake("10.3.0", script))
    inputs = [{"name": "x", "dtype": "float32", "shape": [None, 3, 8, 8], "layout": "NCHW"}]
    bundle = write_bundle(tmp_path / "net.edgemed", inputs=inputs, batch={"min": 1, "opt": 4, "max": 8})
    engine = build(bundle)
    rest = (3, 8, 8)
    assert ("set_shape", "x", (1, *rest), (4, *rest), (8, *rest)) in script.calls
    assert engine.record.inputs[0].shape == (None, 3, 8, 8)
    assert read_engine(engine.folder)[0] == engine.record


def test_engine_is_kept_by_digest_and_key(bundle: Bundle, state: Path, script: Script) -> None:
    engine = build(bundle)
    assert engine.folder == state / "engines" / bundle.digest / "tensorrt-10.3.0-sm87-orin-nano-8gb-jp6.2-int8"
    assert sorted(path.name for path in engine.folder.iterdir()) == ["engine.json", "plan"]
    record, plan = read_engine(engine.folder)
    assert plan == b"plan of 10.3.0"
    assert record == engine.record
    assert record.plan_sha256 == sha256_file(engine.folder / "plan")
    assert (record.graph, record.graph_sha256) == ("graphs/int8.onnx", bundle.manifest.graphs["int8"].sha256)
    assert record.key == EngineKey(
        bundle=bundle.digest,
        flavour="tensorrt",
        version="10.3.0",
        compute_capability="8.7",
        board="orin-nano-8gb",
        jetpack="6.2",
        precision="int8",
    )
    assert parsed(script) == [graph("int8")]


def test_good_engine_is_reused_and_broken_one_replaced(bundle: Bundle, state: Path, script: Script) -> None:
    first = build(bundle)
    assert not first.reused
    assert build(bundle).reused
    assert len(parsed(script)) == 1
    (first.folder / "plan").write_bytes(b"plan of another")
    with pytest.raises(IntegrityError, match="does not match its hash"):
        read_engine(first.folder)
    again = build(bundle)
    assert not again.reused
    assert read_engine(again.folder)[1] == b"plan of 10.3.0"
    assert not build(bundle, rebuild=True).reused


@pytest.mark.parametrize("damage", ["engine.json", "plan"])
def test_half_an_engine_is_built_anew(bundle: Bundle, state: Path, script: Script, damage: str) -> None:
    folder = build(bundle).folder
    (folder / damage).unlink()
    assert not build(bundle).reused
    assert build(bundle).reused


def test_record_of_another_key_is_not_trusted(bundle: Bundle, state: Path, script: Script) -> None:
    folder = build(bundle).folder
    document = json.loads((folder / "engine.json").read_text())
    document["key"]["jetpack"] = "6.1"
    (folder / "engine.json").write_text(json.dumps(document))
    assert not build(bundle).reused


def test_each_precision_and_jetpack_is_another_engine(bundle: Bundle, state: Path, script: Script) -> None:
    folders = {build(bundle, precision=p, here=orin_nano(j)).folder for p in ("int8", "fp16") for j in ("6.1", "6.2")}
    assert len(folders) == 4
    assert parsed(script) == [graph("int8"), graph("int8"), graph("float"), graph("float")]


def test_failed_build_leaves_nothing(bundle: Bundle, state: Path, script: Script) -> None:
    script.build_errors = ("Could not find any implementation",)
    with pytest.raises(InputError):
        build(bundle)
    assert not state.exists()


def test_unwritable_state_is_an_environment_error(bundle: Bundle, state: Path, script: Script) -> None:
    state.write_text("a file stands where the folder should be")
    with pytest.raises(ResourceError) as caught:
        build(bundle)
    assert caught.value.exit_code == 6


def test_graph_changed_after_opening_is_not_parsed(bundle: Bundle, state: Path, script: Script) -> None:
    (bundle.path / "graphs/int8.onnx").write_bytes(graph("evil"))
    with pytest.raises(IntegrityError):
        build(bundle)
    assert not parsed(script)


@pytest.mark.parametrize(
    ("version", "graphs", "precision", "chosen"),
    [
        ("8.6.1", ("float", "int8", "int8_fp16"), "int8", ("int8", False)),
        ("10.3.0", ("float", "int8", "int8_fp16"), "int8", ("int8", False)),
        ("10.13.0", ("float", "int8", "int8_fp16"), "int8", ("int8_fp16", True)),
        ("10.13.0", ("float", "int8"), "int8", ("int8", False)),
        ("11.4.0", ("float", "int8", "int8_fp16"), "int8", ("int8_fp16", True)),
        ("11.4.0", ("float", "int8"), "int8", ("int8", True)),
        ("10.3.0", ("float",), "fp16", ("float", False)),
        ("10.13.0", ("float",), "fp16", ("float", False)),
        ("10.13.0", ("float", "fp16"), "fp16", ("fp16", True)),
        ("8.6.1", ("float",), "fp32", ("float", False)),
        ("11.4.0", ("float",), "fp32", ("float", True)),
        ("11.4.0", ("float",), "fp16", None),
        ("11.4.0", ("float",), "int8", None),
        ("10.3.0", ("float",), "int8", None),
    ],
)
def test_graph_by_precision_and_version(
    version: str, graphs: tuple[str, ...], precision: Any, chosen: tuple[str, bool] | None
) -> None:
    bridge = Bridge(make_fake(version, Script()), "tensorrt", ErrorLog())
    if chosen is not None:
        assert choose_graph(graphs, precision, bridge) == chosen
        return
    with pytest.raises(InputError, match=re.escape(f"no graph for {precision} on tensorrt {version}")):
        choose_graph(graphs, precision, bridge)


@pytest.mark.parametrize("capability", ["5.3", "6.2"])
def test_int8_is_refused_where_the_gpu_has_none(bundle: Bundle, capability: str) -> None:
    with pytest.raises(DeviceStateError, match=f"no INT8 kernels for compute capability {capability}") as caught:
        build(bundle, here=Here(None, Gpu("old", capability)))
    assert (caught.value.exit_code, "--fp16" in caught.value.hint) == (4, True)
    check_precision(capability, "fp16")


def test_int8_on_the_dla_is_refused() -> None:
    with pytest.raises(DeviceStateError, match="calibration cache"):
        check_precision("8.7", "int8", dla_core=0)
    check_precision("8.7", "fp16", dla_core=0)


def test_dla_core_stands_in_the_key(bundle: Bundle, state: Path, script: Script) -> None:
    script.dla_cores = 2
    assert build(bundle, precision="fp16", dla_core=1).folder.name.endswith("-fp16-dla1")


def test_no_gpu_is_said_clearly(bundle: Bundle) -> None:
    with pytest.raises(DeviceStateError, match="There is no NVIDIA GPU here") as caught:
        build(bundle, here=Here(None, None))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("here", [orin_nano(), Here(None, Gpu("RTX", "8.9"))], ids=["jetson", "desktop"])
def test_no_tensorrt_is_said_clearly(bundle: Bundle, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onboard, "installed_flavours", lambda: ())
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # what import does where it is not installed
    with pytest.raises(MissingSoftwareError, match="installed") as caught:
        build(bundle, here=here)
    assert caught.value.exit_code == 4
    if here.board is not None:
        assert "--system-site-packages" in caught.value.hint


def test_null_builder_is_a_device_state(bundle: Bundle, state: Path, script: Script) -> None:
    script.builder_is_null = True
    with pytest.raises(DeviceStateError, match="CUDA initialization failure"):
        build(bundle)


def key(**fields: Any) -> EngineKey:
    base = {"bundle": "0" * 64, "flavour": "tensorrt", "version": "8.6.2", "compute_capability": "8.9"}
    return EngineKey.model_validate({**base, "board": "x", "precision": "fp32", **fields})


@pytest.mark.parametrize(
    ("fields", "slug"),
    [
        ({"board": "NVIDIA RTX 4000 (Ada)/GPU:0"}, "tensorrt-8.6.2-sm89-nvidia-rtx-4000-ada-gpu-0-fp32"),
        ({"board": "p3701-0008", "jetpack": "l4t-36.4.7"}, "tensorrt-8.6.2-sm89-p3701-0008-l4t-36.4.7-fp32"),
        ({"board": "../../etc"}, "tensorrt-8.6.2-sm89-..-..-etc-fp32"),
    ],
)
def test_slug_is_one_safe_folder_name(fields: dict[str, str], slug: str) -> None:
    assert key_slug(key(**fields)) == slug
    assert Path(slug).name == slug


def test_state_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGEMED_STATE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_dir() == tmp_path / "edgemed"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert state_dir() == Path.home() / ".local/state/edgemed"
    monkeypatch.setenv("EDGEMED_STATE", str(tmp_path / "mine"))
    assert state_dir() == tmp_path / "mine"


def test_specs_of_the_record_are_runner_specs(bundle: Bundle, state: Path, script: Script) -> None:
    spec = build(bundle).record.inputs[0].spec()
    assert np.dtype(spec.dtype) == np.float32
    assert spec.shape == (1, 3, 8, 8)
