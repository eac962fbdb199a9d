"""Run a bundle on files, and read its answers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError, os_errors_as_resource
from edgemed.base.runner import RunnerInfo
from edgemed.base.spans import SpanLog
from edgemed.base.store import write_atomic
from edgemed.base.text import printable
from edgemed.bundle.manifest import OutputTensor
from edgemed.bundle.read import Bundle, enclosing_bundle
from edgemed.evaluate.bundled import RunPrecision, reader_of, runner_of
from edgemed.evaluate.head import Head, head_of

_SHOWN_VALUES = 8


@dataclass(frozen=True)
class Answer:
    """The outputs for one file, how they read, and what computed them."""

    file: Path
    outputs: dict[str, NDArray[Any]]
    info: RunnerInfo
    compute_ns: int
    reading: dict[str, Any]

    def line(self) -> str:
        """One line for people; names in it cannot steer a terminal."""
        texts = [f"{name}: {_short(value)}" for name, value in self.outputs.items()]
        if "class" in self.reading:
            texts = [f"{self.reading['class']} ({self.reading['score']:.4f})"]
        how = f"{self.info.precision} on {self.info.backend}/{self.info.device}, {self.compute_ns / 1e6:.1f} ms"
        return printable(f"{self.file}  {'; '.join(texts)}  [{how}]")

    def to_json(self) -> dict[str, Any]:
        """One document for programs; arrays of more than 1,000 values are given by shape only."""
        outputs = {
            name: {"shape": list(value.shape), "values": value.ravel().tolist() if value.size <= 1000 else None}
            for name, value in self.outputs.items()
        }
        return {
            "file": str(self.file),
            "outputs": outputs,
            **self.reading,
            "backend": self.info.backend,
            "precision": self.info.precision,
            "device": self.info.device,
            "bundle_digest": self.info.bundle_digest,
            "compute_ns": self.compute_ns,
        }


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
    reader = reader_of(bundle)
    head = _head(bundle.manifest.outputs)
    feeds = ((file, reader.read(file)) for file in files)
    targets = _targets(files, save)
    answers = []
    with runner_of(bundle, precision) as runner:
        for frame, (file, feed) in enumerate(feeds):
            log = SpanLog()
            outputs = runner.infer(feed, frame=frame, spans=log)
            answers.append(Answer(file, outputs, runner.info, log.spans[0].duration_ns, _reading(head, outputs)))
            if file in targets:
                _save(targets[file], outputs)
    return answers


def _head(outputs: tuple[OutputTensor, ...]) -> Head | None:
    try:
        return head_of(outputs)
    except InputError:  # a segmentation, a regression, several outputs: shown as numbers
        return None


def _reading(head: Head | None, outputs: dict[str, NDArray[Any]]) -> dict[str, Any]:
    if head is None:
        return {}
    decided, score = head.read(outputs[head.output])
    names = head.named if len(head.named) == head.classes else tuple(f"class {i}" for i in range(head.classes))
    return {"class": names[decided], "class_index": decided, "score": score}


def _targets(files: Sequence[Path], save: Path | None) -> dict[Path, Path]:
    if save is None:
        return {}
    if (bundle := enclosing_bundle(save)) is not None:
        raise InputError(f"{save} lies in the bundle {bundle.name}, which is never changed.", "Choose another --save.")
    targets = {file: save / f"{file.stem}.npz" for file in files}
    if len(set(targets.values())) < len(set(files)):
        raise InputError("Two inputs have the same file name.", "Save them in separate runs.")
    if {target.resolve() for target in targets.values()} & {file.resolve() for file in files}:
        raise InputError("Outputs would replace inputs.", "Choose another --save.")
    with os_errors_as_resource(save):
        save.mkdir(parents=True, exist_ok=True)
    return targets


def _save(path: Path, outputs: dict[str, NDArray[Any]]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **outputs)
    write_atomic(path, buffer.getvalue())


def _short(value: NDArray[Any]) -> str:
    if value.size <= _SHOWN_VALUES:
        return " ".join(f"{number:.4g}" for number in value.ravel())
    shape = "×".join(map(str, value.shape))
    return f"{shape}, {value.min():.4g} to {value.max():.4g}, mean {value.mean():.4g}"
