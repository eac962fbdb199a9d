"""Bounds from data sheets: by hand for one layer, never above what is slower, and marked where they are not sure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from evaluate.bundles import write_bundle
from evaluate.hostile import reseal, with_golden
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import InputError
from edgemed.bundle.read import open_bundle
from edgemed.device.profile import DeviceProfile, Figure, PowerMode, load_profile, shipped_profiles
from edgemed.profile.estimate import LayerCost, bound_device, estimate, operating_points

COST = LayerCost(node="conv", op="Conv", macs=10**9, weight_bytes=4 * 10**6, input_bytes=8 * 10**6, output_bytes=10**6)
RELU = LayerCost(node="relu", op="Relu", macs=0, weight_bytes=0, input_bytes=10**6, output_bytes=10**6)


def device(*figures: Figure, modes: tuple[PowerMode, ...] = ()) -> DeviceProfile:
    return DeviceProfile(
        schema_="edgemed/device-profile/1",
        name="Board",
        kind="jetson",
        soc="x",
        compute_capability="8.7",
        int8=True,
        figures=figures,
        power_modes=modes,
        id="board",
    )


def figure(quantity, value, condition="", sparsity=None, *, verified=True) -> Figure:
    return Figure(quantity=quantity, value=value, condition=condition, sparsity=sparsity, verified=verified)


BANDWIDTH = figure("memory_bandwidth_gbs", 100.0)
DENSE = figure("int8_tops", 10.0, sparsity="dense")


def one(costs, *figures: Figure, quantized=frozenset({"conv"}), precision="int8", crossing=0):
    (bound,) = bound_device(device(BANDWIDTH, *figures), costs, quantized, crossing, precision)
    return bound


def test_a_layer_by_hand():
    bound = one([COST, RELU], DENSE)
    assert bound.compute_ms == pytest.approx(2e9 / 10e12 * 1e3)
    (layer,) = bound.layers
    assert layer.compute_us == pytest.approx(200)
    # 13 MB of FP32 are 3.25 MB of INT8: 32.5 µs at 100 GB/s
    assert layer.memory_us == pytest.approx(32.5)
    assert layer.bound_by == "compute"
    assert bound.roofline_ms == pytest.approx(0.2)
    assert bound.memory_ms == pytest.approx(0.01)
    assert bound.floor_ms == pytest.approx(0.2)


def test_what_is_not_quantized_runs_in_fp16():
    layer = one([COST], DENSE, quantized=frozenset()).layers[0]
    assert layer.precision == "fp16"
    assert layer.compute_us == pytest.approx(400)
    assert layer.memory_us == pytest.approx(65)


def test_without_a_rate_only_memory_bounds():
    bound = one([COST], precision="fp32")
    assert bound.compute_ms is None
    assert bound.roofline_ms == pytest.approx(0.13)
    assert bound.memory_share == 1


def test_inputs_and_outputs_cross_memory_once():
    small = COST.model_copy(update={"macs": 1})
    assert one([small], DENSE, crossing=10**9).floor_ms == pytest.approx(10.01)


costs = st.builds(
    LayerCost,
    node=st.sampled_from(["conv", "other"]),
    op=st.just("Conv"),
    macs=st.integers(0, 10**12),
    weight_bytes=st.integers(0, 10**9),
    input_bytes=st.integers(0, 10**9),
    output_bytes=st.integers(0, 10**9),
)


@given(costs=st.lists(costs, max_size=20), faster=st.floats(1.01, 100), crossing=st.integers(0, 10**9))
def test_a_faster_device_is_bounded_lower_and_the_floor_is_the_lowest(costs, faster, crossing):
    slow = one(costs, DENSE, crossing=crossing)
    quick = one(costs, figure("int8_tops", 10 * faster, sparsity="dense"), crossing=crossing)
    assert slow.floor_ms <= slow.roofline_ms * (1 + 1e-12)
    assert quick.floor_ms <= slow.floor_ms * (1 + 1e-12)
    assert quick.roofline_ms <= slow.roofline_ms * (1 + 1e-12)
    assert 0 <= slow.memory_share <= 1
    assert one(costs, DENSE, quantized=frozenset()).roofline_ms >= one(costs, DENSE).roofline_ms * (1 - 1e-12)


def test_sparse_rates_are_halved_and_said_so():
    (point,) = operating_points(device(BANDWIDTH, figure("int8_tops", 40.0, sparsity="2:4")))
    assert point.int8_tops == 20
    assert point.fp16_tflops == 10
    assert any("half of the 40 TOPS" in text for text in point.derived)
    dense = figure("int8_tops", 19.0, "dense", "dense")
    (point,) = operating_points(device(BANDWIDTH, figure("int8_tops", 40.0, sparsity="2:4"), dense))
    assert point.int8_tops == 19


def test_conditions_modes_and_doubts():
    wide = figure("memory_bandwidth_gbs", 200.0, "super")
    fast = figure("int8_tops", 60.0, "super", "2:4", verified=False)
    modes = (
        PowerMode(name="MAXN_SUPER", gpu_mhz=1000.0, emc_mhz=3000.0),
        PowerMode(name="15W super", gpu_mhz=500.0, emc_mhz=2000.0, unverified=("gpu_mhz",)),
        PowerMode(name="10W"),
    )
    dla = figure("int8_tops", 500.0, "super, DLA", "2:4")
    points = {
        point.condition: point for point in operating_points(device(BANDWIDTH, DENSE, wide, fast, dla, modes=modes))
    }
    assert set(points) == {"as stated", "super", "15W super"}
    assert points["as stated"].unverified == ()
    assert points["super"].bandwidth_gbs == 200
    assert points["super"].unverified == ("int8_tops",)
    assert points["15W super"].int8_tops == pytest.approx(15)
    assert points["15W super"].bandwidth_gbs == pytest.approx(200 * 2 / 3)
    assert "15W super gpu_mhz" in points["15W super"].unverified


@pytest.mark.parametrize("profile", shipped_profiles(), ids=lambda profile: profile.id)
def test_every_shipped_device_with_a_bandwidth_is_bounded(profile):
    if profile.figure("memory_bandwidth_gbs") is None:
        with pytest.raises(InputError, match="no memory bandwidth"):
            list(bound_device(profile, [COST], frozenset(), 0, "fp16"))
        return
    for bound in bound_device(profile, [COST], frozenset(), 0, "fp16"):
        assert bound.floor_ms > 0
        assert (bound.compute_ms is None) == any("memory alone" in text for text in bound.point.derived)


def test_a_device_without_int8_is_refused():
    with pytest.raises(InputError, match="no INT8"):
        list(bound_device(load_profile("nano")[0], [COST], frozenset(), 0, "int8"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = with_golden(write_bundle(tmp_path_factory.mktemp("e") / "little.edgemed", boundaries={"float": 0.5}))[0]
    document = {"schema": "edgemed/costs/1", "layers": [COST.model_dump(), RELU.model_dump()]}
    reseal(path, files={"costs.json": json.dumps(document).encode()})
    return path


def test_a_bundle_is_estimated_and_counts_its_tensors(bundle):
    result = estimate(open_bundle(bundle), [load_profile("agx-orin-64gb")[0]], "fp16")
    assert result.macs == 10**9
    assert result.int8_share is None
    # 2 MB of weights, 16 + 1 floats of inputs and outputs
    assert result.bounds[0].memory_ms == pytest.approx((2 * 10**6 + 17 * 4) / 204.8 / 1e6)


@pytest.mark.parametrize("content", [b"{}", b"[]", b'{"schema": "edgemed/costs/1", "layers": [{"node": 3}]}', b"\xff"])
def test_costs_that_are_none_are_refused(tmp_path, content):
    path = with_golden(write_bundle(tmp_path / "little.edgemed", boundaries={"float": 0.5}))[0]
    with pytest.raises(InputError, match="does not tell"):
        estimate(open_bundle(path), [load_profile("agx-orin-64gb")[0]], "fp16")
    reseal(path, files={"costs.json": content})
    with pytest.raises(InputError, match="not by its schema"):
        estimate(open_bundle(path), [load_profile("agx-orin-64gb")[0]], "fp16")


def test_the_command_calls_it_a_bound(bundle):
    command = [sys.executable, "-m", "edgemed", "profile", str(bundle), "--precision", "fp16", "--estimate"]
    run = lambda *more: subprocess.run([*command, *more], capture_output=True, text=True, timeout=60)  # noqa: E731
    done = run("--device", "orin-nano-8gb,agx-orin-64gb")
    assert done.returncode == 0, done.stderr
    assert "not a measurement" in done.stdout
    assert "kernel launches" in done.stdout
    assert "orin-nano-8gb   as stated*" in done.stdout
    data = json.loads(run("--device", "agx-orin-64gb", "--json").stdout)
    assert data["kind"] == "lower bound of latency, not a measurement"
    assert len(data["bounds"]) == 4
    for arguments in ((), ("--device", "agx-orin-64gb", "--frames", "3")):
        assert run(*arguments).returncode == 2
