"""What the user asked the build for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgemed.base.errors import UsageError
from edgemed.bundle.manifest import BatchRange
from edgemed.calibrate.dataset import MAX_IMAGES
from edgemed.graph.scales import Method

Precision = Literal["int8", "fp16", "fp32"]
DEFAULT_METHOD: Method = "entropy"
MODEL_SUFFIXES = frozenset({".h5", ".hdf5", ".keras"})
CALIBRATION_FOLDER = Path("calibration")
_LARGEST_BATCH = 1024


@dataclass(frozen=True)
class BuildOptions:
    """Options of `edgemed build MODEL`; `None` means the default of design §5."""

    precision: Precision = "int8"
    calibration: Path | None = None
    recipe: str | None = None
    output: Path | None = None
    force: bool = False
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    allow_code: Path | None = None
    method: Method = DEFAULT_METHOD
    max_images: int = MAX_IMAGES
    devices: tuple[str, ...] = ()
    batch: BatchRange | None = None
    signature: str | None = None
    fold: bool = False

    def target(self, model: Path) -> Path:
        """Where the bundle goes: `--output`, else `./<stem>.edgemed`."""
        if self.output is not None:
            return self.output
        name = model.absolute().name  # of a link: its own name, not its target's
        return Path(f"{name.removesuffix(model.suffix) if model.suffix in MODEL_SUFFIXES else name}.edgemed")


def parse_inputs(texts: list[str]) -> dict[str, tuple[int, ...]]:
    """Parse `NAME=1x512x512x1` options.

    Raises:
        UsageError: not of that form, or a name twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, dims = text.rpartition("=")
        parts = dims.lower().replace("×", "x").split("x")
        if not (name and equals) or name in shapes or not all(map(_is_size, parts)):
            raise UsageError(f"--input {text} is not NAME=1x512x512x1.", "Give each input once, all sizes positive.")
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def parse_batch(text: str) -> BatchRange:
    """Parse `MIN:OPT:MAX` of --dynamic-batch.

    Raises:
        UsageError: not of that form, or not in that order.
    """
    parts = text.split(":")
    if len(parts) == 3 and all(map(_is_size, parts)):
        least, usual, greatest = map(int, parts)
        if least == 1 and least <= usual <= greatest <= _LARGEST_BATCH:  # golden vectors are single samples
            return BatchRange(min=least, opt=usual, max=greatest)
    raise UsageError(
        f"--dynamic-batch {text} is not MIN:OPT:MAX.",
        f"Give three sizes in order, 1 first, at most {_LARGEST_BATCH}: 1:4:8.",
    )


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0
