"""What the board may do now: power mode, clocks, heat, supply. Clocks are read; a mode's name is not trusted."""

from __future__ import annotations

from typing import Final

from edgemed.device.board import device_tree
from edgemed.device.clocks import Clock, cpu_clocks, gpu_clock
from edgemed.device.doctor.diagnosis import Facts, Line, note, ok, unknown, wrong
from edgemed.device.doctor.scene import Scene
from edgemed.device.power import Mode, PowerMode, read_over_current, read_power_mode, read_rails
from edgemed.device.thermal import Zone, read_cooling, read_zones

# clocks come in steps: Orin's are 51 and 102 MHz apart and a cap is rounded down to one, never by a whole step of 10 %
_SAME: Final = 0.9
_NEAR_LIMIT_MC: Final = 10_000  # a load's rise from idle on Orin with its fan is of this size
_NOT_HERE: Final = "No Jetson, so nothing to set here."


def power_mode(scene: Scene) -> Line:
    """`nvpmodel`'s choice, held against the limit of the GPU's clock that is in force."""
    mode = read_power_mode(scene.tree)
    if scene.board is None:
        return unknown("power mode", _NOT_HERE)
    if mode.current is None or not mode.modes:
        return unknown(
            "power mode",
            "nvpmodel's table (/etc/nvpmodel.conf) or its choice (/var/lib/nvpmodel/status) cannot be read.",
            "In a container, mount both read-only; on the board: sudo nvpmodel -q",
        )
    facts: Facts = {"id": mode.current, "name": mode.chosen.name if mode.chosen else None, "table": mode.table}
    if mode.chosen is None:
        return wrong(
            "power mode",
            f"Mode {mode.current} is chosen, which the table does not have: another table was linked since.",
            f"Choose one of {_listed(mode)}: sudo nvpmodel -m ID",
            facts=facts,
        )
    clock = gpu_clock(scene.tree)
    return _mode_against_clock(scene, mode, mode.chosen, clock, facts)


def clocks(scene: Scene) -> Line:
    """Clocks of the GPU and the cores: what limits are in force, and who chooses within them."""
    clock = gpu_clock(scene.tree)
    if clock is None:
        why = "The GPU's clock (/sys/class/devfreq) cannot be read." if scene.board is not None else _NOT_HERE
        return unknown("clocks", why)
    cores = cpu_clocks(scene.tree)
    facts: Facts = {
        "gpu_hz": clock.current,
        "gpu_min_hz": clock.minimum,
        "gpu_max_hz": clock.maximum,
        "gpu_highest_hz": clock.highest,
        "gpu_governor": clock.governor,
        "cpu_max_hz": max((core.maximum for core in cores if core.maximum is not None), default=None),
        "cpu_cores": len(cores),
    }
    if clock.maximum is None:
        return unknown("clocks", f"The limits of the GPU's clock ({clock.name}) cannot be read.", facts=facts)
    may = _may(scene, read_power_mode(scene.tree).chosen, clock) or clock.highest
    if clock.is_pinned and may is not None and clock.maximum < _SAME * may:
        return wrong(
            "clocks",
            f"The GPU is held at {_mhz(clock.maximum)}, although it may do {_mhz(may)}.",
            "Undo it: sudo jetson_clocks --restore (or restart), then choose the power mode anew.",
            facts=facts,
        )
    if clock.is_pinned:
        return ok("clocks", f"GPU locked at {_mhz(clock.maximum)} (as jetson_clocks does)", facts=facts)
    return note(
        "clocks",
        f"GPU between {_mhz(clock.minimum)} and {_mhz(clock.maximum)}, governor {clock.governor or 'unknown'}: "
        "the first inference after a pause is slower.",
        "Where latency counts, lock them: sudo jetson_clocks",
        facts=facts,
    )


def thermal(scene: Scene) -> Line:
    """Temperatures against the kernel's own limits, and whether something is slowed because of them now."""
    zones, cooling = read_zones(scene.tree), read_cooling(scene.tree)
    if not zones:
        return unknown("thermal", "No temperature can be read (/sys/class/thermal).")
    hottest = max(zones, key=lambda zone: zone.temperature_mc)
    facts: Facts = {f"{zone.name}_mc": zone.temperature_mc for zone in zones}
    slowed = sorted({device.name for device in cooling if device.slows and device.state > 0})
    over = [zone for zone in zones if zone.limit_mc is not None and zone.temperature_mc >= zone.limit_mc]
    if slowed or over:
        what = f"slowed: {', '.join(slowed)}" if slowed else f"at its limit: {_zone(over[0])}"
        return wrong(
            "thermal",
            f"The board is too hot, {what}; hottest is {_zone(hottest)}.",
            "Let it cool down, look after fan, dust and enclosure, or choose a lower power mode.",
            facts=facts,
        )
    near = [z for z in zones if z.limit_mc is not None and z.temperature_mc >= z.limit_mc - _NEAR_LIMIT_MC]
    if near:
        return note(
            "thermal",
            f"{_zone(near[0])} is near its limit of {_degrees(near[0].limit_mc or 0)}.",
            "Under load it will be slowed: look after fan and enclosure.",
            facts=facts,
        )
    return ok("thermal", f"nothing is slowed; hottest is {_zone(hottest)}", facts=facts)


def supply(scene: Scene) -> Line:
    """Events of under-voltage and over-current since the start."""
    guards, rails = read_over_current(scene.tree), read_rails(scene.tree)
    facts: Facts = {
        **{f"{guard.name.lower()}_events": guard.events for guard in guards},
        **{f"{rail.name}_mw": rail.milliwatts for rail in rails},
    }
    if not guards:
        why = "This board counts no over-current events." if scene.board is not None else _NOT_HERE
        return unknown("supply", why, facts=facts)
    by_name = {guard.name: guard.events for guard in guards}
    if by_name.get("OC1"):
        return wrong(
            "supply",
            f"The supply's voltage fell too low {by_name['OC1']} time(s) since the start.",
            "Use the supply that the board came with, and a sound cable.",
            facts=facts,
        )
    if any(by_name.values()):
        counts = ", ".join(f"{name} {count}" for name, count in by_name.items() if count)
        return note(
            "supply",
            f"Over-current events since the start: {counts}; each slows the clocks for a moment.",
            "Choose a lower power mode if latency has outliers, or a stronger supply.",
            facts=facts,
        )
    return ok("supply", "no under-voltage or over-current since the start", facts=facts)


def _mode_against_clock(scene: Scene, mode: PowerMode, chosen: Mode, clock: Clock | None, facts: Facts) -> Line:
    promised = _may(scene, chosen, clock)
    allowed = clock.maximum if clock is not None else None
    if promised is not None and allowed is not None and allowed < _SAME * promised:
        return wrong(
            "power mode",
            f"{chosen.name} is chosen and allows the GPU {_mhz(promised)}, but its limit in force is {_mhz(allowed)}.",
            f"Set it anew: sudo nvpmodel -m {chosen.id}; if it stays, the board was flashed for another table.",
            facts=facts,
        )
    if _lost_super(scene, mode):
        return note(
            "power mode",
            f"{chosen.name}, of a table without the super modes ({mode.table}), although the board has them.",
            "The start links the table of the firmware: flash the super configuration to get them.",
            facts=facts,
        )
    highest = clock.highest if clock is not None else None
    if allowed is not None and highest is not None and allowed < _SAME * highest:
        return note(
            "power mode",
            f"{chosen.name} holds the GPU to {_mhz(allowed)} of {_mhz(highest)}.",
            f"For more speed choose another of {_listed(mode)}: sudo nvpmodel -m ID",
            facts=facts,
        )
    return ok("power mode", chosen.name + (f", GPU up to {_mhz(allowed)}" if allowed is not None else ""), facts=facts)


def _may(scene: Scene, chosen: Mode | None, clock: Clock | None) -> int | None:
    """What the chosen mode lets the GPU do, as its table or the profile says; None where neither gives a number.

    The highest step of the hardware is no promise: some modules' tables list steps that their firmware never allows.
    """
    if chosen is None:
        return None
    known = scene.profile.power_modes if scene.profile is not None else ()
    of_profile = next((mode.gpu_mhz for mode in known if mode.name == chosen.name and mode.gpu_mhz is not None), None)
    cap = chosen.gpu_cap
    if cap is None and of_profile is not None:
        cap = round(of_profile * 1e6)
    highest = clock.highest if clock is not None else None
    return cap if cap is None or highest is None else min(cap, highest)


def _lost_super(scene: Scene, mode: PowerMode) -> bool:
    """A board that was flashed as super says so in its device tree; its table has `super` in its name."""
    is_super = any(name.endswith("-super") for name in device_tree(scene.tree, "compatible"))
    return is_super and mode.table is not None and "super" not in mode.table


def _listed(mode: PowerMode) -> str:
    return ", ".join(f"{entry.id} {entry.name}" for entry in list(mode.modes.values())[:12])


def _mhz(hertz: int | None) -> str:
    return "?" if hertz is None else f"{hertz / 1e6:.0f} MHz"


def _degrees(mc: int) -> str:
    return f"{mc / 1000:.0f} °C"


def _zone(zone: Zone) -> str:
    return f"{zone.name} at {_degrees(zone.temperature_mc)}"
