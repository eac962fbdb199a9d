"""What happens as the device warms: a warning, then rest for what is not live, then the smaller model.

The state goes by the hottest zone with hysteresis, and by the kernel's own means of cooling that take speed away: while
those are on, or were a moment ago, the device throttles, whatever the zones say.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from edgemed.base.quantity import SECOND
from edgemed.device.clocks import cpu_clocks, gpu_clock
from edgemed.device.power import read_rails
from edgemed.device.sysfs import Tree
from edgemed.device.thermal import read_cooling, read_zones
from edgemed.serve.alarms import Alarms
from edgemed.serve.config.daemon import ThermalSection
from edgemed.serve.metrics import Metrics

log = logging.getLogger(__name__)

CALM_NS: Final = 30 * SECOND
"""Without any slowing before the device is taken to have recovered: governors go up and down within seconds."""


class Heat(str, Enum):
    """Of the device."""

    NORMAL = "normal"
    WARM = "warm"
    THROTTLED = "throttled"


@dataclass(frozen=True)
class Weather:
    """What was measured at one moment.

    Attributes:
        at_ns: `time.monotonic_ns`.
        hottest_mc: thousandths of a degree Celsius of the hottest zone; `None` where no sensor is on.
        slowed: names of what takes speed away at the moment.
    """

    at_ns: int
    hottest_mc: int | None = None
    slowed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Climate:
    """Where the device stands.

    Attributes:
        heat: how it is taken to be.
        slowed_ns: `time.monotonic_ns` when something last took speed away; `None`: not since the start.
    """

    heat: Heat = Heat.NORMAL
    slowed_ns: int | None = None


def advance(before: Climate, weather: Weather, rules: ThermalSection) -> Climate:
    """Where the device stands after a measurement."""
    slowed_ns = weather.at_ns if weather.slowed else before.slowed_ns
    slows = slowed_ns is not None and weather.at_ns - slowed_ns < (CALM_NS if before.heat is Heat.THROTTLED else 1)
    celsius = None if weather.hottest_mc is None else weather.hottest_mc / 1000

    def above(limit: float, *, stays: bool) -> bool:
        return celsius is not None and celsius >= (limit - rules.hysteresis_c if stays else limit)

    if slows or above(rules.throttled_c, stays=before.heat is Heat.THROTTLED):
        return Climate(Heat.THROTTLED, slowed_ns)
    warm = above(rules.warm_c, stays=before.heat is not Heat.NORMAL)
    return Climate(Heat.WARM if warm else Heat.NORMAL, slowed_ns)


class Thermal:
    """Looks at the sensors, tells alarms and figures, and whoever acts on it.

    Args:
        rules: temperatures.
        alarms: `hot`, `throttled`.
        metrics: temperatures, power, clocks.
        acts: called when the heat has changed.
        tree: where the sensors are read.
    """

    def __init__(
        self,
        rules: ThermalSection,
        alarms: Alarms,
        metrics: Metrics,
        acts: Callable[[Heat], None],
        tree: Tree | None = None,
    ) -> None:
        self._rules, self._alarms, self._metrics, self._acts = rules, alarms, metrics, acts
        self._tree = tree or Tree()
        self.climate = Climate()
        self._told: Heat | None = None  # alarms of an earlier run may stand

    def step(self, now_ns: int) -> Heat:
        """Measure, and act where something has changed; every few seconds."""
        weather = self._measure(now_ns)
        before, self.climate = self.climate.heat, advance(self.climate, weather, self._rules)
        if self.climate.heat is not self._told:
            self._told = self.climate.heat
            self._tell(weather)
        if self.climate.heat is not before:
            log.warning("the device is %s (was %s), %s", self.climate.heat.value, before.value, _words(weather))
            self._acts(self.climate.heat)
        return self.climate.heat

    def _tell(self, weather: Weather) -> None:
        heat, words = self.climate.heat, _words(weather)
        if heat is Heat.NORMAL:
            self._alarms.clear("hot")
        else:
            self._alarms.raise_("hot", f"The device is hot: {words}. What is not live is answered more slowly.")
        if heat is Heat.THROTTLED:
            self._alarms.raise_("throttled", f"The device slows down because of its heat: {words}.")
        else:
            self._alarms.clear("throttled")

    def _measure(self, now_ns: int) -> Weather:
        zones = read_zones(self._tree)
        for zone in zones:
            self._metrics.temperature.labels(zone.name).set(zone.temperature_mc / 1000)
        for rail in read_rails(self._tree):
            self._metrics.power.labels(rail.name).set(rail.milliwatts / 1000)
        gpu = gpu_clock(self._tree)
        for clock in (*cpu_clocks(self._tree), *(() if gpu is None else (gpu,))):
            if clock.current is not None:
                self._metrics.clock.labels(clock.name).set(clock.current)
        slowed = tuple(cooling.name for cooling in read_cooling(self._tree) if cooling.slows and cooling.state > 0)
        return Weather(now_ns, max((zone.temperature_mc for zone in zones), default=None), slowed)


def _words(weather: Weather) -> str:
    degrees = "no sensor is on" if weather.hottest_mc is None else f"{weather.hottest_mc / 1000:.1f} °C"
    return degrees + (f", slowed by {', '.join(weather.slowed)}" if weather.slowed else "")
