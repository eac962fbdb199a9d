"""File systems of machines that are not here: a healthy one for each device profile, and what can be wrong with it.

Layout and file contents follow L4T: `nv_tegra_release`, dpkg's list, devfreq nodes named by chip and release,
nvpmodel's table and status, thermal zones, the INA3221 and the over-current counters of Orin.
"""

from __future__ import annotations

from pathlib import Path

from edgemed.device.doctor.ask import ABSENT, Answer
from edgemed.device.doctor.scene import Live, Python, Room, User
from edgemed.device.profile import DeviceProfile, SoftwareRow

USER = User(1000, frozenset({1000, 44, 104}))
GROUPS = "root:x:0:\nvideo:x:44:edge\nrender:x:104:edge\nedge:x:1000:\n"
STEPS_HZ = (306_000_000, 408_000_000, 510_000_000, 612_000_000, 714_000_000, 816_000_000, 918_000_000, 1_020_000_000)
GPU_NODE = {"tegra210": "57000000.gpu", "tegra186": "17000000.gp10b", "tegra194": "17000000.gv11b"}
KERNEL = {"4": "4.9.337", "5": "5.10.216", "6": "5.15.148", "7": "6.8.12"}
DRIVER = {"6": "540.4.0", "7": "580.00"}
MODULE_OF_T4000 = "p3834-0000"  # its own number is not known: it is told by its memory


def write(root: Path, name: str, content: str | bytes) -> Path:
    """One file below `root`, its folders with it."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def healthy(root: Path, profile: DeviceProfile, row: SoftwareRow | None) -> Path:
    """The files of a machine in order: a Jetson with one JetPack, or a workstation with a GPU."""
    write(root, "etc/group", GROUPS)
    gigabytes = profile.memory_gb[-1] if profile.memory_gb else 64
    meminfo(root, total_gb=gigabytes * 0.95, available_gb=gigabytes * 0.7, swap_gb=8)
    if profile.kind == "desktop":
        write(root, "proc/sys/kernel/osrelease", "6.8.0-52-generic\n")
        write(root, "proc/driver/nvidia/version", nvrm("580.65.06"))
        for node in ("nvidia0", "nvidiactl", "nvidia-uvm", "dri/renderD128"):
            write(root, f"dev/{node}", "").chmod(0o666)
        return root
    assert row is not None
    _device_tree(root, profile)
    _release(root, row)
    _packages(root, row)
    _clocks(root, profile, row)
    _sensors(root)
    for node in device_nodes(row):
        write(root, f"dev/{node}", "").chmod(0o666)
    return root


def alive(profile: DeviceProfile, row: SoftwareRow | None, state: Path, **changes: object) -> Live:
    """What the running system of a healthy machine answers; `changes` replace parts of it."""
    cuda = row.cuda if row is not None else "13.0"
    cuda = cuda if "." in cuda else f"{cuda}.0"
    tensorrt = row.tensorrt if row is not None else "10.13.3.9"
    facts: dict[str, object] = {
        "user": USER,
        # on JetPack 4 and 5 whoever asks has brought a Python of his own
        "python": Python(row.python if row is not None and row.jetpack[0][0] in "67" else "3.12", in_venv=True),
        "room": Room(state, 20 << 30, writable=True),
        "driver": Answer("works", {"cuda": cuda, "name": "GPU", "compute_capability": profile.compute_capability}),
        "tensorrt": Answer("works", {"version": ".".join(tensorrt.split(".")[:3])}),
        "pycuda": Answer("works", {"version": "2026.1", "built": cuda, "devices": 1}),
        "onnxruntime": "1.22.1",
        **changes,
    }
    return Live(**facts)  # type: ignore[arg-type]


def nothing_here(state: Path) -> Live:
    """A machine without GPU, driver, TensorRT or pycuda."""
    return Live(
        USER, Python("3.12"), Room(state, 20 << 30, writable=True), Answer("works", {"cuda": None}), ABSENT, ABSENT
    )


def meminfo(root: Path, *, total_gb: float, available_gb: float, swap_gb: float = 0, swap_used_gb: float = 0) -> None:
    """`/proc/meminfo` and one swap file."""
    kib = {
        "MemTotal": total_gb,
        "MemFree": available_gb / 2,
        "MemAvailable": available_gb,
        "SwapTotal": swap_gb,
        "SwapFree": swap_gb - swap_used_gb,
    }
    write(root, "proc/meminfo", "".join(f"{name}:{int(size * 1e9 / 1024):>16} kB\n" for name, size in kib.items()))
    lines = f"/swapfile file {int(swap_gb * 1e9 / 1024)} {int(swap_used_gb * 1e9 / 1024)} -2\n" if swap_gb else ""
    write(root, "proc/swaps", "Filename Type Size Used Priority\n" + lines)


def nvrm(version: str) -> str:
    """What the NVIDIA kernel module says of itself."""
    return f"NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  {version}  Release Build\nGCC version: 11\n"


def gpu_folder(root: Path) -> Path:
    """The devfreq node of the GPU, its link followed."""
    nodes = (root / "sys/class/devfreq").iterdir()
    (link,) = (node for node in nodes if node.name != "gpu-nvd-0")
    return link.resolve()


def device_nodes(row: SoftwareRow) -> tuple[str, ...]:
    """What CUDA opens under `/dev`, by generation."""
    if row.jetpack[0][0] in "45":
        return ("nvmap", "nvhost-ctrl", "nvhost-ctrl-gpu", "nvhost-as-gpu", "nvhost-gpu", "video0")
    igpu = tuple(f"nvgpu/igpu0/{name}" for name in ("as", "channel", "ctrl", "power", "dbg"))
    if row.jetpack[0][0] == "6":
        return ("nvmap", "host1x-fence", "dri/renderD128", "nvidiactl", "video0", *igpu)
    return ("nvidia0", "nvidiactl", "nvidia-uvm", "dri/renderD128", "video0")


def _device_tree(root: Path, profile: DeviceProfile) -> None:
    module = profile.board_ids[-1] if profile.board_ids else MODULE_OF_T4000
    entries = (f"nvidia,p9999-0000+{module}", f"nvidia,{module}", f"nvidia,{profile.soc}")
    write(root, "proc/device-tree/compatible", b"".join(entry.encode() + b"\0" for entry in entries))
    write(root, "proc/device-tree/model", f"NVIDIA {profile.name} Developer Kit\0")


def _release(root: Path, row: SoftwareRow) -> None:
    generation = row.jetpack[-1][0]
    if row.l4t:
        major, _, revision = row.l4t[-1].partition(".")
        text = f"# R{major} (release), REVISION: {revision}, GCID: 1, BOARD: generic, EABI: aarch64, DATE: now\n"
        write(root, "etc/nv_tegra_release", text)
    write(root, "proc/sys/kernel/osrelease", f"{KERNEL[generation]}-tegra\n")
    if generation in DRIVER:
        write(root, "proc/driver/nvidia/version", nvrm(DRIVER[generation]))
    write(root, "usr/local/cuda/version.json", f'{{"cuda": {{"name": "CUDA SDK", "version": "{row.cuda}.0"}}}}')


def _packages(root: Path, row: SoftwareRow) -> None:
    generation, l4t = row.jetpack[-1][0], row.l4t[-1] if row.l4t else None
    packages = {
        "nvidia-jetpack": f"{row.jetpack[-1]}+b38",
        f"libnvinfer{row.tensorrt.split('.')[0]}": f"{row.tensorrt}-1+cuda{row.cuda}",
        "python3-libnvinfer": f"{row.tensorrt}-1+cuda{row.cuda}",
    }
    if l4t is not None:
        packages["nvidia-l4t-core"] = f"{l4t}-20250107174145"
        packages["nvidia-l4t-kernel"] = f"{KERNEL[generation]}-tegra-{l4t}-20250107174145"
    write(root, "var/lib/dpkg/status", "".join(map(_stanza, packages, packages.values())))


def _stanza(name: str, version: str) -> str:
    return f"Package: {name}\nStatus: install ok installed\nVersion: {version}\nDescription: one\n two\n\n"


def _clocks(root: Path, profile: DeviceProfile, row: SoftwareRow) -> None:
    names = ["gpu-gpc-0", "gpu-nvd-0"]
    if profile.soc != "tegra264":
        orin = "17000000.ga10b" if row.jetpack[-1][0] == "5" else "17000000.gpu"
        names = [GPU_NODE.get(profile.soc, orin)]
    for name in names:
        folder = f"sys/devices/platform/{name}/devfreq/{name}"
        write(root, f"{folder}/available_frequencies", " ".join(map(str, STEPS_HZ)) + " \n")
        for file, value in (("cur_freq", STEPS_HZ[-1]), ("min_freq", STEPS_HZ[-1]), ("max_freq", STEPS_HZ[-1])):
            write(root, f"{folder}/{file}", f"{value}\n")
        write(root, f"{folder}/governor", "nvhost_podgov\n")
        link = root / "sys/class/devfreq" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../devices/platform/{name}/devfreq/{name}")
        if name == "gpu-nvd-0":  # the video engines: never what the GPU's clock is read from
            write(root, f"{folder}/max_freq", "54000000\n")
    for core in (0, 1, 10):
        cpu = f"sys/devices/system/cpu/cpu{core}/cpufreq"
        for file, khz in (("cur", 1_510_400), ("min", 729_600), ("max", 1_510_400)):
            write(root, f"{cpu}/scaling_{file}_freq", f"{khz}\n")
        write(root, f"{cpu}/scaling_governor", "schedutil\n")
    table = "# < POWER_MODEL ID=9 NAME=COMMENT >\n< PM_CONFIG DEFAULT=0 >\n"
    table += "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\nGPU MAX_FREQ 612000000\n"
    table += "< POWER_MODEL ID=1 NAME=MAXN >\nGPU MIN_FREQ 0\nGPU MAX_FREQ -1\n"
    write(root, "etc/nvpmodel/board_super.conf", table)
    (root / "etc/nvpmodel.conf").symlink_to("/etc/nvpmodel/board_super.conf")
    write(root, "var/lib/nvpmodel/status", "pmode:0001 fmode:quiet\n")


def _sensors(root: Path) -> None:
    zones = (("cpu-thermal", 48_500), ("gpu-thermal", 47_000), ("cv0-thermal", -256_000))
    for number, (name, temperature) in enumerate(zones):
        zone = f"sys/class/thermal/thermal_zone{number}"
        write(root, f"{zone}/type", f"{name}\n")
        write(root, f"{zone}/temp", f"{temperature}\n")
        write(root, f"{zone}/trip_point_0_type", "active\n")
        write(root, f"{zone}/trip_point_0_temp", "35000\n")
        write(root, f"{zone}/trip_point_1_type", "passive\n")
        write(root, f"{zone}/trip_point_1_temp", "99000\n")
    for number, (name, state) in enumerate((("pwm-fan", 2), ("cpufreq-cpu0", 0), ("gpu-throttle-alert", 0))):
        write(root, f"sys/class/thermal/cooling_device{number}/type", f"{name}\n")
        write(root, f"sys/class/thermal/cooling_device{number}/cur_state", f"{state}\n")
    monitor = "sys/class/hwmon/hwmon1"
    write(root, f"{monitor}/name", "ina3221\n")
    for channel, label in ((1, "VDD_IN"), (2, "VDD_CPU_GPU_CV"), (3, "NC"), (7, "sum of shunt voltages")):
        write(root, f"{monitor}/in{channel}_label", f"{label}\n")
        write(root, f"{monitor}/in{channel}_input", "5000\n")
        write(root, f"{monitor}/curr{channel}_input", "1200\n")
    write(root, "sys/class/hwmon/hwmon3/name", "soctherm_oc\n")
    for number in (1, 2, 3):
        write(root, f"sys/class/hwmon/hwmon3/oc{number}_event_cnt", "0\n")
        write(root, f"sys/class/hwmon/hwmon3/oc{number}_throt_en", "1\n")
