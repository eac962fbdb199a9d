"""Boards with their own rails, zones and power modes, and the two programs that change their state.

Rails: Orin Nano and NX measure their input (VDD_IN); AGX Orin has three rails behind converters and no total; Thor has
an INA238 at the carrier board's input. `nvpmodel` and `jetson_clocks` are programs that change the files as the real
ones do, and write what they were asked into `calls`.
"""

from __future__ import annotations

from pathlib import Path

from edgemed.device.profile import load_profile
from tests.device.roots.builder import gpu_folder, healthy, write

BOARDS = ("orin-nano-8gb", "orin-nx-16gb", "agx-orin-64gb", "thor-t5000")
RAILS: dict[str, tuple[tuple[str, ...], ...]] = {
    "orin-nano-8gb": (("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"),),
    "orin-nx-16gb": (("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"),),
    "agx-orin-64gb": (("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), ("NC", "VDDQ_VDD2_1V8AO", "NC")),
    "thor-t5000": (("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),),
}
JETPACK = {"orin-nano-8gb": "6.2", "orin-nx-16gb": "6.2", "agx-orin-64gb": "6.2", "thor-t5000": "7.0"}
MODES = (("MAXN", 1_020_000_000), ("15W", 612_000_000), ("25W", 918_000_000), ("50W", 816_000_000))
NEEDS_REBOOT = 3  # as modes do that power parts of the GPU down


def board(root: Path, name: str) -> Path:
    """A healthy board of that name at 15 W with free clocks; its programs are in `bin`."""
    healthy(root, *load_profile(f"{name}@{JETPACK[name]}"))
    for number, channels in enumerate(RAILS[name]):
        folder = f"sys/class/hwmon/hwmon{1 if number == 0 else 10 + number}"
        write(root, f"{folder}/name", "ina3221\n")
        for channel, label in enumerate(channels, start=1):
            write(root, f"{folder}/in{channel}_label", f"{label}\n")
            write(root, f"{folder}/in{channel}_input", "5000\n")
            write(root, f"{folder}/curr{channel}_input", f"{1000 + 100 * channel}\n")
        write(root, f"{folder}/in7_label", "sum of shunt voltages\n")
        write(root, f"{folder}/in7_input", "9000\n")
    if name == "thor-t5000":
        write(root, "sys/class/hwmon/hwmon20/name", "ina238\n")
        write(root, "sys/class/hwmon/hwmon20/in1_input", "12000\n")
        write(root, "sys/class/hwmon/hwmon20/curr1_input", "2500\n")
    write(root, "sys/class/thermal/thermal_zone3/type", "tj-thermal\n")
    write(root, "sys/class/thermal/thermal_zone3/temp", "50000\n")
    write(root, f"sys/class/devfreq/{gpu_folder(root).name}/device/load", "0\n")
    _modes(root)
    _program(root, "nvpmodel", _NVPMODEL)
    _program(root, "jetson_clocks", _JETSON_CLOCKS)
    return root


def set_now(root: Path, path: str, value: int) -> None:
    """Change a file in place, as the kernel does: whoever has it open reads the new value."""
    with (root / path).open("r+") as file:
        file.truncate(0)
        file.write(f"{value}\n")


def rail_file(root: Path) -> str:
    """What the current of the first rail is read from."""
    return "sys/class/hwmon/hwmon1/curr1_input"


def calls(root: Path) -> list[str]:
    """What the programs were asked, in order."""
    log = root / "calls"
    return log.read_text().splitlines() if log.exists() else []


def _modes(root: Path) -> None:
    table = "< PM_CONFIG DEFAULT=1 >\n"
    for number, (name, hertz) in enumerate(MODES):
        table += f"< POWER_MODEL ID={number} NAME={name} >\nCPU_ONLINE CORE_0 1\nGPU MAX_FREQ {hertz}\n"
    write(root, "etc/nvpmodel/board_super.conf", table)
    write(root, "var/lib/nvpmodel/status", "pmode:0001 fmode:quiet\n")
    gpu = gpu_folder(root)
    for file, value in (("min_freq", 306_000_000), ("max_freq", MODES[1][1]), ("cur_freq", MODES[1][1])):
        (gpu / file).write_text(f"{value}\n")


def _program(root: Path, name: str, body: str) -> None:
    cases = "".join(f"{number}) name={mode} hertz={hertz} ;;\n" for number, (mode, hertz) in enumerate(MODES))
    text = body.replace("@CASES@", cases).replace("@REBOOT@", str(NEEDS_REBOOT))
    text = text.replace("@ROOT@", str(root)).replace("@GPU@", str(gpu_folder(root)))
    write(root, f"bin/{name}", f"#!/bin/sh\nroot='{root}'\ngpu='{gpu_folder(root)}'\n{text}").chmod(0o755)


_NVPMODEL = """
echo "nvpmodel $*" >> "$root/calls"
status="$root/var/lib/nvpmodel/status"
of() { case "$1" in
@CASES@*) echo "NVPM ERROR: invalid PM ID $1" >&2; exit 255 ;;
esac; }
case "$1" in
-q) id=$(sed 's/pmode:0*\\([0-9]\\).*/\\1/' "$status"); of "$id"; echo "NV Power Mode: $name"; echo "$id" ;;
-m) of "$2"
    if [ -e "$root/broken" ]; then echo "NVPM ERROR: failed to set power mode!" >&2; exit 0; fi
    if [ "$2" = @REBOOT@ ]; then
        echo "NVPM WARN: Reboot required for changing to this power mode: $2"
        echo "NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:"
        read answer || exit 1
        [ "$answer" = yes ] && touch "$root/rebooted"
        exit 1
    fi
    echo "pmode:000$2 fmode:quiet" > "$status"
    echo "$hertz" > "$gpu/max_freq"; echo 306000000 > "$gpu/min_freq"; echo "$hertz" > "$gpu/cur_freq" ;;
esac
"""
_JETSON_CLOCKS = """
echo "jetson_clocks $*" >> "$root/calls"
files=$(ls "$gpu/min_freq" "$root"/sys/devices/system/cpu/cpu*/cpufreq/scaling_min_freq)
case "$1" in
--store) [ -e "$2" ] && { echo "File $2 already exists. Can I overwrite it? Y/N:"; read answer || exit 1; }
    for file in $files; do echo "$file $(cat "$file")"; done > "$2" ;;
--restore) [ -s "$2" ] || { echo "Error: Unable to restore $2"; exit 1; }
    while read -r file value; do echo "$value" > "$file"; done < "$2" ;;
"") for file in $files; do cat "$(echo "$file" | sed 's/min_freq/max_freq/')" > "$file"; done ;;
esac
"""
