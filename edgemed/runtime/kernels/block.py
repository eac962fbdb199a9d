"""The block of 32-bit words that a launch reads its orders from: a head, and tables at offsets that the head names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgemed.runtime.kernels.places import Axis
from edgemed.runtime.kernels.points import Operation
from edgemed.runtime.kernels.raw import CAMERA, RawFormat

Words = NDArray[np.int32]

# fmt: off
HEAD: Final = (
    "FORMAT", "RAW_TYPE", "RAW_CHANNELS", "RAW_FRAME", "RAW_ROW", "RAW_COLUMN", "RAW_RED", "RAW_GREEN", "RAW_BLUE",
    "CHROMA", "YUV", "TURNED", "TABLE", "TABLE_FIRST", "TABLE_CHANNEL", "BEFORE", "BEFORE_COUNT", "AFTER",
    "AFTER_COUNT", "CHANNELS", "FILL_BEFORE", "FILL_AFTER", "OUT_TYPE", "OUT_CHANNELS", "OUT_ROWS", "OUT_COLUMNS",
    "OUT_FRAME", "OUT_CHANNEL", "OUT_ROW", "OUT_COLUMN", "TILE_ROWS", "TILE_COLUMNS", "ROW_TAPS", "ROW_INDEX",
    "ROW_WEIGHT", "ROW_PAD", "COLUMN_TAPS", "COLUMN_INDEX", "COLUMN_WEIGHT", "COLUMN_PAD", "SPAN", "SPAN_COUNT",
    "SPAN_INDEX", "DIVISOR", "WORDS", "EXACT",
)  # as in prepare.cu
# fmt: on

THREADS: Final = 256
_TILE: Final = (8, 32)  # rows, columns: a warp's loads are neighbours in a source row
_SHARED_WISHED = 24 << 10  # several blocks of a multiprocessor of any architecture since sm_80
_SHARED_MOST = 48 << 10  # what a kernel may have without asking for more
_FORMATS = {"gray": 0, "rgb": 0, "bgr": 0, "yuyv": 1, "uyvy": 2, "nv12": 3, "nv21": 4}
_TYPES = {"uint8": 0, "uint16": 1, "int16": 2}
_OUTPUTS = {"float32": 0, "float16": 1, "uint8": 2}
_MOST_SAMPLES = 1 << 31


@dataclass
class Program:
    """What a plan collects.

    Attributes:
        before: operations on values ahead of resampling, behind the table.
        after: operations behind it.
        table: `(channels, values)`: what each stored number becomes; `None`: itself.
        channels: of what is resampled.
        fills_before: `(n, 3)`: values of paddings 1 to n that are resampled.
        fills_after: likewise of the paddings around the result.
        divisor: of the sum of taps.
        exact: sums make up for their rounding.
        bounds: the least and the greatest value that the sample can have.
    """

    channels: int
    before: list[Operation] = field(default_factory=list)
    after: list[Operation] = field(default_factory=list)
    table: NDArray[np.float32] | None = None
    resampled: bool = False
    turned: bool = False
    divisor: float = 1.0
    exact: bool = False
    bounds: tuple[float, float] = (0.0, 0.0)
    rows: Axis = field(default_factory=lambda: Axis.of(0))
    columns: Axis = field(default_factory=lambda: Axis.of(0))
    fills_before: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    fills_after: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 3), np.float32))


@dataclass(frozen=True)
class Block:
    """One launch.

    Attributes:
        kernel: its name in the module.
        words: what the third pointer shows to; the first shows to the raw frame, the second to the sample.
        grid: blocks: tiles of columns, tiles of rows, frames.
        threads: of a block.
        shared_bytes: dynamic shared memory of a block.
    """

    kernel: str
    words: Words
    grid: tuple[int, int, int]
    threads: int
    shared_bytes: int


@dataclass(frozen=True)
class _Tiles:
    rows: int
    columns: int
    counts: Words
    index: Words
    places: Words

    @property
    def span(self) -> int:
        return int(self.index.shape[1])


def pack(program: Program, raw: RawFormat, shape: tuple[int, ...], dtype: str, *, channels_first: bool) -> Block | str:
    """The block of a launch, or why there is none.

    Args:
        program: of the recipe.
        raw: what frames are.
        shape: of the sample.
        dtype: float32, float16 or uint8.
        channels_first: in `shape`.
    """
    if max(int(np.prod(raw.shape)), int(np.prod(shape))) >= _MOST_SAMPLES:
        return "there are more samples than 32-bit numbers count"
    tiles = _tiles(program) if program.resampled else None
    if program.resampled and tiles is None:
        return "it reduces by more than shared memory holds"
    head, writer = dict.fromkeys(HEAD, 0), _Writer()
    _raw_words(head, writer, raw)
    _out_words(head, shape, dtype, channels_first)
    _value_words(head, writer, program, raw)
    _place_words(head, writer, program, tiles)
    grid = (
        -(-head["OUT_COLUMNS"] // head["TILE_COLUMNS"]),
        -(-head["OUT_ROWS"] // head["TILE_ROWS"]),
        raw.frames or 1,
    )
    words = writer.words(head)
    if max(grid[1:]) > 65_535:
        return "there are more rows or frames than a launch counts"
    if tiles is None:
        return Block("edgemed_direct", words, grid, THREADS, 0)
    return Block("edgemed_resample", words, grid, THREADS, _tile_bytes(tiles.rows, tiles.span, program.channels))


class _Writer:
    """Puts tables behind the head, each at a multiple of 4 words."""

    def __init__(self) -> None:
        self._tables: list[Words] = []
        self._end = -(-len(HEAD) // 4) * 4

    def add(self, table: NDArray[np.int32] | NDArray[np.float32]) -> int:
        """The offset of a table, in words."""
        at = self._end
        flat = np.ascontiguousarray(table).reshape(-1).view(np.int32)
        padded = np.zeros(-(-flat.size // 4) * 4, np.int32)
        padded[: flat.size] = flat
        self._tables.append(padded)
        self._end += padded.size
        return at

    def words(self, head: dict[str, int]) -> Words:
        """The whole block."""
        first = np.zeros(-(-len(HEAD) // 4) * 4, np.int32)
        head["WORDS"] = self._end
        first[: len(HEAD)] = [head[name] for name in HEAD]
        return np.concatenate([first, *self._tables])


def _raw_words(head: dict[str, int], writer: _Writer, raw: RawFormat) -> None:
    head["FORMAT"], head["RAW_TYPE"] = _FORMATS[raw.pixels], _TYPES[raw.dtype]
    head["RAW_CHANNELS"] = 3 if raw.color else 1
    head["RAW_FRAME"], head["RAW_ROW"], head["RAW_COLUMN"] = raw.frame_samples, raw.row_samples, raw.pixel_samples
    if raw.pixel_samples == 3:
        head["RAW_RED"], head["RAW_GREEN"], head["RAW_BLUE"] = (0, 1, 2) if raw.pixels == "rgb" else (2, 1, 0)
    if raw.pixels in CAMERA:
        head["CHROMA"], head["YUV"] = raw.rows * raw.row_samples, writer.add(np.stack(raw.yuv))


def _out_words(head: dict[str, int], shape: tuple[int, ...], dtype: str, channels_first: bool) -> None:
    sides = shape[2:] if channels_first else shape[1:-1]
    channels = shape[1] if channels_first else shape[-1]
    frames, rows, columns = (1, *sides) if len(sides) == 2 else sides
    head["OUT_TYPE"] = _OUTPUTS[dtype]
    head["OUT_CHANNELS"], head["OUT_ROWS"], head["OUT_COLUMNS"] = channels, rows, columns
    pixel = 1 if channels_first else channels
    head["OUT_COLUMN"], head["OUT_ROW"], head["OUT_FRAME"] = pixel, columns * pixel, rows * columns * pixel
    head["OUT_CHANNEL"] = frames * rows * columns if channels_first else 1


def _value_words(head: dict[str, int], writer: _Writer, program: Program, raw: RawFormat) -> None:
    if program.table is not None:
        alike = (program.table == program.table[0]).all()
        head["TABLE"] = writer.add(program.table[:1] if alike else program.table)
        head["TABLE_FIRST"], head["TABLE_CHANNEL"] = raw.first, 0 if alike else program.table.shape[1]
    head["BEFORE"], head["BEFORE_COUNT"] = writer.add(_operations(program.before)), len(program.before)
    head["AFTER"], head["AFTER_COUNT"] = writer.add(_operations(program.after)), len(program.after)
    head["CHANNELS"] = program.channels
    head["FILL_BEFORE"], head["FILL_AFTER"] = writer.add(program.fills_before), writer.add(program.fills_after)
    head["EXACT"] = int(program.exact)
    head["DIVISOR"] = int(np.float32(program.divisor).view(np.int32))


def _operations(listed: list[Operation]) -> Words:
    """Eight words for each: its code, and two numbers for each channel."""
    words = np.zeros((len(listed), 8), np.int32)
    for row, done in zip(words, listed, strict=True):
        row[0] = int(done.code)
        row[1:7] = np.array([*done.a, *done.b], np.float32).view(np.int32)
    return words


def _place_words(head: dict[str, int], writer: _Writer, program: Program, tiles: _Tiles | None) -> None:
    rows, columns = program.rows, program.columns
    head["TURNED"] = int(program.turned)
    head["ROW_TAPS"], head["COLUMN_TAPS"] = rows.index.shape[1], columns.index.shape[1]
    head["ROW_INDEX"], head["ROW_WEIGHT"] = writer.add(rows.index), writer.add(rows.weight)
    head["ROW_PAD"], head["COLUMN_PAD"] = writer.add(rows.pad), writer.add(columns.pad)
    head["COLUMN_WEIGHT"] = writer.add(columns.weight)
    head["COLUMN_INDEX"] = writer.add(columns.index if tiles is None else tiles.places)
    head["TILE_ROWS"], head["TILE_COLUMNS"] = _TILE if tiles is None else (tiles.rows, tiles.columns)
    if tiles is not None:
        head["SPAN"], head["SPAN_COUNT"] = tiles.span, writer.add(tiles.counts)
        head["SPAN_INDEX"] = writer.add(tiles.index)


def _tile_bytes(rows: int, span: int, channels: int) -> int:
    return 4 * rows * span * channels


def _tiles(program: Program) -> _Tiles | None:
    """The largest tile whose source columns fit into shared memory, or `None`: not even those of one pixel do."""
    for rows, columns in ((8, 32), (4, 32), (4, 16), (2, 16), (2, 8), (1, 8), (1, 4), (1, 2), (1, 1)):
        tiles = _spans(program.columns, rows, columns)
        most = _SHARED_MOST if rows == columns == 1 else _SHARED_WISHED
        if _tile_bytes(rows, tiles.span, program.channels) <= most:
            return tiles
    return None


def _spans(axis: Axis, rows: int, columns: int) -> _Tiles:
    """For each tile of output columns the source columns that it needs, and where each tap finds its own in them."""
    places, needed = np.zeros_like(axis.index), []
    for first in range(0, len(axis), columns):
        part = slice(first, first + columns)
        used = axis.weight[part] != 0
        found = np.unique(axis.index[part][used]).astype(np.int32)
        places[part][used] = np.searchsorted(found, axis.index[part][used])
        needed.append(found)
    index = np.zeros((len(needed), max(1, *(len(found) for found in needed))), np.int32)
    for row, found in zip(index, needed, strict=True):
        row[: len(found)] = found
    return _Tiles(rows, columns, np.array([len(found) for found in needed], np.int32), index, places)
