"""Writes models of the matrix and samples for them; the only part of it that needs Keras.

As everywhere in the tests, biases and BatchNorm statistics are random, since fresh ones hide the failures that trained
models meet.

`python tests/matrix/zoo.py small|full OUT NAME [NAME ...]` writes `OUT/NAME/model.*`, `OUT/NAME/calibration/*.npz`, and
`OUT/NAME/custom.py` where the row has code.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.keras_models import randomize, save
from tests.matrix.rows import REFUSALS, ROWS, Row, Size

SAMPLES = {"small": 10, "full": 40}


def write(name: str, size: Size, folder: Path) -> None:
    """Write one row's model, its samples, and its code; or the model of a refusal."""
    import keras

    folder.mkdir(parents=True)
    if name in REFUSALS:
        save(REFUSALS[name].build(), folder / "model.keras")
        return
    row = ROWS[name]
    keras.utils.set_random_seed(1)
    model = randomize(row.build(**getattr(row, size)))
    save(model, folder / f"model{row.suffix}")
    if row.code is not None:
        (folder / "custom.py").write_text(row.code)
    write_samples(model, row, size, folder / "calibration")


def write_samples(model: Any, row: Row, size: Size, folder: Path) -> None:
    """Write smooth noise for each input, one NPZ file per sample."""
    import numpy as np

    folder.mkdir()
    rng = np.random.default_rng(2)
    names = model.input_names if hasattr(model, "input_names") else [tensor.name for tensor in model.inputs]
    for sample in range(SAMPLES[size]):
        feeds = {}
        for name, tensor in zip(names, model.inputs, strict=True):
            given = row.shapes.get(size, {}).get(name)
            shape = given[1:] if given else tuple(tensor.shape[1:])
            coarse = rng.random([max(1, d // 8) for d in shape[:-1]] + [shape[-1]])
            for axis, length in enumerate(shape[:-1]):
                at = np.linspace(0, coarse.shape[axis] - 1, length).round().astype(int)
                coarse = np.take(coarse, at, axis)
            feeds[name] = (row.high * np.clip(coarse + rng.normal(0, 0.05, shape), 0, 1)).astype(tensor.dtype)
        np.savez(folder / f"{sample:03d}.npz", **feeds)


def main(arguments: list[str]) -> None:
    """Write the rows that are named."""
    size, out, *names = arguments
    for name in names:
        write(name, size, Path(out) / name)


if __name__ == "__main__":
    main(sys.argv[1:])
