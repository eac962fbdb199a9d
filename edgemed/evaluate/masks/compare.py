"""Run the precisions of a segmentation bundle side by side over images with masks, one image at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError, UsageError
from edgemed.base.progress import Progress, SilentProgress
from edgemed.base.runner import Runner
from edgemed.base.text import printable
from edgemed.bundle.model import precisions
from edgemed.bundle.read import Bundle
from edgemed.evaluate.bundled import reader_of, runner_of
from edgemed.evaluate.estimate import Estimate
from edgemed.evaluate.gate import Decision, Gate, check_gate, decide
from edgemed.evaluate.masks.dataset import Drawn, MaskSet, open_mask_set
from edgemed.evaluate.masks.head import MaskHead, mask_head_of
from edgemed.evaluate.masks.metrics import (
    Overlap,
    agreement,
    estimate,
    metrics,
    names_of,
    over_classes,
    paired_differences,
)
from edgemed.evaluate.record import (
    SCHEMA,
    ClassCount,
    Comparison,
    Data,
    Evaluation,
    GateResult,
    Masks,
    Measured,
    PrecisionResult,
    measured,
)
from edgemed.evaluate.seen import refuse_patients, seen_by
from edgemed.imaging.samples import Item, SampleReader

Bools = NDArray[np.bool_]

FLOAT, FP16, INT8 = "fp32", "fp16", "int8"
_FEW = 20  # below it a failure of one image in seven goes unseen more often than one time in twenty: 0.86^20 = 0.05


@dataclass(frozen=True)
class Counted:
    """Pixels counted over all images; masks themselves are forgotten.

    Attributes:
        units: what each image belongs to, see `Drawn.unit`.
        overlaps: by precision: the drawn masks with its own.
        between: float's masks with INT8's; empty without an INT8 graph.
        differing: share of each image's pixels on which float and INT8 decide differently.
    """

    units: list[str] = field(default_factory=list)
    overlaps: dict[str, list[Overlap]] = field(default_factory=dict)
    between: list[Overlap] = field(default_factory=list)
    differing: list[float] = field(default_factory=list)

    def add(self, unit: str, drawn: Bools, masks: Mapping[str, Bools]) -> None:
        """One image: `(..., classes)` each."""
        self.units.append(unit)
        for name, mask in masks.items():
            self.overlaps.setdefault(name, []).append(Overlap.of(drawn, mask))
        if INT8 in masks:
            self.between.append(Overlap.of(masks[FLOAT], masks[INT8]))
            self.differing.append(float((masks[FLOAT] != masks[INT8]).any(axis=-1).mean()))


def evaluate_masks(
    bundle: Bundle, folder: Path, gates: Sequence[Gate] = (), progress: Progress | None = None
) -> Comparison:
    """Run the float and the INT8 graph of a segmentation bundle over images with masks, on ONNX Runtime.

    Everything is judged on the pixels of the source image.

    Args:
        bundle: a verified bundle.
        folder: see `open_mask_set`.
        gates: what must hold; undecided and failed ones are returned, not raised.
        progress: where to report.

    Raises:
        InputError: the model gives no masks, or the data do not fit it.
        UsageError: a gate names an unknown metric, one that no image can tell, or compares with float where there is no
            INT8.
    """
    reader = reader_of(bundle)
    if len(reader.inputs) != 1:
        raise InputError(f"The model takes {len(reader.inputs)} inputs.", "Evaluate segmentation models with one.")
    head = _head(bundle, reader)
    has_int8 = INT8 in precisions(bundle)
    for gate in gates:
        check_gate(gate, names_of(head.names), has_int8=has_int8)
    seen = seen_by(bundle)
    dataset = open_mask_set(folder, reader.recipe, head, reader.kind, seen.hashes)
    by_patient = refuse_patients([image.truth.sample for image in dataset.images], seen)
    with ExitStack() as stack:
        runners: dict[str, Runner] = {name: stack.enter_context(runner_of(bundle, name)) for name in precisions(bundle)}
        counted = _run_all(runners, dataset, reader, head, progress or SilentProgress())
    overlaps = {name: Overlap.stacked(rows) for name, rows in counted.overlaps.items()}
    if not overlaps[FLOAT].first.any():
        raise InputError(f"No mask in {folder} marks anything.", "Give images on which the classes were drawn.")
    found = {name: metrics(overlap, head.names, counted.units) for name, overlap in overlaps.items()}
    differences = paired_differences(overlaps[FLOAT], overlaps[INT8], head.names, counted.units) if has_int8 else {}
    deployed = next(name for name in (INT8, FP16, FLOAT) if name in found)
    decisions = tuple(_decide(gate, differences if gate.paired else found[deployed]) for gate in gates)
    evaluation = Evaluation(
        schema_=SCHEMA,
        bundle=printable(bundle.path.name),
        bundle_digest=bundle.digest,
        output=head.output,
        threshold=head.threshold if head.rule == "threshold" else None,
        data=_data(dataset, head, overlaps[FLOAT]),
        results=tuple(PrecisionResult.of(runners[name].info, found[name]) for name in found),
        differences=measured(differences),
        disagreement=_of(np.array(counted.differing), counted.units),
        gates=tuple(GateResult.of(decision) for decision in decisions),
        warnings=_warnings(bundle, reader, dataset, head, overlaps[FLOAT], by_patient=by_patient),
        masks=_masks(dataset, head, counted, overlaps[FLOAT]),
    )
    return Comparison(evaluation, decisions)


def _head(bundle: Bundle, reader: SampleReader) -> MaskHead:
    spec = reader.inputs[0]
    first = reader.layouts[spec.name] in ("NCHW", "NCDHW")
    return mask_head_of(bundle.manifest.outputs[0], channels_first=first, spatial=len(spec.shape) - 2)


def _run_all(
    runners: Mapping[str, Runner], dataset: MaskSet, reader: SampleReader, head: MaskHead, progress: Progress
) -> Counted:
    """Every precision's masks of every image, counted; each image is read once and forgotten."""
    counted = Counted()
    with progress.stage("evaluate", len(dataset.images)) as stage:
        for image in dataset.images:
            _count(counted, image, runners, reader, head)
            stage.advance()
        stage.note(f"{len(counted.units)} images")
    return counted


def _count(counted: Counted, image: Drawn, runners: Mapping[str, Runner], reader: SampleReader, head: MaskHead) -> None:
    file, path = image.truth.open(), image.truth.sample.path
    for index, item in enumerate(reader.items(path, file)):
        masks = {name: _mask(runner, item, head, f"{path} on {name}") for name, runner in runners.items()}
        shape = next(iter(masks.values())).shape[:-1]
        counted.add(image.unit, image.truth.drawn(file, index, shape), masks)


def _mask(runner: Runner, item: Item, head: MaskHead, where: str) -> Bools:
    try:
        answer = item.answer(runner.infer(feeds) for feeds in item.feeds)
        return head.masks(item, answer[head.output])
    except InputError as error:
        raise InputError(f"{where}: {error.what}", error.hint) from error


def _decide(gate: Gate, estimates: Mapping[str, Estimate]) -> Decision:
    if gate.metric not in estimates:
        raise UsageError(
            f"The gate '{gate.text}' cannot be judged on these images.", f"They tell: {', '.join(estimates)}."
        )
    return decide(gate, estimates[gate.metric])


def _data(dataset: MaskSet, head: MaskHead, overlap: Overlap) -> Data:
    drawn = (overlap.first > 0).sum(axis=0)
    counts = zip(head.names, drawn.tolist(), strict=True)
    return Data(
        folder=printable(dataset.folder.name or str(dataset.folder)),
        digest=dataset.digest,
        samples=len(overlap.first),
        classes=tuple(ClassCount(name=printable(name), samples=count) for name, count in counts if count),
        class_order=dataset.named_by,
        duplicates=dataset.duplicates,
    )


def _masks(dataset: MaskSet, head: MaskHead, counted: Counted, overlap: Overlap) -> Masks:
    missing = (overlap.first == 0).sum(axis=0).tolist()
    alike = over_classes(agreement(Overlap.stacked(counted.between))) if counted.between else np.empty(0)
    return Masks(
        rule=head.rule,
        units=len(set(counted.units)),
        left_out=dataset.left_out,
        not_drawn={printable(name): count for name, count in zip(head.names, missing, strict=True)},
        agreement=_of(alike, counted.units),
    )


def _of(values: NDArray[np.float64], units: Sequence[str]) -> Measured | None:
    """The record of a mean over images; none without values."""
    known = estimate(values, units) if len(values) else None
    return None if known is None else Measured.of(known)


def _warnings(
    bundle: Bundle, reader: SampleReader, dataset: MaskSet, head: MaskHead, overlap: Overlap, *, by_patient: bool
) -> tuple[str, ...]:
    recipe, images = reader.recipe, len(overlap.first)
    found = []
    if recipe.assumed:
        found.append(
            f"The recipe was assumed ({recipe.description or recipe.name}); check that training used the same."
        )
    if dataset.duplicates:
        found.append(f"{dataset.duplicates} images are byte-wise copies of others; copies count as one in intervals.")
    if dataset.left_out:
        found.append(f"Left out, for no segmentation refers to them: {dataset.left_out} images or series.")
    marked = overlap.first.sum(axis=0).tolist()
    never = [name for name, pixels in zip(head.names, marked, strict=True) if not pixels]
    if never:
        found.append(f"No image shows {printable(', '.join(never))}: of it only false alarms are judged.")
    given, made = _sides(reader, head, bundle)
    if given != made:
        found.append(
            f"Maps are {'x'.join(map(str, made))} for inputs of {'x'.join(map(str, given))}; they are taken to "
            "cover the whole input."
        )
    found += _independence(dataset, images)
    if bundle.manifest.calibration is not None:
        found.append(
            "Disjoint from the calibration images by hash and by patient (pseudonyms of de-identified files)."
            if by_patient
            else "Disjoint from the calibration images by hash; whether patients are shared cannot be seen in them."
        )
    return tuple(found)


def _sides(reader: SampleReader, head: MaskHead, bundle: Bundle) -> tuple[tuple[int | None, ...], ...]:
    """Sides of the model's input and of its maps."""
    first = 2 if head.channels_first else 1
    given, made = reader.inputs[0].shape, bundle.manifest.outputs[0].shape
    start = first if len(made) == len(given) else 1  # maps of one class may have no axis of channels
    return given[first:][: head.spatial], made[start:][: head.spatial]


def _independence(dataset: MaskSet, images: int) -> list[str]:
    """What intervals take as independent, and whether there is enough of it."""
    units = len({image.unit for image in dataset.images})
    unnamed = sum(image.patient is None for image in dataset.images)
    found = []
    if unnamed:
        found.append(
            f"{unnamed} files name no patient: intervals take them as independent, which slices of one patient are not."
        )
    if units < images:
        found.append(f"{images} images of {units} independent units (patients, files): intervals count units.")
    if units < _FEW:
        found.append(f"{units} independent units: failures of one in seven may go unseen, whatever the intervals say.")
    return found
