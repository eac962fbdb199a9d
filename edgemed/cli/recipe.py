"""`edgemed recipe check`: what a recipe makes of an image, step by step, in numbers and in a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemed.base.errors import UsageError
from edgemed.base.text import printable
from edgemed.cli.console import print_json, say, show
from edgemed.cli.options import JsonOption

if TYPE_CHECKING:
    from edgemed.base.runner import TensorSpec
    from edgemed.recipe.apply import Preprocessor, Traced
    from edgemed.recipe.image import Image
    from edgemed.recipe.schema import Recipe

_INPUT_HINT = "Give the shape of the model's input, batch first: --input 1x224x224x1"


@dataclass(frozen=True)
class _Row:
    """One line of the table."""

    step: str
    settings: str
    shape: tuple[int, ...]
    dtype: str
    min: float
    max: float
    mean: float
    elapsed_ns: int


def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Recipe: a .toml file, or the name of a shipped one.")],
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The image to try it on.")],
    *,
    input_: Annotated[
        str | None,
        typer.Option("--input", help="Shape of the model's input; default the recipe's size.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Picture of every step; default ./IMAGE.recipe.png.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the picture.")] = False,
    json: JsonOption = False,
) -> None:
    """Check a recipe, do what it says to IMAGE, and show every step: a table, and a picture with histograms."""
    from edgemed.base.resources import find_resource
    from edgemed.base.store import write_atomic
    from edgemed.bundle.outputs import require_no_input, require_outside_bundles
    from edgemed.recipe.schema import load_recipe
    from edgemed.report.sheet import contact_sheet

    target = output or Path(f"{image.name if image.is_dir() else image.stem}.recipe.png")
    require_outside_bundles(target, "--output")
    require_no_input([target], [image, Path(file)], "--output")
    if target.exists() and not force:
        raise UsageError(f"{target} exists.", "Replace it with --force, or name another file with --output.")
    recipe = load_recipe(find_resource("calibration", file))
    given = _read(image, recipe, input_)
    spec = _spec(recipe, given, input_)
    traced = _traced(recipe, spec, given, image)
    rows = [_row(step) for step in traced]
    heading = f"{recipe.name} on {image.name}, for input {'x'.join('?' if d is None else str(d) for d in spec.shape)}"
    write_atomic(target, contact_sheet([_panel(step, row) for step, row in zip(traced, rows, strict=True)], heading))
    if json:
        shape = list(spec.shape)
        steps = [{**row.__dict__, "shape": list(row.shape)} for row in rows]
        print_json({"recipe": recipe.name, "image": str(image), "input": shape, "picture": str(target), "steps": steps})
        return
    _print(rows)
    say(f"{target} shows every step.")


def _read(path: Path, recipe: Recipe, text: str | None) -> Image:
    """What the recipe makes a sample of: an image, a volume, a clip; the one in the middle of a file with several."""
    from edgemed.imaging.open import open_image
    from edgemed.imaging.pieces import Pieces

    given = recipe.input
    if text is not None:  # its dimensions tell the kind where the recipe does not
        kind = _preprocessor(recipe, _given(text)).kind
    else:
        kind = given.kind or ("image" if given.time is None else "cine")
    pieces = Pieces(open_image(path), path, kind, given.time)
    return pieces.image(len(pieces) // 2)


def _spec(recipe: Recipe, image: Image, text: str | None) -> TensorSpec:
    """The model's input: as told, else of the recipe's size, open where it has none."""
    from edgemed.base.runner import TensorSpec

    if text is not None:
        return _given(text)
    given = recipe.input
    rows, columns = given.size or (None, None)
    lead: tuple[int | None, ...] = (1,)
    if given.time is not None:
        lead = (1, given.time.frames)
    elif given.kind in ("volume", "cine"):
        lead = (1, None)
    channels = _channels(recipe, image)
    if given.layout in ("NCHW", "NCDHW"):
        return TensorSpec("input", "float32", (lead[0], channels, *lead[1:], rows, columns))
    return TensorSpec("input", "float32", (*lead, rows, columns, channels))


def _channels(recipe: Recipe, image: Image) -> int:
    color = image.is_color and recipe.input.color != "gray"
    for step in recipe.input.steps:
        color = step.op == "rgb" or (color and step.op != "gray")
    return 3 if color else 1


def _given(text: str) -> TensorSpec:
    from edgemed.base.runner import TensorSpec

    return TensorSpec("input", "float32", _parsed(text))


def _preprocessor(recipe: Recipe, spec: TensorSpec) -> Preprocessor:
    from edgemed.recipe.apply import Preprocessor

    return Preprocessor(recipe, spec, recipe.input.layout or "NHWC")


def _parsed(text: str) -> tuple[int | None, ...]:
    parts = text.rpartition("=")[2].split("x")
    if not all(re.fullmatch(r"\?|[1-9][0-9]{0,4}", part) for part in parts):
        raise UsageError(f"--input {text} is no shape.", _INPUT_HINT)
    return tuple(None if part == "?" else int(part) for part in parts)


def _traced(recipe: Recipe, spec: TensorSpec, image: Image, path: Path) -> list[Traced]:
    from edgemed.base.errors import InputError

    preprocessor = _preprocessor(recipe, spec)
    try:
        preprocessor.trace(image)  # the first time pays for imports, which are no part of a step's time
        return preprocessor.trace(image)
    except InputError as error:
        raise InputError(f"{path}: {error.what}", error.hint) from error


def _row(step: Traced) -> _Row:
    import numpy as np

    pixels = step.pixels
    low, high, mean = float(pixels.min()), float(pixels.max()), float(pixels.mean(dtype=np.float64))
    return _Row(step.name, step.note, pixels.shape, str(pixels.dtype), low, high, mean, step.elapsed_ns)


def _panel(step: Traced, row: _Row) -> Any:
    from edgemed.report.sheet import Panel
    from edgemed.report.units import shape

    count = len(step.pixels)
    pixels = step.pixels[count // 2]
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    which = f", slice {count // 2 + 1} of {count} shown" if count > 1 else ""
    caption = f"{row.dtype} {shape(pixels.shape)}{which}: {_number(row.min)} to {_number(row.max)}"
    return Panel(step.name, row.settings, f"{caption}, mean {_number(row.mean)}", pixels)


def _print(rows: Sequence[_Row]) -> None:
    from rich.table import Table
    from rich.text import Text

    from edgemed.report.units import shape

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("step", "settings", "shape", "type"):
        table.add_column(name, no_wrap=name != "settings", style="dim" if name == "settings" else "")
    for name in ("min", "max", "mean", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        numbers = [_number(value) for value in (row.min, row.max, row.mean)]
        table.add_row(
            row.step,
            Text(printable(row.settings)),
            shape(row.shape),
            row.dtype,
            *numbers,
            f"{row.elapsed_ns / 1e6:.1f}",
        )
    show(table)


def _number(value: float) -> str:
    return f"{value:.5g}"
