"""What a model found, as plain data: every writer of results starts from this."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Task = Literal["binary", "multiclass", "multilabel", "segmentation", "regression"]


@dataclass(frozen=True)
class Concept:
    """A coded concept (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Author:
    """Who says it: stands in every result.

    Attributes:
        model: name of the model at this bedside.
        version: its bundle's name and when it was built.
        digest: of the bundle, SHA-256.
        precision: it ran in.
        backend: `tensorrt`, `onnxruntime`.
        device: as the Runner names it.
        station: name of the daemon.
        software: `edgemed` and its version.
        intended_use: the bundle's own words.
        research_only: results say so.
    """

    model: str
    version: str
    digest: str
    precision: str
    backend: str
    device: str
    station: str
    software: str
    intended_use: str = ""
    research_only: bool = True


@dataclass(frozen=True)
class Score:
    """Of one class.

    Attributes:
        name: of the class.
        concept: its code, where the recipe gives one.
        value: probability, 0 to 1.
        found: the model's decision, by threshold or as the greatest.
    """

    name: str
    value: float
    found: bool
    concept: Concept | None = None


@dataclass(frozen=True, eq=False)
class Reading:
    """What one output says of one image, one frame, or one volume.

    Attributes:
        output: its name.
        task: how it is read.
        source: index into `Content.sources` of the file that it is about; `None`: all of them (a volume).
        frame: of that file, from 0; `None`: the whole of it.
        scores: of each class (not of a regression).
        threshold: of the decision, where there is one.
        value: of a regression.
        unit: UCUM code of `value`, e.g. `mm`; '1' where it has none.
        labels: of a segmentation, on the pixels of the source: `(classes, rows, columns)`, with slices before the
            rows for a volume, in the order of `Content.sources` after sorting (see `Content.planes`); bool.
        heat: where the model looked: `(rows, columns)`, 0 to 1.
    """

    output: str
    task: Task
    source: int | None = None
    frame: int | None = None
    scores: tuple[Score, ...] = ()
    threshold: float | None = None
    value: float | None = None
    unit: str = "1"
    labels: NDArray[np.bool_] | None = None
    heat: NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class Content:
    """An answer, or the reason why there is none.

    Attributes:
        author: who says it.
        sources: the files that it is about.
        analysed: when, UTC.
        readings: empty where nothing was analysed.
        refusal: why it was not analysed, as a sentence; `None` where it was.
        notes: what a reader must know: late, out of distribution, fallback, incomplete series, resized.
        ood: out-of-distribution score, where the bundle can tell.
        planes: of a volume: for each slice of `labels`, the source and its frame.
        revision: of the result; the second and later ones replace the one before.
        replaces: SOP Instance UIDs of the reports of earlier revisions, the oldest first: they were about other files,
            so nothing here tells.
    """

    author: Author
    sources: tuple[Path, ...]
    analysed: datetime
    readings: tuple[Reading, ...] = ()
    refusal: str | None = None
    notes: tuple[str, ...] = ()
    ood: float | None = None
    planes: tuple[tuple[int, int], ...] = ()
    revision: int = 1
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class ResultFile:
    """One object, ready to be sent: valid when it exists.

    Attributes:
        kind: `sr`, `seg`, `sc`, `gsps`, `json`.
        name: of the file.
        data: all its bytes (Part 10, or JSON).
        sop_class: UID; '' where it is no DICOM.
        sop_instance: UID; made of the UIDs of the inputs, the bundle's digest and the kind, so that what is made
            again is the same thing.
    """

    kind: str
    name: str
    data: bytes = field(repr=False)
    sop_class: str = ""
    sop_instance: str = ""
