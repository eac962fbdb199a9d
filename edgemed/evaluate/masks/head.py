"""How a segmentation output is read: its classes, and from probabilities on the source's pixels to masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.bundle.manifest import OutputTensor
from edgemed.imaging.samples import Item

Bools = NDArray[np.bool_]
Rule = Literal["threshold", "argmax"]

_DEFAULT_THRESHOLD = 0.5
_LAYOUTS_FIRST = ("NCHW", "NCDHW")
_ONE_OUTPUT = "Evaluate models with one output, a map of probabilities."


@dataclass(frozen=True)
class MaskHead:
    """One segmentation output.

    Attributes:
        output: its name.
        names: of the classes that are judged, the background is none of them.
        named: the recipe names them.
        rule: `threshold`: each class is marked from a probability on, and classes may overlap; `argmax`: the likeliest
            class of each pixel, the first is the background.
        threshold: of `threshold`.
        logits: the model ends before its sigmoid or softmax.
        channels: of the output.
        channels_first: where they stand; a model of one may have no axis of channels.
        spatial: axes of a map: rows and columns, slices before them for a volume.
    """

    output: str
    names: tuple[str, ...]
    named: bool
    rule: Rule
    threshold: float
    logits: bool
    channels: int
    channels_first: bool
    spatial: int

    def masks(self, item: Item, value: NDArray[Any]) -> Bools:
        """What is marked on the pixels of the source.

        Probabilities are brought back by linear interpolation and decided there, as `edgemed run` shows them; where the
        recipe cut the source off, nothing is marked.

        Args:
            item: what was fed.
            value: the output for it.

        Returns:
            `(rows, columns, classes)` or `(slices, rows, columns, classes)`; of arrays, on the pixels of the output.

        Raises:
            InputError: the model answered NaN or infinity, or no map.
        """
        return self.decided(self.maps(item, value))

    def decided(self, maps: NDArray[Any]) -> Bools:
        """What is marked where these are the probabilities, from `maps`; classes last."""
        if self.rule == "threshold":
            return np.asarray(maps >= self.threshold)
        return np.asarray(maps.argmax(axis=-1)[..., None] == np.arange(1, self.channels))

    def maps(self, item: Item, value: NDArray[Any]) -> NDArray[np.float32]:
        """The probabilities on the pixels of the source, channels last (a background among them); see `masks`."""
        likely = self._probabilities(value)
        if item.prepared is None:
            return np.asarray(likely[0])
        first = item.prepared.first_axis == 2
        return item.prepared.to_source(np.moveaxis(likely, -1, 1) if first else likely)

    def _probabilities(self, value: NDArray[Any]) -> NDArray[np.float32]:
        """With the batch of 1, and channels behind."""
        maps = np.asarray(value, np.float32)
        if not np.isfinite(maps).all():
            raise InputError(f"The output {self.output} is NaN or infinite.", "Check the model and its recipe.")
        if maps.ndim == self.spatial + 1:
            maps = maps[..., None]
        elif self.channels_first:
            maps = np.moveaxis(maps, 1, -1)
        if not self.logits:
            return maps
        if self.rule == "threshold":
            special: NDArray[np.float32] = 0.5 * (1 + np.tanh(0.5 * maps))  # the sigmoid, without overflow
            return special
        powers = np.exp(maps - maps.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def is_segmentation(outputs: tuple[OutputTensor, ...]) -> bool:
    """Whether a bundle's only output is a segmentation."""
    return len(outputs) == 1 and outputs[0].task == "segmentation"


def mask_head_of(output: OutputTensor, *, channels_first: bool, spatial: int) -> MaskHead:
    """The head of a segmentation model.

    One channel is the probability of one class, marked from the threshold. Several channels with a softmax (or none at
    all) are a background and its classes; with a sigmoid each is a class of its own.

    Args:
        output: from the manifest.
        channels_first: of the model's input, and so of its maps.
        spatial: axes of its input that are neither batch nor channels.

    Raises:
        InputError: no map of probabilities, or names that do not fit its channels.
    """
    rank = len(output.shape)
    if rank not in (spatial + 1, spatial + 2) or output.dtype not in ("float16", "float32", "float64"):
        raise InputError(f"The output {output.name} is no map of probabilities of its input.", _ONE_OUTPUT)
    first = channels_first or output.layout in _LAYOUTS_FIRST
    channels = 1 if rank == spatial + 1 else output.shape[1 if first else -1]
    if channels is None:
        raise InputError(f"The output {output.name} has a varying number of classes.", _ONE_OUTPUT)
    rule: Rule = "threshold" if channels == 1 or output.activation == "sigmoid" else "argmax"
    if channels == 1 and output.activation == "softmax":
        raise InputError(f"A softmax over the one channel of {output.name} is always 1.", "Correct the recipe.")
    return MaskHead(
        output.name,
        _names(output, channels, rule),
        bool(output.classes),
        rule,
        _DEFAULT_THRESHOLD if output.threshold is None else output.threshold,
        output.activation in (None, "none"),
        channels,
        first,
        spatial,
    )


def _names(output: OutputTensor, channels: int, rule: Rule) -> tuple[str, ...]:
    """Names of what is judged; the recipe may name the background first, or leave it out."""
    judged = channels if rule == "threshold" else channels - 1
    named = output.classes
    if not named:
        start = channels - judged
        return ("foreground",) if judged == 1 else tuple(f"class {start + i}" for i in range(judged))
    background = 1 if channels == 1 or rule == "argmax" else 0
    if len(named) not in (judged, judged + background):
        raise InputError(
            f"The recipe names {len(named)} classes, and {output.name} has {channels} channels.",
            "Name every class in the order of the channels; the background comes first, or is left out.",
        )
    if len(set(named)) != len(named):
        raise InputError("The recipe names a class twice.", "Give each class a name of its own.")
    return named[-judged:]
