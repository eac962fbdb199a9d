"""The child process that samples: `python -m edgemed.profile.telemetry.sampler PLAN`, PLAN being JSON.

It says once which sensors there are (one line of JSON on stdout), then appends a row to a file at each turn: the time
before and after reading, and each value, as int64; what did not answer is `MISSING`. A byte on stdin asks for a row at
once; the end of stdin ends it. The parent reads nothing while it measures.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import struct
import sys
import time
from pathlib import Path
from typing import Any, Final

from edgemed.base.child import die_with_parent
from edgemed.device.sysfs import Tree
from edgemed.profile.telemetry.nvml import nvml_sensors
from edgemed.profile.telemetry.sensors import Sensor, kernel_sensors, sysfs_sensors

MISSING: Final = -(2**63)
TIMES: Final = 2  # columns before the values


def main(plan: dict[str, Any]) -> None:
    """Sample until stdin ends."""
    die_with_parent(plan["parent"])
    if plan["core"] is not None:
        with contextlib.suppress(OSError):  # a core may have gone offline since
            os.sched_setaffinity(0, {plan["core"]})
    sources = {
        "sysfs": sysfs_sensors(Tree(Path(plan["root"]))),
        "nvml": nvml_sensors() if plan["nvml"] else (),
        "kernel": kernel_sensors(Tree(), plan["parent"]) if plan["kernel"] else (),
    }
    sensors = [sensor for found in sources.values() for sensor in found]
    file = os.open(plan["file"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    _write_row(file, sensors)  # the first is there before the parent goes on
    head = [(source, s.name, s.kind, s.unit, s.update_ns, s.slows) for source in sources for s in sources[source]]
    sys.stdout.write(json.dumps(head) + "\n")
    sys.stdout.flush()
    _turns(file, sensors, plan["interval_ns"])


def _turns(file: int, sensors: list[Sensor], interval_ns: int) -> None:
    turn = time.monotonic_ns()
    if not sensors:
        while os.read(0, 1):
            pass
        return
    while True:
        turn += interval_ns
        while (left := turn - time.monotonic_ns()) > 0:
            if select.select([0], [], [], left / 1e9)[0]:
                if not os.read(0, 1):
                    _write_row(file, sensors)
                    return
                _write_row(file, sensors)
                sys.stdout.write(".\n")
                sys.stdout.flush()
        _write_row(file, sensors)
        # turns that were slept through are not made up for: their samples would be of the same moment
        turn = max(turn, time.monotonic_ns() - interval_ns)


def _write_row(file: int, sensors: list[Sensor]) -> None:
    before = time.monotonic_ns()
    values = [MISSING if (value := sensor.read()) is None else value for sensor in sensors]
    os.write(file, struct.pack(f"<{TIMES + len(values)}q", before, time.monotonic_ns(), *values))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
