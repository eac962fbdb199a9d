"""Energy of known power curves is exact; what is missing is said, never estimated."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import InputError, ResourceError
from edgemed.profile.beside import Energy, Measured, Series, Unmeasured
from edgemed.profile.cpuload import ProcStat
from edgemed.profile.energy import EnergyMeter, ExternalMeter, integrate, read_meter, spent
from edgemed.profile.telemetry.recorder import Recorder
from tests.device.roots.boards import board, rail_file, set_now

S = 10**9


def series(times, values) -> Series:
    return Series("VDD_IN", "power", "mW", np.array(times, np.int64), np.array(values, np.int64))


@st.composite
def curves(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Samples of any spacing and any power, a day long or more, so that 64 bits would overflow."""
    gaps = draw(st.lists(st.integers(1, 10**13), min_size=1, max_size=30))
    times = np.cumsum([draw(st.integers(0, 10**15)), *gaps])
    values = draw(st.lists(st.integers(0, 10**6), min_size=len(times), max_size=len(times)))
    return times.astype(np.int64), np.array(values, np.int64)


def cut(curve, share: Fraction) -> int:
    times = curve[0]
    return int(times[0]) + int((int(times[-1]) - int(times[0])) * share)


SHARES = st.fractions(0, 1)


@given(curves(), SHARES, SHARES, SHARES)
def test_a_window_is_the_sum_of_its_parts(curve, a, b, c):
    start, middle, end = sorted(cut(curve, share) for share in (a, b, c))
    assert integrate(*curve, start, middle) + integrate(*curve, middle, end) == integrate(*curve, start, end)


@given(curves(), SHARES)
def test_a_sample_on_the_line_changes_nothing(curve, share):
    times, values = curve
    whole = integrate(times, values, int(times[0]), int(times[-1]))
    doubled = np.sort(np.concatenate((times * 2, times[:-1] + times[1:])))
    between = np.interp(doubled, times * 2, values * 2.0)  # twice the power: middles are whole numbers
    again = integrate(doubled, np.rint(between).astype(np.int64), int(doubled[0]), int(doubled[-1]))
    assert again == whole * 4


@given(curves())
def test_it_lies_between_the_least_and_the_most_power(curve):
    times, values = curve
    length = int(times[-1]) - int(times[0])
    whole = integrate(times, values, int(times[0]), int(times[-1]))
    assert int(values.min()) * length <= whole <= int(values.max()) * length


@given(st.integers(0, 10**6), st.integers(-1000, 1000), st.integers(1, 10**6), SHARES)
def test_a_ramp_is_integrated_exactly_between_samples_too(power, slope, length, share):
    """P(t) = power + slope·t, sampled at its ends only: from 0 to x it is power·x + slope·x²/2."""
    x = int(length * share)
    ends = np.array([power, power + slope * length], np.int64)
    assert integrate(np.array([0, length]), ends, 0, x) == power * x + Fraction(slope * x * x, 2)


def test_energy_of_an_inference_gross_and_above_idle():
    """5 W idle for 10 s, then 20 s at 15 W with 400 inferences: 750 mJ each, 500 mJ above idle."""
    times = np.arange(0, 31 * 10) * S // 10
    values = np.where(times <= 10 * S, 5000, 15000)
    measured = Measured(10 * S + S // 10, 30 * S + S // 10, 400)
    energy = spent(series(times, values), measured, (0, 10 * S), total=True, interval_ns=S // 10, update_ns=35)
    assert isinstance(energy, Energy)
    assert (energy.gross_mj, energy.net_mj, energy.idle_mw, energy.mean_mw) == (750, 500, 5000, 15000)
    assert (energy.window_ns, energy.idle_window_ns, energy.samples) == (20 * S, 10 * S, 201)
    assert energy.staleness_ns == S // 10 + 35


@pytest.mark.parametrize(
    ("times", "window", "answered", "why"),
    [
        (range(30), (5, 14), 9, "9.0 s of the 10 s"),
        (range(6, 30), (5, 20), 9, "at both ends"),
        (range(20), (5, 20), 9, "at both ends"),
        ((*range(10), *range(14, 30)), (5, 20), 9, "not read for 5.00 s"),
        ((), (5, 20), 9, "never answered"),
        (range(30), (5, 20), 0, "no inference"),
    ],
)
def test_a_window_that_lacks_something_is_refused(times, window, answered, why):
    said = series([t * S for t in times], [7] * len(times))
    found = spent(
        said, Measured(window[0] * S, window[1] * S, answered), None, total=True, interval_ns=S, update_ns=None
    )
    assert isinstance(found, Unmeasured)
    assert why in found.what


def test_an_idle_time_that_was_not_sampled_leaves_only_the_gross(tmp_path):
    said = series(np.arange(30) * S, [7] * 30)
    found = spent(said, Measured(5 * S, 16 * S, 1), (-S, 2 * S), total=True, interval_ns=S, update_ns=None)
    assert isinstance(found, Energy)
    assert (found.idle_mw, found.net_mj, found.idle_window_ns, found.gross_mj) == (None, None, None, 77)


def measured_on(root: Path, tmp_path: Path, rail: str | None = None):
    """One second of samples on a fake board, with a rise of the first rail after the baseline."""
    recorder = Recorder(tmp_path, root, interval_ns=S // 100, nvml=False)
    meter = EnergyMeter(recorder, rail, idle_ns=S // 5, least_ns=S // 10)
    with recorder, meter:
        set_now(root, rail_file(root), 3000)
        recorder.sample_now()
        start = time.monotonic_ns()
        time.sleep(0.3)
        end = time.monotonic_ns()
    (found,) = meter.findings(Measured(start, end, 3))
    return found, end - start


def test_the_total_rail_of_a_board_is_measured_with_its_baseline(tmp_path):
    found, window = measured_on(board(tmp_path / "root", "orin-nx-16gb"), tmp_path)
    if isinstance(found, Unmeasured):  # the machine was too busy to sample: then it says so
        assert "was not read for" in found.what
        return
    assert (found.rail, found.total, found.idle_mw, found.mean_mw) == ("VDD_IN", True, 5500, 15000)
    assert found.gross_mj == pytest.approx(15000 * window / S / 3, rel=1e-12)  # one division of floats
    assert found.net_mj == pytest.approx(9500 * window / S / 3, rel=1e-12)


def test_agx_orin_has_no_total_and_says_which_rails_there_are(tmp_path):
    root = board(tmp_path / "root", "agx-orin-64gb")
    found, _ = measured_on(root, tmp_path)
    assert isinstance(found, Unmeasured)
    assert "VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0, VDDQ_VDD2_1V8AO" in found.what


def test_a_rail_that_was_named_is_no_total(tmp_path):
    found, _ = measured_on(board(tmp_path / "root", "agx-orin-64gb"), tmp_path, "VDD_GPU_SOC")
    assert isinstance(found, Unmeasured) or (found.rail, found.total) == ("VDD_GPU_SOC", False)


@pytest.mark.parametrize(("rail", "why"), [("VDD_X", "no rail VDD_X"), (None, "no power monitor")])
def test_a_rail_that_is_not_there_is_said(tmp_path, rail, why):
    root = tmp_path / "empty"
    root.mkdir()
    found, _ = measured_on_empty(root, tmp_path, rail)
    assert why in found.what


def measured_on_empty(root, tmp_path, rail):
    recorder = Recorder(tmp_path, root, nvml=False)
    meter = EnergyMeter(recorder, rail)  # with no rail, there is no baseline to wait for
    with recorder, meter:
        pass
    return meter.findings(Measured(0, 20 * S, 1))[0], 0


def write_meter(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_meters_record_is_integrated_on_our_clock(tmp_path):
    now = time.clock_gettime_ns(time.CLOCK_REALTIME)
    lines = "".join(f"{now // S + i}.{now % S:09d},12.5,x\n" for i in range(-5, 30))
    with ExternalMeter(write_meter(tmp_path / "wall.csv", "time,watts,note\n" + lines)) as meter:
        start = time.monotonic_ns()
    (found,) = meter.findings(Measured(start, start + 20 * S, 100))
    assert isinstance(found, Energy)
    assert (found.rail, found.idle_mw, found.mean_mw, found.gross_mj) == ("meter wall.csv", None, 12_500, 2500)


def test_meters_write_seconds_or_dates(tmp_path):
    text = "time,watts\n1764201600.123456789,1\n2025-11-27T00:00:01.5Z,2\n2025-11-27T02:00:02.25+02:00,3\n"
    read = read_meter(write_meter(tmp_path / "m.csv", text), 0)
    assert read.times_ns.tolist() == [1764201600_123456789, 1764201601_500000000, 1764201602_250000000]
    assert read.values.tolist() == [1000, 2000, 3000]


@pytest.mark.parametrize(
    "text",
    [
        "t,w\n1,2\n",
        "",
        "time,watts\n1,x\n",
        "time,watts\n2,1\n1,1\n",
        "time,watts\n2025-11-27T00:00:00,1\n",
        "time,watts\n1,inf\n",
        "time,watts\n1\n",
        "time,watts\n1e400,1\n",
        "time,watts\n1,nan\n",
    ],
)
def test_what_is_no_meters_record_is_refused_and_does_not_lose_the_run(tmp_path, text):
    path = write_meter(tmp_path / "m.csv", text)
    with pytest.raises(InputError):
        read_meter(path, 0)
    with ExternalMeter(path) as meter:
        pass
    assert isinstance(meter.findings(Measured(0, 20 * S, 1))[0], Unmeasured)


def test_a_meter_that_wrote_nothing_does_not_lose_the_run(tmp_path):
    with pytest.raises(ResourceError):
        read_meter(tmp_path / "none.csv", 0)
    with ExternalMeter(tmp_path / "none.csv") as meter:
        pass
    assert "none.csv" in meter.findings(Measured(0, 20 * S, 1))[0].what


def test_the_processors_load_is_read_before_and_after(tmp_path):
    (tmp_path / "proc").mkdir()
    stat = tmp_path / "proc/stat"
    stat.write_text("cpu  10 0 10 80 0 0 0 0 5 0\ncpu0 1 1\ncpu1 1 1\nintr 1\nctxt 100\n")
    with ProcStat(tmp_path) as load:
        stat.write_text("cpu  40 0 20 130 10 0 0 0 9 0\ncpu0 1 1\ncpu1 1 1\nintr 1\nctxt 250\n")
    (found,) = load.findings(Measured(0, 1, 1))
    assert (found.busy, found.cores, found.context_switches) == (0.4, 2, 150)
    stat.write_text("nonsense")
    with load:
        pass
    assert load.findings(Measured(0, 1, 1)) == ()
