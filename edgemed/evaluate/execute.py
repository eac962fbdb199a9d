"""Run a bundle on files, and read its answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgemed.base.arrays import write_npz
from edgemed.base.errors import InputError, os_errors_as_resource
from edgemed.base.runner import Runner, RunnerInfo
from edgemed.base.spans import SpanLog
from edgemed.base.store import write_atomic
from edgemed.base.text import printable
from edgemed.bundle.manifest import OutputTensor
from edgemed.bundle.model import RunPrecision
from edgemed.bundle.outputs import require_no_input, require_outside_bundles
from edgemed.bundle.read import Bundle
from edgemed.evaluate.bundled import reader_of, runner_of
from edgemed.evaluate.head import Head, head_of
from edgemed.evaluate.readings import Readings
from edgemed.imaging.samples import Item
from edgemed.recipe.apply import Prepared

_SHOWN_VALUES = 8


@dataclass(frozen=True)
class Answer:
    """The outputs for one file, or one of its frames or clips; how they read, and what computed them.

    Attributes:
        file: or the address of a stream.
        index: of the frame or clip in its file; `None` where the file makes one answer.
        age_ns: of a stream: from the capture to the answer.
    """

    file: Path | str
    outputs: dict[str, NDArray[Any]]
    info: RunnerInfo
    compute_ns: int
    reading: dict[str, Any]
    index: int | None = None
    age_ns: int | None = None

    def line(self) -> str:
        """One line for people; names in it cannot steer a terminal."""
        texts = [f"{name}: {_short(value)}" for name, value in self.outputs.items()]
        if "class" in self.reading:
            texts = [f"{self.reading['class']} ({self.reading['score']:.4f})"]
        for said in self.reading.get("readings", ()):
            texts = [text for text in texts if not text.startswith(f"{said['output']}: ")]
            texts.append(_said(said))
        how = f"{self.info.precision} on {self.info.backend}/{self.info.device}, {self.compute_ns / 1e6:.1f} ms"
        how += "" if self.age_ns is None else f", {self.age_ns / 1e6:.1f} ms old"
        place = "" if self.index is None else f" #{self.index}"
        return printable(f"{self.file}{place}  {'; '.join(texts)}  [{how}]")

    def to_json(self) -> dict[str, Any]:
        """One document for programs; arrays of more than 1,000 values are given by shape only."""
        outputs = {
            name: {"shape": list(value.shape), "values": value.ravel().tolist() if value.size <= 1000 else None}
            for name, value in self.outputs.items()
        }
        return {
            "file": str(self.file),
            **({} if self.index is None else {"index": self.index}),
            "outputs": outputs,
            **self.reading,
            "backend": self.info.backend,
            "precision": self.info.precision,
            "device": self.info.device,
            "bundle_digest": self.info.bundle_digest,
            "compute_ns": self.compute_ns,
            **({} if self.age_ns is None else {"age_ns": self.age_ns}),
        }


@dataclass(frozen=True)
class OutputReader:
    """How the outputs of a bundle read.

    Attributes:
        tensors: as the manifest has them.
        head: of a classifier with one output; `None` of all else.
        readings: of all else, where its outputs say what they mean.
    """

    tensors: tuple[OutputTensor, ...]
    head: Head | None
    readings: Readings | None = None

    @classmethod
    def of(cls, bundle: Bundle) -> OutputReader:
        """Of a bundle."""
        outputs = bundle.manifest.outputs
        with suppress(InputError):
            return cls(outputs, head_of(outputs))
        with suppress(InputError):
            return cls(outputs, None, Readings.of(bundle))
        return cls(outputs, None)

    def on_source(self, outputs: Mapping[str, NDArray[Any]], prepared: Prepared | None) -> dict[str, NDArray[Any]]:
        """The outputs in the manifest's order; maps are brought back onto the source where the recipe asks for it."""
        return {tensor.name: _on_source(outputs[tensor.name], tensor, prepared) for tensor in self.tensors}

    def reading(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """The decided class and its score; of several outputs, labels and numbers: `readings`, one for each.

        Raises:
            InputError: the model answered NaN or infinity.
        """
        if self.head is None:
            said = [] if self.readings is None else self.readings.said(outputs)
            return {"readings": said} if said else {}
        decided, score = self.head.read(outputs[self.head.output])
        return {"class": self.head.names[decided], "class_index": decided, "score": score}


def run_bundle(
    bundle: Bundle, files: Sequence[Path], *, precision: RunPrecision | None = None, save: Path | None = None
) -> list[Answer]:
    """Run a verified bundle on files, on ONNX Runtime.

    Args:
        bundle: from `open_bundle`.
        files: images or arrays, read by the bundle's recipe.
        precision: graph to run; `None` takes the bundle's own.
        save: directory for one NPZ of outputs per file.

    Raises:
        InputError: a file cannot be read or does not fit; two files would be saved under one name, one over itself,
            or into a bundle.
        ResourceError: outputs cannot be written.
    """
    return list(iter_answers(bundle, files, precision=precision, save=save))


def iter_answers(
    bundle: Bundle,
    files: Sequence[Path],
    *,
    precision: RunPrecision | None = None,
    save: Path | None = None,
    runner: Runner | None = None,
) -> Iterator[Answer]:
    """As `run_bundle`, with the outputs of one file in memory at a time.

    Args:
        runner: not entered yet; what runs the bundle instead of ONNX Runtime, in its own precision.
    """
    reader = reader_of(bundle)
    read = OutputReader.of(bundle)
    targets = _targets(files, save)
    with runner if runner is not None else runner_of(bundle, precision) as entered:
        for file in files:
            made = [_answer(entered, item, file, read) for item in reader.items(file)]
            if file in targets:
                _save(targets[file], [answer.outputs for answer in made])
            yield from made if len(made) == 1 else (replace(answer, index=i) for i, answer in enumerate(made))
            del made


def _answer(runner: Runner, item: Item, file: Path, read: OutputReader) -> Answer:
    log = SpanLog()
    try:
        raw = item.answer(runner.infer(feeds, frame=i, spans=log) for i, feeds in enumerate(item.feeds))
    except InputError as error:
        raise InputError(f"{file}: {error.what}", error.hint) from error
    outputs = read.on_source(raw, item.prepared)
    return Answer(file, outputs, runner.info, sum(span.duration_ns for span in log.spans), read.reading(outputs))


def _on_source(value: NDArray[Any], tensor: OutputTensor, prepared: Prepared | None) -> NDArray[Any]:
    """A map brought back onto the pixels of the file, where the recipe asks for it: with its batch of 1, classes last.

    Probabilities are interpolated, whole numbers (labels) take the nearest.
    """
    if tensor.geometry != "source" or prepared is None:
        return value
    how: Literal["linear", "nearest"] = "linear" if value.dtype.kind == "f" else "nearest"
    return prepared.to_source(value, how=how)[None]


def _targets(files: Sequence[Path], save: Path | None) -> dict[Path, Path]:
    if save is None:
        return {}
    require_outside_bundles(save, "--save")
    # the dots in the name of a folder, often a UID, start no suffix
    targets = {file: save / f"{file.name if file.is_dir() else file.stem}.npz" for file in files}
    if len(set(targets.values())) < len(set(files)):
        raise InputError("Two inputs have the same file name.", "Save them in separate runs.")
    require_no_input(targets.values(), files, "--save")
    with os_errors_as_resource(save):
        save.mkdir(parents=True, exist_ok=True)
    return targets


def _save(path: Path, answers: Sequence[dict[str, NDArray[Any]]]) -> None:
    """Outputs by name; of a file that makes several answers, along a new first axis."""
    outputs = answers[0] if len(answers) == 1 else {n: np.stack([a[n] for a in answers]) for n in answers[0]}
    write_atomic(path, write_npz(outputs, compressed=True))


def _said(reading: Mapping[str, Any]) -> str:
    if "value" in reading:
        return f"{reading['output']}: {reading['value']:.4g}"
    found = [f"{score['class']} ({score['score']:.4f})" for score in reading["scores"] if score["found"]]
    return f"{reading['output']}: {', '.join(found) or 'nothing found'}"


def _short(value: NDArray[Any]) -> str:
    if value.size <= _SHOWN_VALUES:
        return " ".join(f"{number:.4g}" for number in value.ravel())
    shape = "×".join(map(str, value.shape))
    return f"{shape}, {value.min():.4g} to {value.max():.4g}, mean {value.mean():.4g}"
