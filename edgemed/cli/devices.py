"""`edgemed devices`: what is known of each device, and what this machine is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from edgemed.device.here import Here
    from edgemed.device.profile import DeviceProfile, SoftwareRow

_MARK = "?"  # behind a value that no primary source confirms


def devices(
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """List the device profiles, and say what this machine is."""
    from edgemed.cli.console import print_json, say, show
    from edgemed.device.here import detect_here
    from edgemed.device.profile import shipped_profiles
    from edgemed.engine.bridge import installed_flavours

    profiles, here, flavours = shipped_profiles(), detect_here(), installed_flavours()
    if json:
        print_json(
            {
                "devices": [{"id": p.id, **p.model_dump(mode="json", by_alias=True)} for p in profiles],
                "here": _here_document(here, flavours),
            }
        )
        return
    show(_table(profiles))
    say(f"{_MARK} rests on a secondary or unconfirmed source; + is installed on top of that JetPack.")
    say(_here_sentence(here, flavours))


def _table(profiles: tuple[DeviceProfile, ...]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("device", "SoC", "CC", "RAM GB", "INT8", "DLA", "JetPack: TensorRT"):
        table.add_column(heading, no_wrap=heading in ("device", "SoC"))
    for profile in profiles:
        table.add_row(
            profile.id,
            _marked(profile, "soc", profile.soc),
            _marked(profile, "compute_capability", profile.compute_capability),
            _marked(profile, "memory_gb", "/".join(f"{size:g}" for size in profile.memory_gb) or "-"),
            _marked(profile, "int8", "yes" if profile.int8 else "no"),
            _marked(profile, "dla_cores", str(profile.dla_cores)),
            ", ".join(_software(profile.software)) or "-",
        )
    return table


def _marked(table: DeviceProfile | SoftwareRow, field: str, text: str) -> str:
    return text if table.is_verified(field) else text + _MARK


def _software(rows: tuple[SoftwareRow, ...]) -> Iterator[str]:
    """`6.1-6.2.2: 10.3` for each run of JetPack releases that have the same TensorRT, to its minor version."""
    for tensorrt, group in groupby(rows, key=_tensorrt):
        releases = [release for row in group for release in row.jetpack]
        span = releases[0] if len(releases) == 1 else f"{releases[0]}-{releases[-1]}"
        yield f"{span}: {tensorrt}"


def _tensorrt(row: SoftwareRow) -> str:
    minor = ".".join(row.tensorrt.split(".")[:2])
    return _marked(row, "tensorrt", minor) + ("" if row.bundled else "+")


def _here_document(here: Here, flavours: tuple[str, ...]) -> dict[str, Any]:
    board, gpu = here.board, here.gpu
    return {
        "board": None
        if board is None
        else {
            "id": board.id,
            "model": board.model,
            "modules": list(board.modules),
            "soc": board.soc,
            "l4t": board.l4t,
            "jetpack": board.jetpack,
            "compute_capability": board.compute_capability,
        },
        "gpu": None if gpu is None else {"name": gpu.name, "compute_capability": gpu.compute_capability},
        "flavours": list(flavours),
    }


def _here_sentence(here: Here, flavours: tuple[str, ...]) -> str:
    if here.board is not None:
        release = f", JetPack {here.board.jetpack}" if here.board.jetpack else ""
        what = f"{here.board.model or here.board.soc} ({here.board.id}{release})"
    elif here.gpu is not None:
        what = f"no Jetson; its GPU is {here.gpu.name}, compute capability {here.gpu.compute_capability}"
    else:
        what = "no Jetson, and has no NVIDIA GPU"
    installed = " and ".join(flavours) if flavours else "no TensorRT"
    return f"This machine is {what}. Installed: {installed}."
