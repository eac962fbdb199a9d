"""`edgemed profile --estimate`: bounds from data sheets, before there is hardware."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgemed.base.errors import UsageError
from edgemed.cli.console import print_json, say, show

if TYPE_CHECKING:
    from edgemed.bundle.model import RunPrecision
    from edgemed.profile.estimate import Estimate

_LARGEST = 8


def estimate_bundle(path: Path, devices: Sequence[str], precision: RunPrecision | None, *, json: bool) -> None:
    """Print bounds of a bundle on devices.

    Raises:
        UsageError: no device was named.
        InputError: no such bundle, device or precision.
    """
    from edgemed.bundle.read import open_bundle
    from edgemed.device.profile import load_profile
    from edgemed.profile.estimate import estimate

    names = [name for each in devices for name in each.split(",") if name]
    if not names:
        raise UsageError("An estimate is of a device.", "Give --device orin-nano-8gb,agx-orin-64gb.")
    bundle = open_bundle(path)
    profiles = [load_profile(name)[0] for name in names]
    result = estimate(bundle, profiles, precision or bundle.manifest.precision)
    if json:
        print_json(result.model_dump(mode="json", by_alias=True))
    else:
        _print(result)


def _print(result: Estimate) -> None:
    from rich.table import Table
    from rich.text import Text

    from edgemed.base.text import printable
    from edgemed.profile.estimate import bound_rows
    from edgemed.report.units import prefixed

    share = "" if result.int8_share is None else f", {result.int8_share:.1%} of them in INT8"
    say(f"{result.bundle}, {result.precision.upper()}: {prefixed(result.macs)} multiply-accumulates a frame{share}")
    say(("A lower bound from data sheets, not a measurement.", "bold"))
    rate = "dense TFLOPS" if result.precision == "fp16" else "dense INT8 TOPS"
    heads = ("device", "condition", rate, "GB/s", "floor ms", "roofline ms", "bound by memory")
    table = Table(*heads, box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for row in bound_rows(result):
        table.add_row(*row)
    show(table)
    first = result.bounds[0]
    layers = sorted(first.layers, key=lambda each: -max(each.compute_us or 0.0, each.memory_us))[:_LARGEST]
    table = Table(f"largest layers on {first.device}", "in", "by", "µs", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for each in layers:
        time = f"{max(each.compute_us or 0.0, each.memory_us):.1f}"
        table.add_row(Text(printable(each.node), overflow="fold"), each.precision.upper(), each.bound_by, time)
    show(table)
    for text in result.assumptions:
        say(f"assumed: {text}")
    for text in dict.fromkeys(text for bound in result.bounds for text in bound.point.derived):
        say(f"derived: {text}")
    if any(bound.point.unverified for bound in result.bounds):
        say("* no primary source confirms a figure of this row: `edgemed devices`")
