"""One row of the matrix at CI's size: built in this process, and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgemed.build.options import BuildOptions, parse_batch
from edgemed.build.pipeline import build
from edgemed.bundle.read import open_bundle
from edgemed.cli.console import ConsoleProgress
from tests.matrix.check import check
from tests.matrix.rows import ROWS


def rows(*families: str) -> list[str]:
    """Names of the rows of some families."""
    return [name for name, row in ROWS.items() if row.family in families]


def build_and_check(zoo: Callable[[str], Path], folder: Path, name: str) -> None:
    """Build the row's bundle with the options that its model needs, and check all that holds for every row."""
    row = ROWS[name]
    source = zoo(row.family) / name
    options = BuildOptions(
        precision=row.precision,
        calibration=source / "calibration",
        output=folder / "model.edgemed",
        input_shapes=row.shapes.get("small", {}),
        allow_code=source / "custom.py" if row.code is not None else None,
        batch=parse_batch(row.batch) if row.batch is not None else None,
    )
    result = build(source / f"model{row.suffix}", options, ConsoleProgress())
    check(row, open_bundle(result.path))
