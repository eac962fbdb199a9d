"""How a plan is asked for, era by era, over a fake that has no name the real bindings lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import DeviceStateError, InputError, IntegrityError, ResourceError
from edgemed.base.progress import SilentProgress
from edgemed.base.runner import TensorSpec
from edgemed.engine.bridge import Bridge, ErrorLog, one_line, version_number
from edgemed.engine.build import BuildRequest, BuiltPlan, build_plan
from tests.engine.fake_tensorrt import Script, make_fake

ONNX = b"\x08\x0a"  # the shortest model: an IR version
VERSIONS = ("8.6.1", "10.3.0", "10.13.0.35", "11.4.0.106")
EVERY_VERSION = pytest.mark.parametrize("version", VERSIONS)


def bridge_to(version: str, script: Script) -> Bridge:
    return Bridge(make_fake(version, script), "tensorrt", ErrorLog())


def build(version: str, script: Script, precision: Any = "int8", **options: Any) -> BuiltPlan:
    with SilentProgress().stage("engine") as stage:
        return build_plan(bridge_to(version, script), BuildRequest(ONNX, precision, **options), stage)


def asked(script: Script, what: str) -> list[tuple[Any, ...]]:
    return [call[1:] for call in script.calls if call[0] == what]


@pytest.mark.parametrize(
    ("version", "creation", "flags"),
    [
        ("8.6.1", ("EXPLICIT_BATCH",), [("FP16",), ("INT8",)]),
        ("10.3.0", ("EXPLICIT_BATCH",), [("FP16",), ("INT8",)]),
        ("10.13.0.35", ("EXPLICIT_BATCH", "STRONGLY_TYPED"), []),
        ("11.4.0.106", ("STRONGLY_TYPED",), []),
    ],
)
def test_each_era_gets_its_own_flags(version: str, creation: tuple[str, ...], flags: list[tuple[str]]) -> None:
    script = Script()
    built = build(version, script)
    assert asked(script, "create_network") == [creation]
    assert asked(script, "set_flag") == flags
    assert built.strongly_typed == ("STRONGLY_TYPED" in creation)
    assert built.plan == b"plan of " + version.encode()
    assert built.version == version


@pytest.mark.parametrize(("precision", "flags"), [("fp32", []), ("fp16", [("FP16",)])])
def test_float_precisions_set_no_int8_flag(precision: str, flags: list[tuple[str]]) -> None:
    script = Script()
    build("10.3.0", script, precision)
    assert asked(script, "set_flag") == flags


@EVERY_VERSION
def test_specs_come_from_the_network(version: str) -> None:
    script = Script(
        inputs=(("image", "HALF", (1, 3, 8, 8)), ("ids", "INT32", (2,))), outputs=(("mask", "BOOL", (1, 1)),)
    )
    built = build(version, script)
    assert built.inputs == (TensorSpec("image", "float16", (1, 3, 8, 8)), TensorSpec("ids", "int32", (2,)))
    assert built.outputs == (TensorSpec("mask", "bool", (1, 1)),)


@EVERY_VERSION
@pytest.mark.parametrize(("precision", "cleared"), [("fp32", [("TF32",)]), ("fp16", []), ("int8", [])])
def test_fp32_means_fp32(version: str, precision: Any, cleared: list[Any]) -> None:
    script = Script()
    build(version, script, precision=precision)
    assert asked(script, "clear_flag") == cleared


@EVERY_VERSION
def test_contexts_share_the_one_profile(version: str) -> None:
    script = Script(inputs=(("x", "FLOAT", (-1, 3)),))
    build(version, script, profiles={"x": ((1, 3), (4, 3), (8, 3))})
    exists = version_number(version) < (11,)  # it does nothing from 9 on, and is gone in 11
    assert asked(script, "set_preview_feature") == ([("PROFILE_SHARING_0806", True)] if exists else [])


@EVERY_VERSION
def test_varying_input_takes_its_profile(version: str) -> None:
    script = Script(inputs=(("x", "FLOAT", (-1, 3)),))
    shapes = ((1, 3), (4, 3), (8, 3))
    assert build(version, script, profiles={"x": shapes}).inputs[0].shape == (None, 3)
    assert asked(script, "set_shape") == [("x", *shapes)]
    assert len(asked(script, "add_optimization_profile")) == 1


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ({}, "has a dimension that varies"),
        ({"x": ((2, 3), (1, 3), (8, 3))}, "do not fit"),
        ({"x": ((1, 3), (4, 3), (8, 4))}, "do not fit"),
        ({"x": ((0, 3), (4, 3), (8, 3))}, "do not fit"),
        ({"x": ((1, 3, 1), (4, 3, 1), (8, 3, 1))}, "do not fit"),
        ({"x": ((1, 3), (4, 3), (8, 3)), "z": ((1,), (1,), (1,))}, "'z' is not an input with a varying dimension"),
    ],
)
def test_profiles_that_do_not_fit_are_refused(profiles: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build("10.3.0", Script(inputs=(("x", "FLOAT", (-1, 3)),)), profiles=profiles)


def test_fixed_inputs_make_no_profile() -> None:
    script = Script()
    build("10.3.0", script)
    assert not asked(script, "add_optimization_profile")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("8.6.1", "cannot read the graph: node 4: no importer"),
        ("10.3.0", r"node 4 'roi' \(NonMaxSuppression\): no imp"),
    ],
)
def test_parser_errors_name_the_node(version: str, message: str) -> None:
    errors = ((4, "roi", "NonMaxSuppression", "no importer\n  registered."), (5, "b", "B", "other"))
    with pytest.raises(InputError, match=message) as caught:
        build(version, Script(parser_errors=errors))
    assert caught.value.what.endswith("(1 more).")
    assert "\n" not in caught.value.what


def test_a_file_is_parsed_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"onnx")
    script = Script()
    with SilentProgress().stage("engine") as stage:
        build_plan(bridge_to("10.3.0", script), BuildRequest(path, "fp32"), stage)
    assert asked(script, "parse_from_file") == [(str(path),)]


@EVERY_VERSION
def test_no_gpu_is_a_device_state(version: str) -> None:
    with pytest.raises(DeviceStateError, match=r"cannot start its builder.*CUDA initialization failure") as caught:
        build(version, Script(builder_is_null=True))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Error Code 2: OutOfMemory (no further information)", ResourceError),
        ("CUDA initialization failure with error: 35", DeviceStateError),
        ("Error Code 10: Could not find any implementation for node conv1", InputError),
    ],
)
def test_failed_builds_are_told_apart(said: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        build("10.3.0", Script(build_errors=(said, "later trouble")))
    assert said.rstrip(".") in str(caught.value)
    assert "later trouble" not in str(caught.value)


def test_other_gpus_are_for_rtx_only() -> None:
    with pytest.raises(InputError, match="builds for the GPU it runs on"):
        build("10.3.0", Script(), compute_capabilities=("8.9",))


@EVERY_VERSION
def test_dla_core_is_chosen_with_fallback(version: str) -> None:
    script = Script(dla_cores=2)
    build(version, script, "fp16", dla_core=1)
    (config,) = asked(script, "config")[0]
    assert (config["DLA_core"], config["default_device_type"].name) == (1, "DLA")
    assert ("GPU_FALLBACK",) in asked(script, "set_flag")


@pytest.mark.parametrize("core", [-1, 2])
def test_dla_core_that_is_not_there_is_refused(core: int) -> None:
    with pytest.raises(DeviceStateError, match=f"There is no DLA core {core}"):
        build("10.3.0", Script(dla_cores=2), "fp16", dla_core=core)


def test_tuning_reaches_the_config() -> None:
    script = Script()
    built = build("10.3.0", script, workspace_bytes=1 << 20, optimization_level=5, timing_cache=b"old")
    assert asked(script, "set_memory_pool_limit") == [("WORKSPACE", 1 << 20)]
    assert asked(script, "config")[0][0]["builder_optimization_level"] == 5
    assert built.timing_cache == b"old+measured"


def test_timing_cache_of_another_device_is_refused() -> None:
    with pytest.raises(InputError, match="timing cache is of another device"):
        build("10.3.0", Script(accepts_cache=False), timing_cache=b"old")


def test_errors_of_an_earlier_build_are_forgotten() -> None:
    script = Script(build_errors=("first trouble",))
    bridge = bridge_to("10.3.0", script)
    with SilentProgress().stage("engine") as stage:
        with pytest.raises(InputError, match="first trouble"):
            build_plan(bridge, BuildRequest(ONNX, "fp32"), stage)
        script.build_errors = ("second trouble",)
        with pytest.raises(InputError, match="second trouble"):
            build_plan(bridge, BuildRequest(ONNX, "fp32"), stage)


@pytest.mark.parametrize(
    ("text", "number"), [("10.13.3.9.post1", (10, 13, 3, 9)), ("8.6.1", (8, 6, 1)), ("unknown", ())]
)
def test_version_number(text: str, number: tuple[int, ...]) -> None:
    assert version_number(text) == number


@given(st.text(max_size=800))
def test_one_line_is_one_short_line(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 300
    assert len(line.splitlines()) <= 1


def test_a_name_outside_the_table_is_a_bug() -> None:
    with pytest.raises(KeyError):
        bridge_to("10.3.0", Script()).has("Builder.build_engine")


def test_a_graph_with_weights_elsewhere_reaches_no_parser() -> None:
    """A graph with an initializer whose `data_location` is EXTERNAL."""
    script = Script()
    bridge = bridge_to("10.3.0", script)
    with SilentProgress().stage("engine") as stage, pytest.raises(IntegrityError, match="from a file"):
        build_plan(bridge, BuildRequest(b"\x3a\x04\x2a\x02\x70\x01", "fp32"), stage)
    assert not asked(script, "parse")
