"""Every check on machines that are in order, sick, and not to be told; for every device profile."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgemed.device.board import detect_board
from edgemed.device.doctor.ask import ABSENT, Answer
from edgemed.device.doctor.checks import CHECKS, examine
from edgemed.device.doctor.diagnosis import Diagnosis, Line
from edgemed.device.doctor.scene import BundleNeeds, Python, Room, Scene, User, look
from edgemed.device.gpu import Gpu
from edgemed.device.packages import installed_packages
from edgemed.device.profile import DeviceProfile, SoftwareRow, load_profile, shipped_profiles
from edgemed.device.sysfs import Tree
from tests.device.roots import builder
from tests.device.roots.builder import alive, gpu_folder, healthy, meminfo, nothing_here, write

STACKS = [(profile, row) for profile in shipped_profiles() for row in (profile.software or (None,))]
DIGEST = "a" * 64
OTHER_DIGEST = "b" * 64
BUNDLE = BundleNeeds("m.edgemed", DIGEST, "int8", {"int8": (13, 40 << 20), "int8_fp16": (19, 20 << 20)})


def scene_of(root: Path, live: object, bundle: BundleNeeds | None = None) -> Scene:
    tree = Tree(root)
    return Scene(tree, detect_board(tree), installed_packages(tree), live, bundle)  # type: ignore[arg-type]


def by_check(diagnosis: Diagnosis) -> dict[str, Line]:
    return {line.check: line for line in diagnosis.lines}


def statuses(scene: Scene) -> dict[str, str]:
    return {line.check: line.status for line in examine(scene).lines}


def runs_edgemed(row: SoftwareRow | None) -> bool:
    return row is None or row.jetpack[0][0] in "67"


@pytest.mark.parametrize(
    ("profile", "row"), STACKS, ids=lambda value: getattr(value, "id", None) or (value.jetpack[-1] if value else "none")
)
def test_every_stack_of_every_profile_in_order(tmp_path: Path, profile: DeviceProfile, row: SoftwareRow | None) -> None:
    healthy(tmp_path, profile, row)
    scene = scene_of(tmp_path, alive(profile, row, tmp_path / "state"))
    lines = by_check(examine(scene))
    wrong = {name for name, line in lines.items() if line.status == "wrong"}
    if profile.kind == "desktop":
        assert scene.profile == profile
        assert wrong == set()
        return
    assert scene.board is not None
    assert scene.board.profile == profile
    assert scene.row == row
    if runs_edgemed(row):
        assert wrong == set()
        assert [lines[name].status for name in ("tensorrt", "pycuda", "cuda", "python")] == ["ok"] * 4
    else:
        assert wrong == {"jetpack"}
        assert "edgemed does not run on it" in lines["jetpack"].found
        assert f"--device {profile.id}@" in lines["jetpack"].remedy
    assert lines["power mode"].found == "MAXN, GPU up to 1020 MHz"
    assert lines["clocks"].status == "ok"


def test_the_boards_and_releases_above_are_all_there_are() -> None:
    assert len({profile.id for profile, _ in STACKS}) == 16
    assert {row.jetpack[0][0] for _, row in STACKS if row is not None} == {"4", "5", "6", "7"}


def test_a_machine_without_anything_is_told_what_is_there(tmp_path: Path) -> None:
    meminfo(tmp_path, total_gb=16, available_gb=8)
    diagnosis = examine(scene_of(tmp_path, nothing_here(tmp_path / "state")))
    lines = by_check(diagnosis)
    assert not diagnosis.having("wrong")
    assert diagnosis.machine == "unknown"
    assert {lines[name].status for name in ("board", "cuda", "tensorrt", "pycuda", "clocks")} == {"unknown"}
    assert (lines["memory"].status, lines["onnxruntime"].status) == ("ok", "note")


def test_of_another_root_only_files_are_judged(tmp_path: Path) -> None:
    profile, row = load_profile("orin-nano-8gb@6.2")
    assert row is not None
    lines = by_check(examine(look(healthy(tmp_path, profile, row))))
    asked = {"python", "cuda", "tensorrt", "pycuda", "onnxruntime", "devices", "disk", "engines"}
    assert {name for name, line in lines.items() if line.status == "unknown"} == asked
    assert lines["board"].status == lines["jetpack"].status == "ok"


def test_this_machine_can_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMED_STATE", str(tmp_path))
    scene = look()
    assert scene.live is not None
    assert scene.live.driver.state in ("works", "fails")
    assert scene.live.room.path == tmp_path
    assert scene.live.onnxruntime is not None
    assert [line.check for line in examine(scene).lines] == [check.__name__.replace("_", " ") for check in CHECKS]


# ── one sickness at a time, on an Orin Nano 8 GB with JetPack 6.2 ─────────────────────────────────────────────────────

Sickness = Callable[[Path], dict[str, object] | None]


def file(name: str, content: str | bytes) -> Sickness:
    def apply(root: Path) -> None:
        write(root, name, content)

    return apply


def gone(*names: str) -> Sickness:
    def apply(root: Path) -> None:
        for name in names:
            (root / name).unlink()

    return apply


def answers(**changes: object) -> Sickness:
    return lambda root: changes


def packages(**changes: str | None) -> Sickness:
    """Change versions in dpkg's list, or remove packages from it; `_` stands for `-`."""

    def apply(root: Path) -> None:
        path = root / "var/lib/dpkg/status"
        stanzas = path.read_text().split("\n\n")
        for key, version in changes.items():
            name = key.replace("_", "-")
            stanzas = [s for s in stanzas if not s.startswith(f"Package: {name}\n")]
            if version is not None:
                stanzas.append(f"Package: {name}\nStatus: install ok installed\nVersion: {version}")
        write(root, "var/lib/dpkg/status", "\n\n".join(stanzas))

    return apply


def gpu(**values: int) -> Sickness:
    def apply(root: Path) -> None:
        for name, value in values.items():
            (gpu_folder(root) / name).write_text(f"{value}\n")

    return apply


def both(*parts: Sickness) -> Sickness:
    def apply(root: Path) -> dict[str, object]:
        changes: dict[str, object] = {}
        for part in parts:
            changes |= part(root) or {}
        return changes

    return apply


def private_nodes(root: Path) -> None:
    for node in ("nvmap", "nvgpu/igpu0/ctrl"):
        (root / "dev" / node).chmod(0o600)


def no_nodes(root: Path) -> None:
    for node in builder.device_nodes(load_profile("orin-nano-8gb@6.2")[1]):  # type: ignore[arg-type]
        (root / "dev" / node).unlink()


def record(root: Path, *, plan: bytes | None = b"plan", bundle: str = DIGEST, **key: object) -> None:
    """A kept engine, as `edgemed build NAME.edgemed` leaves it; its shape is held to the real one below."""
    folder = root / "state/engines" / bundle / f"engine-{len(key)}-{'-'.join(map(str, key.values()))}"
    whole = {
        "bundle": bundle,
        "flavour": "tensorrt",
        "version": "10.3.0",
        "compute_capability": "8.7",
        "board": "orin-nano-8gb",
        "jetpack": "6.2",
        "precision": "int8",
        "dla_core": None,
        **key,
    }
    document = {"schema": "edgemed/engine/1", "key": whole, "plan_bytes": 4}
    write(root, str((folder / "engine.json").relative_to(root)), json.dumps(document))
    if plan is not None:
        (folder / "plan").write_bytes(plan)


def kept(**key: object) -> Sickness:
    return lambda root: record(root, **key)  # type: ignore[arg-type, func-returns-value]


FIFTEEN_WATTS = file("var/lib/nvpmodel/status", "pmode:0000 fmode:quiet\n")
SHORT = {"total_gb": 7.6, "swap_gb": 8}
NO_GPU = Answer("works", {"cuda": "12.6"})
DRIVER = {"cuda": "12.6", "name": "Orin", "compute_capability": "8.7"}

SICK: list[tuple[str, str, Sickness, str]] = [
    # check, status, what is done to a healthy board, what must be said
    ("board", "wrong", file("proc/device-tree/compatible", b"nvidia,tegra999\0"), "does not know"),
    (
        "board",
        "note",
        file("proc/device-tree/compatible", b"nvidia,p9998-0001\0nvidia,tegra234\0"),
        "no device profile",
    ),
    ("board", "unknown", gone("proc/device-tree/compatible"), "device tree names no Tegra"),
    ("jetpack", "wrong", packages(nvidia_l4t_core="36.4.7-2025"), "mixed"),
    ("jetpack", "wrong", packages(nvidia_jetpack="6.0+b106"), "L4T 36.3.0"),
    ("jetpack", "note", both(packages(nvidia_jetpack="6.9"), gone("etc/nv_tegra_release")), "does not know"),
    ("jetpack", "unknown", both(packages(nvidia_jetpack=None), gone("etc/nv_tegra_release")), "Neither"),
    ("kernel", "wrong", file("proc/sys/kernel/osrelease", "5.15.136-tegra\n"), "5.15.148-tegra is installed"),
    (
        "kernel",
        "note",
        both(file("proc/sys/kernel/osrelease", "5.15.148-generic"), gone("proc/driver/nvidia/version")),
        "T",
    ),
    ("kernel", "unknown", gone("proc/sys/kernel/osrelease"), "does not say"),
    ("python", "wrong", answers(python=Python("3.11", in_venv=True)), "made for Python 3.10"),
    ("python", "wrong", answers(python=Python("3.10", in_venv=True, sees_system=False)), "hides"),
    ("python", "wrong", answers(python=Python("3.9")), "older than 3.10"),
    ("cuda", "wrong", answers(driver=Answer("works", {**DRIVER, "cuda": "12.2"})), "brings 12.6"),
    ("cuda", "wrong", answers(driver=Answer("works", {"cuda": "12.6"})), "finds no GPU"),
    ("cuda", "wrong", answers(driver=Answer("works", {"cuda": None})), "no CUDA driver"),
    ("cuda", "wrong", answers(driver=Answer("fails", error="it crashed (SIGSEGV)")), "SIGSEGV"),
    ("cuda", "wrong", file("usr/local/cuda/version.json", '{"cuda": {"version": "13.0.1"}}'), "toolkit is CUDA 13.0.1"),
    ("tensorrt", "wrong", answers(tensorrt=Answer("works", {"version": "10.13.0"})), "the library"),
    ("tensorrt", "wrong", answers(tensorrt=ABSENT), "cannot be seen"),
    ("tensorrt", "wrong", both(answers(tensorrt=ABSENT), packages(python3_libnvinfer=None)), "bindings are not"),
    ("tensorrt", "wrong", both(answers(tensorrt=ABSENT), packages(libnvinfer10=None)), "not installed"),
    ("tensorrt", "wrong", answers(tensorrt=Answer("fails", error="libnvdla_compiler.so: not found")), "libnvdla"),
    (
        "tensorrt",
        "note",
        both(answers(tensorrt=Answer("works", {"version": "10.7.0"})), packages(libnvinfer10="10.7.0")),
        "10.3",
    ),
    ("pycuda", "wrong", answers(pycuda=ABSENT), "not installed"),
    ("pycuda", "wrong", answers(pycuda=Answer("fails", error="undefined symbol: cuCtxCreate_v4")), "cuCtxCreate_v4"),
    ("pycuda", "wrong", answers(pycuda=Answer("fails", {"built": "12.6"}, "cuInit failed: no device")), "cuInit"),
    ("onnxruntime", "note", answers(onnxruntime=None), "not installed"),
    ("devices", "wrong", both(private_nodes, answers(driver=NO_GPU)), "may not open /dev/nvmap, /dev/nvgpu/igpu0/ctrl"),
    ("devices", "note", private_nodes, "CUDA works for this user"),
    ("devices", "wrong", no_nodes, "no device nodes"),
    ("devices", "note", lambda root: (root / "dev/video0").chmod(0o600), "/dev/video0 is not"),
    ("power mode", "wrong", both(FIFTEEN_WATTS, gpu(max_freq=408_000_000, min_freq=0)), "limit in force is 408 MHz"),
    ("power mode", "note", gpu(max_freq=714_000_000, min_freq=0), "holds the GPU to 714 MHz of 1020 MHz"),
    ("power mode", "wrong", file("var/lib/nvpmodel/status", "pmode:0007"), "Mode 7 is chosen"),
    (
        "power mode",
        "note",
        both(file("var/lib/nvpmodel/status", "pmode:0000"), gpu(max_freq=612_000_000)),
        "of 1020 MHz",
    ),
    ("power mode", "unknown", gone("var/lib/nvpmodel/status"), "cannot be read"),
    ("clocks", "wrong", gpu(max_freq=306_000_000, min_freq=306_000_000), "held at 306 MHz"),
    ("clocks", "ok", both(FIFTEEN_WATTS, gpu(max_freq=612_000_000, min_freq=612_000_000)), "locked at 612 MHz"),
    ("clocks", "note", gpu(min_freq=306_000_000), "first inference after a pause"),
    ("clocks", "unknown", lambda root: (gpu_folder(root) / "max_freq").unlink(), "cannot be read"),
    ("clocks", "unknown", gone("sys/class/devfreq/17000000.gpu"), "cannot be read"),
    ("thermal", "wrong", file("sys/class/thermal/cooling_device1/cur_state", "3\n"), "cpufreq-cpu0"),
    ("thermal", "wrong", file("sys/class/thermal/cooling_device2/cur_state", "1\n"), "gpu-throttle-alert"),
    ("thermal", "wrong", file("sys/class/thermal/thermal_zone1/temp", "99500\n"), "gpu-thermal at 100 °C"),
    ("thermal", "note", file("sys/class/thermal/thermal_zone1/temp", "91000\n"), "near its limit of 99 °C"),
    ("thermal", "unknown", gone(*(f"sys/class/thermal/thermal_zone{i}/temp" for i in range(3))), "No temperature"),
    ("supply", "wrong", file("sys/class/hwmon/hwmon3/oc1_event_cnt", "2\n"), "fell too low 2 time(s)"),
    ("supply", "note", file("sys/class/hwmon/hwmon3/oc3_event_cnt", "37\n"), "OC3 37"),
    ("supply", "unknown", gone("sys/class/hwmon/hwmon3/name"), "counts no over-current"),
    ("memory", "wrong", lambda root: meminfo(root, available_gb=0.3, **SHORT), "at least 512 MiB are needed"),
    ("memory", "note", lambda root: meminfo(root, available_gb=0.9, **SHORT), "little to spare"),
    (
        "memory",
        "unknown",
        file("proc/meminfo", "MemTotal: 7600000 kB\nSwapTotal: 8000000 kB\nSwapFree: 8000000 kB\n"),
        "does",
    ),
    ("swap", "wrong", lambda root: meminfo(root, available_gb=0.4, swap_used_gb=7.9, **SHORT), "is paging"),
    ("swap", "note", lambda root: meminfo(root, total_gb=7.6, available_gb=5), "may be killed"),
    ("swap", "unknown", file("proc/meminfo", "MemTotal: 7600000 kB\nMemAvailable: 6000000 kB\n"), "does not tell"),
    ("disk", "wrong", answers(room=Room(Path("/state"), 1 << 30, writable=False)), "may not write"),
    ("disk", "wrong", answers(room=Room(Path("/state"), 1 << 20, writable=True)), "1 MiB are free"),
    ("disk", "unknown", answers(room=Room(Path("/state"), None, writable=True)), "cannot be told"),
    ("engines", "wrong", kept(plan=None), "damaged"),
    ("engines", "wrong", kept(plan=b"cut"), "damaged"),
    ("engines", "note", kept(version="10.7.0"), "tensorrt 10.7.0, here 10.3.0"),
    ("engines", "note", kept(board="orin-nx-8gb"), "board orin-nx-8gb"),
    ("engines", "note", kept(jetpack="6.1"), "JetPack 6.1, here 6.2"),
    ("engines", "note", kept(compute_capability="7.2"), "compute capability 7.2"),
]
# what follows of itself from a sickness elsewhere
FOLLOWS = {
    "board": {"jetpack", "tensorrt"},
    "cuda": {"board", "pycuda"},
    "clocks": {"power mode"},
    "devices": {"cuda"},
    "power mode": {"clocks"},
    "swap": {"memory"},
}
# a check that cannot be told without the running system is told so in `test_of_another_root_only_files_are_judged`
NEVER_WRONG = {"onnxruntime"}


@pytest.mark.parametrize(("check", "status", "sickness", "said"), SICK, ids=lambda v: v if isinstance(v, str) else "")
def test_one_sickness_is_found_and_no_other(
    tmp_path: Path, check: str, status: str, sickness: Sickness, said: str
) -> None:
    profile, row = load_profile("orin-nano-8gb@6.2")
    healthy(tmp_path, profile, row)
    meminfo(tmp_path, available_gb=6, **SHORT)
    changes = sickness(tmp_path)
    live = alive(profile, row, tmp_path / "state", **(changes if isinstance(changes, dict) else {}))
    lines = by_check(examine(scene_of(tmp_path, live)))
    line = lines[check]
    assert (line.status, said in line.found) == (status, True), line.found
    assert line.remedy or status in ("ok", "unknown")
    wrong = {name for name, other in lines.items() if other.status == "wrong"}
    assert wrong - FOLLOWS.get(check, set()) == ({check} if status == "wrong" else set())


def test_every_check_is_seen_wrong_and_unknown() -> None:
    names = {check.__name__.replace("_", " ") for check in CHECKS}
    wrong = {check for check, status, *_ in SICK if status == "wrong"}
    of_another_root = {"python", "cuda", "tensorrt", "pycuda", "onnxruntime", "devices", "disk", "engines"}
    unknown = {check for check, status, *_ in SICK if status == "unknown"} | of_another_root
    assert names - wrong == NEVER_WRONG
    assert names == unknown


# ── remedies and details ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    profile, row = load_profile("orin-nano-8gb@6.2")
    return healthy(tmp_path, profile, row)


def diagnose(root: Path, bundle: BundleNeeds | None = None, **changes: object) -> dict[str, Line]:
    profile, row = load_profile("orin-nano-8gb@6.2")
    return by_check(examine(scene_of(root, alive(profile, row, root / "state", **changes), bundle)))


def test_closed_nodes_name_the_group_to_join(orin: Path) -> None:
    node = orin / "dev/nvmap"
    node.chmod(0o660)
    gid = node.stat().st_gid
    write(orin, "etc/group", f"root:x:0:\nvideo:x:{gid if gid else 44}:\n")
    line = diagnose(orin, user=User(4321, frozenset({4321})), driver=NO_GPU)["devices"]
    assert line.status == "wrong"
    if gid:
        assert "usermod -aG video" in line.remedy
    else:  # files of root belong to no group that one could join
        assert "udev rule" in line.remedy
    assert diagnose(orin, user=User(4321, frozenset({4321, gid})))["devices"].status == "ok"
    assert diagnose(orin, user=User(0, frozenset()))["devices"].status == "ok"


def test_in_a_container_the_remedy_is_of_the_container(orin: Path) -> None:
    write(orin, ".dockerenv", "")
    no_nodes(orin)
    assert "--runtime nvidia" in diagnose(orin)["devices"].remedy


def test_a_container_shows_the_device_tree_elsewhere_and_has_a_limit(orin: Path) -> None:
    (orin / "run/edgemed").mkdir(parents=True)
    (orin / "proc/device-tree").rename(orin / "run/edgemed/device-tree")
    write(orin, "sys/fs/cgroup/memory.max", str(1 << 30))
    write(orin, "sys/fs/cgroup/memory.current", str(700 << 20))
    lines = diagnose(orin)
    assert lines["board"].status == "ok"
    assert (lines["memory"].status, lines["memory"].facts["available_bytes"]) == ("wrong", 324 << 20)
    write(orin, "sys/fs/cgroup/memory.max", "max\n")
    assert diagnose(orin)["memory"].status == "ok"


def test_a_board_that_lost_its_super_modes_is_told(orin: Path) -> None:
    entries = b"nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0"
    write(orin, "proc/device-tree/compatible", entries)
    assert diagnose(orin)["power mode"].status == "ok"
    (orin / "etc/nvpmodel.conf").unlink()
    (orin / "etc/nvpmodel/board_super.conf").rename(orin / "etc/nvpmodel/board.conf")
    (orin / "etc/nvpmodel.conf").symlink_to("/etc/nvpmodel/board.conf")
    assert "without the super modes" in diagnose(orin)["power mode"].found


def test_a_mode_is_not_believed_by_its_name(orin: Path) -> None:
    """MAXN_SUPER sets no limit in its table; the profile knows what it gives on this module."""
    table = (orin / "etc/nvpmodel/board_super.conf").read_text()
    write(orin, "etc/nvpmodel/board_super.conf", table.replace("NAME=MAXN ", "NAME=MAXN_SUPER "))
    assert diagnose(orin)["power mode"].found == "MAXN_SUPER, GPU up to 1020 MHz"
    (gpu_folder(orin) / "max_freq").write_text("624750000\n")
    line = diagnose(orin)["power mode"]
    assert (line.status, "allows the GPU 1020 MHz, but its limit in force is 625 MHz" in line.found) == ("wrong", True)


def test_a_release_that_no_profile_knows_is_noted(orin: Path) -> None:
    packages(nvidia_l4t_core="36.9.1-2027")(orin)
    write(orin, "etc/nv_tegra_release", "# R36 (release), REVISION: 9.1, GCID: 1\n")
    assert diagnose(orin)["jetpack"].status == "note"


def test_the_newest_tensorrt_on_top_of_jetpack_is_no_fault(tmp_path: Path) -> None:
    profile, row = load_profile("agx-orin-64gb@7.2.2")
    assert row is not None
    healthy(tmp_path, profile, row)
    scene = scene_of(tmp_path, alive(profile, row, tmp_path / "state"))
    assert not examine(scene).having("wrong")


def test_on_a_workstation_tensorrt_rtx_is_enough(tmp_path: Path) -> None:
    profile, _ = load_profile("rtx-ada")
    healthy(tmp_path, profile, None)
    live = alive(profile, None, tmp_path, tensorrt=ABSENT, tensorrt_rtx="1.7.1.116")
    assert by_check(examine(scene_of(tmp_path, live)))["tensorrt"].status == "ok"
    neither = dataclasses.replace(live, tensorrt_rtx=None)
    assert by_check(examine(scene_of(tmp_path, neither)))["tensorrt"].status == "wrong"


def test_a_gpu_that_no_profile_describes_is_noted(tmp_path: Path) -> None:
    profile, _ = load_profile("rtx-ada")
    healthy(tmp_path, profile, None)
    driver = Answer("works", {"cuda": "13.0", "name": "H100", "compute_capability": "9.0"})
    scene = scene_of(tmp_path, alive(profile, None, tmp_path, driver=driver))
    assert scene.gpu == Gpu("H100", "9.0")
    assert by_check(examine(scene))["board"].status == "note"


# ── a bundle, and the engines that are kept ───────────────────────────────────────────────────────────────────────────


def test_a_bundle_needs_its_own_engine(orin: Path) -> None:
    assert diagnose(orin, BUNDLE)["bundle"].status == "note"
    record(orin, bundle=OTHER_DIGEST)
    record(orin, precision="fp16")
    record(orin, version="10.7.0")
    assert diagnose(orin, BUNDLE)["bundle"].status == "note"
    record(orin)
    assert diagnose(orin, BUNDLE)["bundle"].status == "ok"


@pytest.mark.parametrize(
    ("device", "bundle", "said"),
    [
        ("nano@4.6.6", BUNDLE, "does not run on this JetPack"),
        ("orin-nano-8gb@6.0", dataclasses.replace(BUNDLE, graphs={"int8": (21, 1)}), "has opset 21, TensorRT 8.6.2.3"),
    ],
)
def test_a_bundle_that_will_not_run_is_wrong(tmp_path: Path, device: str, bundle: BundleNeeds, said: str) -> None:
    profile, row = load_profile(device)
    healthy(tmp_path, profile, row)
    line = by_check(examine(scene_of(tmp_path, alive(profile, row, tmp_path / "state"), bundle)))["bundle"]
    assert (line.status, said in line.found) == ("wrong", True), line.found


def test_int8_on_a_gpu_without_it_is_wrong(tmp_path: Path) -> None:
    driver = Answer("works", {"cuda": "13.0", "name": "P100", "compute_capability": "6.0"})
    live = dataclasses.replace(nothing_here(tmp_path), driver=driver)
    assert "no kernels" in by_check(examine(scene_of(tmp_path, live, BUNDLE)))["bundle"].found


def test_without_a_gpu_a_bundle_cannot_be_judged(tmp_path: Path) -> None:
    line = by_check(examine(scene_of(tmp_path, nothing_here(tmp_path), BUNDLE)))["bundle"]
    assert (line.status, "ONNX Runtime" in line.found) == ("unknown", True)


def test_a_large_bundle_asks_for_memory_and_disk(orin: Path) -> None:
    large = dataclasses.replace(BUNDLE, graphs={"int8": (13, 12 << 30)})
    lines = diagnose(orin, large)
    assert (lines["memory"].status, lines["disk"].status) == ("wrong", "wrong")


def test_kept_engines_are_read_as_the_builder_writes_them(orin: Path) -> None:
    """The doctor may not import the room that writes them, so its reading is held to the writer's own model here."""
    from edgemed.engine.onboard import key_slug
    from edgemed.engine.record import PLAN, RECORD, SCHEMA, EngineKey, EngineRecord, Tensor

    key = EngineKey(
        bundle=DIGEST,
        flavour="tensorrt",
        version="10.3.0",
        compute_capability="8.7",
        board="orin-nano-8gb",
        jetpack="6.2",
        precision="int8",
    )
    tensor = Tensor(name="x", dtype="float32", shape=(1, 3))
    written = EngineRecord(
        schema_=SCHEMA,
        key=key,
        plan_sha256="0" * 64,
        plan_bytes=4,
        graph="graphs/int8.onnx",
        graph_sha256="0" * 64,
        strongly_typed=False,
        inputs=(tensor,),
        outputs=(tensor,),
        layer_count=1,
        build_seconds=0.5,
        created="2026-01-05T10:20:30+00:00",
        edgemed="0.1.0",
    )
    folder = f"state/engines/{DIGEST}/{key_slug(key)}"
    write(orin, f"{folder}/{RECORD}", written.model_dump_json(by_alias=True, indent=2))
    write(orin, f"{folder}/{PLAN}", b"plan")
    lines = diagnose(orin, BUNDLE)
    assert (lines["engines"].found, lines["bundle"].status) == ("1 kept, all for this machine", "ok")
