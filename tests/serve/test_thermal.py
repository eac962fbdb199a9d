"""Heat: replayed traces of temperatures, trees of real boards, and what the daemon does about it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemed.base.quantity import SECOND
from edgemed.bundle.keys import new_key, read_private_key
from edgemed.bundle.read import open_bundle
from edgemed.bundle.sign import sign_bundle
from edgemed.device.profile import load_profile
from edgemed.device.sysfs import Tree
from edgemed.serve.alarms import Alarms
from edgemed.serve.config.daemon import ThermalSection
from edgemed.serve.journal.database import Journal
from edgemed.serve.metrics import Metrics
from edgemed.serve.models import host as models_host
from edgemed.serve.models.host import ModelHost
from edgemed.serve.models.hosted import HostedModel
from edgemed.serve.models.served import Served
from edgemed.serve.thermal import CALM_NS, Climate, Heat, Thermal, Weather, advance
from tests.device.roots.builder import healthy, write
from tests.serve import kit
from tests.serve.models.kit import WAIT_S, frame, hosting
from tests.waiting import wait_for

RULES = ThermalSection()  # 85, 95, hysteresis 5


def replay(celsius: list[float], slowed: set[int] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """The states of a trace with a sample every 2 s."""
    climate, found = Climate(), []
    for index, value in enumerate(celsius):
        names = ("cpufreq-cpu0",) if index in slowed else ()
        climate = advance(climate, Weather(index * 2 * SECOND, int(value * 1000), names), RULES)
        found.append(climate.heat.value[0])
    return found


def test_a_replayed_trace_goes_up_and_down_with_hysteresis() -> None:
    trace = [60, 84.9, 85, 84, 80, 79.9, 86, 94.9, 95, 92, 90.1, 89.9, 81, 80, 79]
    assert "".join(replay(trace)) == "nnwwwnwwtttwwwn"


def test_noise_around_a_limit_does_not_flap() -> None:
    trace = [84.5, 85.2] * 100
    states = replay(trace)
    assert len("".join(states).replace("nw", "n|w").split("|")) == 2
    assert "wn" not in "".join(states)


def test_slowing_throttles_at_once_and_until_it_has_been_quiet() -> None:
    states = "".join(replay([70.0] * 40, {3, 5, 8}))
    calm = CALM_NS // (2 * SECOND)
    assert states == "nnn" + "t" * (5 + calm) + "n" * (40 - 8 - calm)


def test_without_sensors_nothing_is_known_and_nothing_is_done() -> None:
    assert advance(Climate(), Weather(0), RULES).heat is Heat.NORMAL


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-40, 130), max_size=60))
def test_what_is_too_hot_is_never_called_normal(trace: list[float]) -> None:
    for value, state in zip(trace, replay(trace), strict=True):
        milli = int(value * 1000) / 1000
        if milli >= 95:
            assert state == "t"
        elif milli >= 85:
            assert state != "n"
        elif milli < 80:
            assert state == "n"


def heat(tree: Path, celsius: float, slows: int = 0) -> None:
    for zone in sorted((tree / "sys/class/thermal").glob("thermal_zone*")):
        write(tree, f"sys/class/thermal/{zone.name}/temp", f"{int(celsius * 1000)}\n")
    for device in sorted((tree / "sys/class/thermal").glob("cooling_device*")):
        if (device / "type").read_text().startswith("cpufreq"):
            write(tree, f"sys/class/thermal/{device.name}/cur_state", f"{slows}\n")


@pytest.mark.parametrize("board", ["orin-nano-8gb@6.2", "agx-orin-64gb@6.2", "thor-t5000@7.0", "agx-xavier@5.1.6"])
def test_boards_are_read_told_and_acted_on(tmp_path: Path, board: str) -> None:
    root = healthy(tmp_path / "root", *load_profile(board))
    acted: list[Heat] = []
    with Journal(tmp_path / "j.sqlite3") as journal:
        alarms, metrics = Alarms(journal), Metrics()
        thermal = Thermal(RULES, alarms, metrics, acted.append, Tree(root))

        def step(second: int) -> set[str]:
            thermal.step(second * SECOND)
            return {alarm.code for alarm in alarms.standing}

        assert step(0) == set()
        heat(root, 88)
        assert step(2) == {"hot"}
        heat(root, 88, slows=1)
        assert step(4) == {"hot", "throttled"}
        heat(root, 60)
        assert step(6) == {"hot", "throttled"}
        assert step(6 + 31) == set()
        assert acted == [Heat.WARM, Heat.THROTTLED, Heat.NORMAL]
        sample = metrics.registry.get_sample_value
        assert sample("edgemed_temperature_celsius", {"zone": "cpu-thermal"}) == 60
        assert "edgemed_clock_hertz{" in _text(metrics)


def test_what_was_hot_before_a_restart_and_is_not_is_no_alarm_any_more(tmp_path: Path) -> None:
    root = healthy(tmp_path / "root", *load_profile("orin-nano-8gb@6.2"))
    with Journal(tmp_path / "j.sqlite3") as journal:
        for code in ("hot", "throttled"):
            Alarms(journal).raise_(code, "It was.")
    with Journal(tmp_path / "j.sqlite3") as journal:
        alarms, acted = Alarms(journal), list[Heat]()
        alarms.load()
        Thermal(RULES, alarms, Metrics(), acted.append, Tree(root)).step(0)
        assert (alarms.standing, acted) == ([], [])


def _text(metrics: Metrics) -> str:
    from prometheus_client import generate_latest

    return generate_latest(metrics.registry).decode()


def test_while_it_throttles_the_smaller_model_answers_and_hands_back_when_the_other_was_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = healthy(tmp_path / "root", *load_profile("orin-nano-8gb@6.2"))
    monkeypatch.setattr(ModelHost, "tree", Tree(root))
    monkeypatch.setattr(models_host, "_HEAT_S", 0.05)
    small = kit.write_classifier(tmp_path / "small.edgemed", boundary=0.45)
    big = kit.write_classifier(tmp_path / "chest.edgemed")
    models = [{"name": "chest", "bundle": big, "runner": "onnxruntime", "hot": small}]
    with hosting(kit.bedside(tmp_path, models=models)) as daemon:
        host = daemon.services.models
        assert isinstance(host, ModelHost)
        wait_for(lambda: daemon.services.readiness.light == "ready")
        usual = host.get("chest").bundle.digest
        heat(root, 99)
        wait_for(lambda: host.get("chest").version == "hot")
        assert daemon.services.readiness.light == "degraded"
        reply = host.get("chest").submit(frame(1)).result(WAIT_S)
        assert reply.info.bundle_digest == host.get("chest").bundle.digest != usual
        before = len(host.golden("chest"))
        heat(root, 50)
        wait_for(lambda: host.get("chest").version == "1")
        assert any(row["digest"] == usual for row in host.golden("chest")[: len(host.golden("chest")) - before])
        wait_for(lambda: daemon.services.readiness.light == "ready")
        assert host.get("chest").submit(frame(1)).result(WAIT_S).info.bundle_digest == usual


def test_the_smaller_model_is_a_copy_of_ours_and_stops_when_it_is_revoked(tmp_path: Path) -> None:
    new_key(tmp_path / "key")
    big = kit.write_classifier(tmp_path / "chest.edgemed")
    small = kit.write_classifier(tmp_path / "small.edgemed", boundary=0.45)
    for path in (big, small):
        sign_bundle(open_bundle(path), read_private_key(tmp_path / "key"), sequence=1)
    digests = [open_bundle(path).digest for path in (big, small)]
    (tmp_path / "revoked").write_text("")
    models = [{"name": "chest", "bundle": big, "runner": "onnxruntime", "hot": small}]
    trust = {"keys": [tmp_path / "key.pub"], "revoked": tmp_path / "revoked"}
    config = kit.bedside(tmp_path, models=models, trust=trust)
    with hosting(config) as daemon:
        host, alarms = daemon.services.models, daemon.services.alarms
        kit.write_classifier(tmp_path / "other.edgemed", boundary=0.1)
        shutil.rmtree(small)
        (tmp_path / "other.edgemed").rename(small)  # unsigned, after the start
        wait_for(lambda: daemon.services.readiness.ready)
        host._warmed(Heat.THROTTLED)
        wait_for(lambda: host.get("chest").version == "hot")
        assert host.get("chest").submit(frame(1)).result(WAIT_S).info.bundle_digest == digests[1]
        (tmp_path / "revoked").write_text(digests[1])
        host.reload()
        assert host.get("chest").submit(frame(1)).result(WAIT_S).info.bundle_digest == digests[0]
        assert alarms.stands("model-rejected", "hot chest")
        host._hot["chest"].tend(time.monotonic_ns())
        assert host.get("chest").version == "1", "the device throttles still"
        (tmp_path / "revoked").write_text("no digest")
        host.reload()
        assert alarms.stands("model-rejected", "trust")
        (tmp_path / "revoked").write_text(digests[1])
    shutil.rmtree(small)
    shutil.copytree(tmp_path / f"state/hot/chest/{digests[1]}.edgemed", small)
    with hosting(config) as daemon:  # up without it
        assert daemon.services.alarms.stands("model-rejected", "hot chest")
        wait_for(lambda: daemon.services.readiness.ready)
    (tmp_path / "revoked").write_text("")
    with hosting(config) as daemon:
        assert not daemon.services.alarms.stands("model-rejected", "hot chest")
        assert not daemon.services.alarms.stands("model-rejected", "trust")


def rests_between(model: Served) -> None:
    began_ns = time.monotonic_ns()
    several = [model.submit(frame(i)) for i in range(3)]
    model.submit(frame(9), live=True).result(WAIT_S)
    assert not several[-1].done(), "it has to wait, and what is live does not"
    several[-1].result(WAIT_S)
    assert time.monotonic_ns() - began_ns >= 2 * 4 * 200_000_000  # two rests; never less, however slow this machine


def test_a_version_that_comes_while_it_is_warm_rests_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = healthy(tmp_path / "root", *load_profile("orin-nano-8gb@6.2"))
    monkeypatch.setattr(ModelHost, "tree", Tree(root))
    monkeypatch.setattr("edgemed.serve.models.hosted._USUAL_NS", 200_000_000)
    heat(root, 90)
    new = kit.write_classifier(tmp_path / "new.edgemed", boundary=0.45)
    old = kit.write_classifier(tmp_path / "chest.edgemed")
    models = [{"name": "chest", "bundle": old, "runner": "onnxruntime", "trial": {"inputs": 0}}]
    with hosting(kit.bedside(tmp_path, models=models)) as daemon:
        host = daemon.services.models
        assert isinstance(host, ModelHost)
        wait_for(lambda: daemon.services.readiness.ready and host.thermal.climate.heat is Heat.WARM)
        host.propose("chest", new)
        wait_for(lambda: host.get("chest").version == "2")
        model = host.get("chest")
        assert isinstance(model, HostedModel)
        wait_for(lambda: model.scheduler._queue.rules.pace_ns)
        rests_between(model)


def test_what_is_not_live_rests_while_it_is_warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = healthy(tmp_path / "root", *load_profile("orin-nano-8gb@6.2"))
    monkeypatch.setattr(ModelHost, "tree", Tree(root))
    monkeypatch.setattr("edgemed.serve.models.hosted._USUAL_NS", 200_000_000)
    heat(root, 90)
    with hosting(kit.bedside(tmp_path, thermal={"idle": "50ms"})) as daemon:
        host = daemon.services.models
        assert isinstance(host, ModelHost)
        wait_for(lambda: daemon.services.readiness.ready and host.thermal.climate.heat is Heat.WARM)
        rests_between(host.get("chest"))
        count = len(host.golden("chest"))
        wait_for(lambda: len(host.golden("chest")) > count)  # kept awake, though nobody asks
        assert host.describe("chest")["heat"] == "warm"
