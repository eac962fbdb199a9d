"""What the outputs of a model say, whatever its task: the plain data that results are written from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.bundle.manifest import OutputTensor
from edgemed.bundle.read import Bundle
from edgemed.evaluate.bundled import reader_of
from edgemed.evaluate.head import Head, finite, head_of, sigmoid
from edgemed.evaluate.masks.head import MaskHead, mask_head_of
from edgemed.imaging.results.content import Concept, Reading, Score
from edgemed.imaging.samples import Item
from edgemed.recipe.schema import OutputRecipe

_CHANNELS_FIRST = ("NCHW", "NCDHW")
_DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Place:
    """What a reading is about: see `Reading`."""

    source: int | None = None
    frame: int | None = None


class OutputHead(Protocol):
    """Reads one output."""

    def read(self, item: Item, value: NDArray[Any], place: Place) -> list[Reading]:
        """What it says.

        Raises:
            InputError: NaN, infinity, or what is no probability.
        """
        ...


@dataclass(frozen=True)
class Readings:
    """Reads all outputs of a bundle.

    Attributes:
        heads: by the name of the output.
        unread: outputs that do not say what they mean.
    """

    heads: Mapping[str, OutputHead]
    unread: tuple[str, ...] = ()

    @classmethod
    def of(cls, bundle: Bundle) -> Readings:
        """Of a bundle, by its recipe.

        Raises:
            InputError: none of its outputs says what it means; why, of the first.
        """
        recipe = reader_of(bundle).recipe
        first = bundle.manifest.inputs[0]
        shape = (first.layout in _CHANNELS_FIRST, len(first.shape) - 2)
        found = {tensor.name: _head_or_why(tensor, recipe.output, *shape) for tensor in bundle.manifest.outputs}
        refusals = {name: head for name, head in found.items() if isinstance(head, InputError)}
        heads = {name: head for name, head in found.items() if not isinstance(head, InputError)}
        if not heads:
            raise next(iter(refusals.values()))
        return cls(heads, tuple(refusals))

    def said(self, outputs: Mapping[str, NDArray[Any]]) -> list[dict[str, Any]]:
        """What the model says, as JSON; masks aside, which are seen in the outputs themselves.

        Raises:
            InputError: as `read`.
        """
        heads = {name: head for name, head in self.heads.items() if not isinstance(head, _Masks)}
        found = (r for name, head in heads.items() for r in head.read(Item(()), outputs[name], Place()))
        return [_json(reading) for reading in found]

    @property
    def mask_heads(self) -> list[MaskHead]:
        """Those of segmentations."""
        return [head.head for head in self.heads.values() if isinstance(head, _Masks)]

    def read(self, item: Item, outputs: Mapping[str, NDArray[Any]], place: Place) -> tuple[Reading, ...]:
        """What the model says of one item.

        Args:
            item: what was fed.
            outputs: for it, in the model's own form.
            place: what it is about.

        Raises:
            InputError: an output is NaN or infinite, or is no probability where it should be.
        """
        return tuple(r for name, head in self.heads.items() for r in head.read(item, outputs[name], place))


def _json(reading: Reading) -> dict[str, Any]:
    if reading.value is not None:
        return {"output": reading.output, "task": reading.task, "value": reading.value}
    scores = [{"class": score.name, "score": score.value, "found": score.found} for score in reading.scores]
    return {"output": reading.output, "task": reading.task, "scores": scores}


def _head_or_why(
    tensor: OutputTensor, recipe: OutputRecipe, channels_first: bool, spatial: int
) -> OutputHead | InputError:
    try:
        return _head(tensor, recipe, channels_first, spatial)
    except InputError as error:
        return error


def _head(tensor: OutputTensor, recipe: OutputRecipe, channels_first: bool, spatial: int) -> OutputHead:
    concepts = {
        name: Concept(value, scheme, meaning)
        for name, concept in zip(recipe.class_names, recipe.concepts, strict=True)
        if concept is not None
        for scheme, value, meaning in [concept]
    }
    if tensor.task == "segmentation":
        return _Masks(mask_head_of(tensor, channels_first=channels_first, spatial=spatial), concepts)
    if tensor.task in ("multilabel", "regression"):
        width = math.prod(size or 0 for size in tensor.shape[1:])
        if width == 0:
            raise InputError(f"The output {tensor.name} has a varying size.", "Give it a fixed one.")
        if tensor.task == "regression":
            return _Values(tensor.name, _named(tensor, width))
        threshold = _DEFAULT_THRESHOLD if tensor.threshold is None else tensor.threshold
        return _Labels(tensor.name, _named(tensor, width), threshold, tensor.activation == "none", concepts)
    return _Classes(head_of((tensor,)), concepts)


def _named(tensor: OutputTensor, width: int) -> tuple[str, ...]:
    if len(tensor.classes) == width:
        return tensor.classes
    if tensor.task == "regression":
        return (tensor.name,) if width == 1 else tuple(f"{tensor.name} {i}" for i in range(width))
    return tuple(f"class {i}" for i in range(width))


@dataclass(frozen=True)
class _Classes:
    """One of several classes."""

    head: Head
    concepts: Mapping[str, Concept]

    def read(self, item: Item, value: NDArray[Any], place: Place) -> list[Reading]:
        del item
        decided, _ = self.head.read(value)
        scores = _probable(self.head.scores(value), self.head.output)
        return [
            Reading(
                self.head.output,
                "binary" if self.head.binary else "multiclass",
                place.source,
                place.frame,
                _scores(self.head.names, scores, [i == decided for i in range(len(scores))], self.concepts),
                self.head.threshold if self.head.binary else None,
            )
        ]


@dataclass(frozen=True)
class _Labels:
    """Each class by itself."""

    output: str
    names: tuple[str, ...]
    threshold: float
    applies_sigmoid: bool
    concepts: Mapping[str, Concept]

    def read(self, item: Item, value: NDArray[Any], place: Place) -> list[Reading]:
        del item
        flat = finite(value, self.output).reshape(-1)
        scores = _probable(sigmoid(flat) if self.applies_sigmoid else flat, self.output)
        named = _scores(self.names, scores, list(scores >= self.threshold), self.concepts)
        return [Reading(self.output, "multilabel", place.source, place.frame, named, self.threshold)]


@dataclass(frozen=True)
class _Values:
    """Numbers; the recipe's classes name them."""

    output: str
    names: tuple[str, ...]

    def read(self, item: Item, value: NDArray[Any], place: Place) -> list[Reading]:
        del item
        flat = finite(value, self.output).reshape(-1)
        return [
            Reading(name, "regression", place.source, place.frame, value=float(number))
            for name, number in zip(self.names, flat, strict=True)
        ]


@dataclass(frozen=True)
class _Masks:
    """Pixels; the score of a class is the greatest probability of a pixel, and it is found where one is marked."""

    head: MaskHead
    concepts: Mapping[str, Concept]

    def read(self, item: Item, value: NDArray[Any], place: Place) -> list[Reading]:
        head = self.head
        maps = head.maps(item, value)
        labels = np.ascontiguousarray(np.moveaxis(head.decided(maps), -1, 0))
        judged = maps[..., -len(head.names) :].reshape(-1, len(head.names))
        scores = _probable(judged.max(axis=0), head.output)
        named = _scores(head.names, scores, [bool(mask.any()) for mask in labels], self.concepts)
        threshold = head.threshold if head.rule == "threshold" else None
        return [Reading(head.output, "segmentation", place.source, place.frame, named, threshold, labels=labels)]


def _scores(
    names: Sequence[str], values: NDArray[Any], found: Sequence[bool], concepts: Mapping[str, Concept]
) -> tuple[Score, ...]:
    return tuple(
        Score(name, float(value), bool(there), concepts.get(name))
        for name, value, there in zip(names, values, found, strict=True)
    )


def _probable(values: NDArray[Any], output: str) -> NDArray[Any]:
    """Probabilities, which rounding may have brought a little beyond their ends.

    Raises:
        InputError: they are none.
    """
    if values.size and not (values.min() >= -1e-3 and values.max() <= 1 + 1e-3):  # FP16 rounds 1 by 5e-4 at most
        worst = float(values.flat[int(np.abs(values - 0.5).argmax())])
        raise InputError(
            f"The output {output} answers {worst:.4g}, which is no probability.",
            'Say in the recipe how it ends: [output] activation = "none", "sigmoid" or "softmax".',
        )
    return np.asarray(np.clip(values, 0, 1))
