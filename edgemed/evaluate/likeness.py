"""How unlike the bundle's own images an input is: a score of the tensor that the model is fed, before it is asked.

Of each channel a few numbers are taken (mean, spread, quantiles, roughness). The distance of an input is its greatest
deviation among them, in units of how much the reference images deviate. The score is that distance over the greatest
that a reference image has from all the others. So 1 means: as far as the most unusual one of the reference. Of inputs
like the reference, about one in n + 1 scores above 1 (n: its images), for any of n + 1 alike is as likely the farthest.

It sees gross errors: another modality, a wrong window, an inverted, empty or noisy picture. It does not see what a
patient has: a picture with the right gray values and the wrong organ passes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError, IntegrityError
from edgemed.bundle.read import Bundle
from edgemed.evaluate.bundled import golden_of

Feeds = Mapping[str, NDArray[Any]]
Outputs = Mapping[str, NDArray[Any]]

FILE: Final = "reference.json"
LEAST: Final = 3
"""Images that a reference must be made of."""

SCHEMA: Final = "edgemed/reference/1"

FEATURES: Final = ("mean", "spread", "5 %", "median", "95 %", "roughness")
"""Of each channel of each input."""

_MOST_VALUES: Final = 1 << 16  # of a channel: quantiles of so many are good to a percent
_FLOOR: Final = 0.02  # of the reference's whole spread: what deviates by less is no sign of anything
_MOST_ANSWERS: Final = 64
_CHANNELS_FIRST: Final = ("NCHW", "NCDHW")


@dataclass(frozen=True)
class Reference:
    """What inputs are held against.

    Attributes:
        middle: of each feature, `(k,)`.
        scale: what a feature deviates by.
        farthest: greatest distance of a reference image from the others.
        images: of the reference.
        layouts: of each input.
    """

    middle: NDArray[np.float64]
    scale: NDArray[np.float64]
    farthest: float
    images: int
    layouts: Mapping[str, str]

    @classmethod
    def of(cls, bundle: Bundle) -> Reference:
        """Of what the build has kept of its images; of bundles that were built before it did, of the golden inputs.

        Raises:
            InputError: there is nothing: golden inputs of a build without images are noise.
            IntegrityError: it cannot be read.
        """
        return cls.made(rows_of(bundle), _layouts(bundle))

    @classmethod
    def made(cls, rows: list[NDArray[np.float64]], layouts: Mapping[str, str]) -> Reference:
        """Of the features of images; three at least."""
        table = np.stack(rows)
        middle, scale = _moments(table)
        alone = [_distance(table[i], *_moments(np.delete(table, i, axis=0))) for i in range(len(table))]
        return cls(middle, scale, max(alone), len(table), layouts)

    def score(self, row: NDArray[np.float64]) -> float:
        """Of an input's features.

        Raises:
            IntegrityError: they are others than those of the reference.
        """
        if row.shape != self.middle.shape:
            raise IntegrityError("The reference is of another model's inputs.", "Build the bundle anew.")
        return _distance(row, self.middle, self.scale) / max(self.farthest, 1e-9)


def rows_of(bundle: Bundle) -> list[NDArray[np.float64]]:
    """Features of each image of a bundle's reference.

    Raises:
        InputError: it was built without images.
        IntegrityError: they cannot be read.
    """
    if FILE in bundle.manifest.files:
        return _rows(bundle.read(FILE))
    if bundle.manifest.calibration is None:
        raise InputError("The bundle was built without images.", "Build it with a calibration set.")
    golden, layouts = golden_of(bundle), _layouts(bundle)
    return [features(golden.feeds(i), layouts) for i in range(golden.samples)]


def _layouts(bundle: Bundle) -> dict[str, str]:
    return {tensor.name: tensor.layout for tensor in bundle.manifest.inputs}


def answers_of(bundle: Bundle) -> list[Outputs]:
    """What the float model answers to each image of the reference; of older bundles, to the golden inputs.

    Outputs of more than `_MOST_ANSWERS` values are not among them.

    Raises:
        InputError: it was built without images.
        IntegrityError: they cannot be read.
    """
    rows_of(bundle)
    if FILE in bundle.manifest.files and (kept := json.loads(bundle.read(FILE)).get("answers")):
        try:
            arrays = [{name: np.asarray([each], np.float32) for name, each in one.items()} for one in kept]
        except (ValueError, TypeError, AttributeError) as error:
            raise IntegrityError(f"{FILE} cannot be read.", "Build the bundle anew.") from error
        return list(arrays)
    golden = golden_of(bundle)
    outputs = golden.outputs.get("fp32") or next(iter(golden.outputs.values()))
    return [{name: array[i] for name, array in outputs.items()} for i in range(golden.samples)]


def document(samples: Sequence[Feeds], layouts: Mapping[str, str], outputs: Sequence[Outputs] = ()) -> dict[str, Any]:
    """What a bundle keeps of images: numbers, no pixels.

    Args:
        samples: what the model is fed with.
        layouts: of its inputs.
        outputs: what it answers to each, `(1, …)`; no masks are kept.
    """
    rows = [[float(f"{number:.6g}") for number in features(feeds, layouts)] for feeds in samples]
    answers = [
        {name: [float(f"{number:.6g}") for number in array[0]] for name, array in each.items() if _is_answer(array)}
        for each in outputs
    ]
    return {"schema": SCHEMA, "features": FEATURES, "rows": rows, "answers": answers}


def _is_answer(array: NDArray[Any]) -> bool:
    return array.ndim == 2 and array.shape[1] <= _MOST_ANSWERS and bool(np.isfinite(array).all())


def _rows(data: bytes) -> list[NDArray[np.float64]]:
    try:
        read = json.loads(data)
        table = np.asarray(read["rows"], np.float64)
        sound = read["schema"] == SCHEMA and tuple(read["features"]) == FEATURES
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{FILE} cannot be read.", "Build the bundle anew.") from error
    if (
        not sound
        or table.ndim != 2
        or len(table) < LEAST
        or table.shape[1] % len(FEATURES)
        or not np.isfinite(table).all()
    ):
        raise IntegrityError(f"{FILE} holds something else than it should.", "Build the bundle anew.")
    return list(table)


def features(feeds: Feeds, layouts: Mapping[str, str]) -> NDArray[np.float64]:
    """The numbers that are looked at, `FEATURES` for each channel of each input by name."""
    found: list[float] = []
    for name in sorted(feeds):
        array = np.asarray(feeds[name], np.float32)
        axis = 1 if layouts.get(name) in _CHANNELS_FIRST else array.ndim - 1
        if array.ndim < 4:  # numbers of a table, or whatever: one channel
            array, axis = array.reshape(1, -1, 1), 2
        for channel in range(array.shape[axis]):
            found += _of_channel(np.take(array, channel, axis))
    return np.asarray(found)


def _of_channel(values: NDArray[Any]) -> list[float]:
    """Of an array whose last axis is along the rows of the image."""
    rough = np.abs(np.diff(values[..., :: max(1, values.shape[-1] // 512)], axis=-1))
    flat = values.reshape(-1)[:: max(1, values.size // _MOST_VALUES)]
    low, median, high = np.quantile(flat, (0.05, 0.5, 0.95))
    numbers = (flat.mean(), flat.std(), low, median, high, rough.mean() if rough.size else 0.0)
    return [float(number) for number in numbers]


def _moments(table: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle and scale; every feature of a channel is in the unit of its values, and so is the floor."""
    middle = table.mean(axis=0)
    groups = table.reshape(len(table), -1, len(FEATURES))
    spread = groups[:, :, 1].mean(axis=0) + groups[:, :, 0].std(axis=0)  # within images, and between them
    floor = np.repeat(_FLOOR * spread, len(FEATURES)) + 1e-9
    return middle, np.sqrt(table.var(axis=0, ddof=1) + floor**2)


def _distance(row: NDArray[np.float64], middle: NDArray[np.float64], scale: NDArray[np.float64]) -> float:
    return float(np.max(np.abs(row - middle) / scale))
