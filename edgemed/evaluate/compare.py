"""Run the precisions of a bundle side by side over labelled images, one image at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.progress import Progress, SilentProgress
from edgemed.base.runner import Runner
from edgemed.base.text import printable
from edgemed.bundle.model import precisions
from edgemed.bundle.read import Bundle
from edgemed.evaluate.bundled import reader_of, runner_of
from edgemed.evaluate.dataset import LabelledSet, open_labelled_set
from edgemed.evaluate.gate import Gate, check_gate, decide
from edgemed.evaluate.head import Head, head_of
from edgemed.evaluate.masks.compare import evaluate_masks
from edgemed.evaluate.masks.head import is_segmentation
from edgemed.evaluate.metrics import (
    BINARY_METRICS,
    MULTICLASS_METRICS,
    Answers,
    disagreement,
    metrics,
    paired_differences,
)
from edgemed.evaluate.record import (
    SCHEMA,
    ClassCount,
    Comparison,
    Data,
    Evaluation,
    GateResult,
    Measured,
    PrecisionResult,
    measured,
)
from edgemed.evaluate.seen import refuse_patients, seen_by
from edgemed.imaging.sources import Sample
from edgemed.recipe.schema import Recipe

FLOAT, FP16, INT8 = "fp32", "fp16", "int8"


def evaluate_bundle(
    bundle: Bundle, folder: Path, gates: Sequence[Gate] = (), progress: Progress | None = None
) -> Comparison:
    """Run the float and the INT8 graph of a bundle over labelled images, on ONNX Runtime.

    Args:
        bundle: a verified bundle.
        folder: one subfolder per class; of a segmentation model, images with masks (see `open_mask_set`). Disjoint from
            the calibration images.
        gates: what must hold; undecided and failed ones are returned, not raised.
        progress: where to report.

    Raises:
        InputError: the model neither classifies nor segments, or the data do not fit it; see `open_labelled_set`.
        UsageError: a gate names an unknown metric, or compares with float where there is no INT8.
    """
    if is_segmentation(bundle.manifest.outputs):
        return evaluate_masks(bundle, folder, gates, progress)
    head = head_of(bundle.manifest.outputs)
    has_int8 = INT8 in precisions(bundle)
    for gate in gates:
        check_gate(gate, BINARY_METRICS if head.binary else MULTICLASS_METRICS, has_int8=has_int8)
    reader = reader_of(bundle)
    seen = seen_by(bundle)
    dataset = open_labelled_set(folder, reader.recipe, classes=head.classes, named=head.named, seen=seen.hashes)
    by_patient = refuse_patients([file.sample for file in dataset.files], seen)
    several: list[Sample] = []

    def read(sample: Sample) -> dict[str, NDArray[Any]]:
        feeds, made = reader.middle(sample)
        if made > 1:
            several.append(sample)
        return feeds

    with ExitStack() as stack:
        runners: dict[str, Runner] = {name: stack.enter_context(runner_of(bundle, name)) for name in precisions(bundle)}
        answers = run_all(runners, dataset, read, head, progress or SilentProgress())
    found = {name: metrics(answer, dataset.truth) for name, answer in answers.items()}
    differences = paired_differences(answers[FLOAT], answers[INT8], dataset.truth) if has_int8 else {}
    deployed = next(name for name in (INT8, FP16, FLOAT) if name in found)
    decisions = tuple(decide(gate, (differences if gate.paired else found[deployed])[gate.metric]) for gate in gates)
    evaluation = Evaluation(
        schema_=SCHEMA,
        bundle=printable(bundle.path.name),
        bundle_digest=bundle.digest,
        output=head.output,
        threshold=head.threshold if head.binary else None,
        data=_data(dataset),
        results=tuple(PrecisionResult.of(runners[name].info, found[name]) for name in answers),
        differences=measured(differences),
        disagreement=_disagreement(answers),
        gates=tuple(GateResult.of(decision) for decision in decisions),
        warnings=_warnings(bundle, dataset, reader.recipe, len(several), by_patient=by_patient),
    )
    return Comparison(evaluation, decisions)


def run_all(
    runners: Mapping[str, Runner],
    dataset: LabelledSet,
    read: Callable[[Sample], dict[str, NDArray[Any]]],
    head: Head,
    progress: Progress,
) -> dict[str, Answers]:
    """Answers of every Runner to every sample; each sample is read once and forgotten.

    Raises:
        InputError: a sample cannot be read, or an answer is not finite; names the file.
    """
    decided: dict[str, list[int]] = {name: [] for name in runners}
    scores: dict[str, list[float]] = {name: [] for name in runners}
    with progress.stage("evaluate", len(dataset.files)) as stage:
        for file in dataset.files:
            feeds = read(file.sample)
            for name, runner in runners.items():
                try:
                    decision, score = head.read(runner.infer(feeds)[head.output])
                except InputError as error:
                    raise InputError(f"{file.sample.path} on {name}: {error.what}", error.hint) from error
                decided[name].append(decision)
                scores[name].append(score)
            stage.advance()
        stage.note(f"{len(dataset.files)} images")
    return {
        name: Answers(np.array(decided[name], dtype=np.intp), np.array(scores[name]) if head.binary else None)
        for name in runners
    }


def _data(dataset: LabelledSet) -> Data:
    counts = Counter(file.label for file in dataset.files)
    return Data(
        folder=printable(dataset.folder.name or str(dataset.folder)),
        digest=dataset.digest,
        samples=len(dataset.files),
        classes=tuple(ClassCount(name=printable(name), samples=counts[i]) for i, name in enumerate(dataset.classes)),
        class_order=dataset.named_by,
        duplicates=dataset.duplicates,
    )


def _disagreement(answers: Mapping[str, Answers]) -> Measured | None:
    if INT8 not in answers:
        return None
    return Measured.of(disagreement(answers[FLOAT].decided, answers[INT8].decided))


def _warnings(
    bundle: Bundle, dataset: LabelledSet, recipe: Recipe, several: int, *, by_patient: bool
) -> tuple[str, ...]:
    found = []
    if recipe.assumed:
        found.append(
            f"The recipe was assumed ({recipe.description or recipe.name}); check that training used the same."
        )
    if dataset.duplicates:
        found.append(f"{dataset.duplicates} images are byte-wise copies of others: the intervals are too narrow.")
    if several:
        files = "1 file makes" if several == 1 else f"{several} files make"
        found.append(f"{files} several inputs (frames, clips, tiles): only the middle one of each was judged.")
    if bundle.manifest.calibration is not None:
        found.append(
            "Disjoint from the calibration images by hash and by patient (pseudonyms of de-identified files)."
            if by_patient
            else "Disjoint from the calibration images by hash; whether patients are shared cannot be seen in them."
        )
    return tuple(found)
