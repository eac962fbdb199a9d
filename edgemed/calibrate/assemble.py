"""A calibration set is made: images chosen, checked, de-identified and stored, all or nothing."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgemed.base.errors import InputError, from_os_error, os_errors_as_resource
from edgemed.base.hashing import sha256_bytes
from edgemed.base.progress import Progress, SilentProgress, Stage
from edgemed.base.store import check_target, staged_directory
from edgemed.calibrate.choose import Candidate, candidate, find_samples, in_order, labelled_samples, reason_of
from edgemed.calibrate.dataset import MAX_IMAGES, RECIPE_FILE
from edgemed.calibrate.image_set import (
    MANIFEST_FILE,
    REPORT_FILE,
    SCHEMA,
    ImageEntry,
    ImageSet,
    SetReport,
    is_image_set,
    merged,
)
from edgemed.calibrate.keep import ContractError, keep
from edgemed.imaging.deid.deidentify import PROFILE
from edgemed.imaging.deid.identity import Identities
from edgemed.imaging.deid.options import KEY_BYTES, Options
from edgemed.imaging.deid.regions import BurnedInError
from edgemed.imaging.deid.report import DeidReport
from edgemed.imaging.labels.table import read_label_table
from edgemed.recipe.schema import Recipe, load_recipe

_KEY_HINT = f"Give a file of {KEY_BYTES} random bytes in hexadecimal, or the name of a new one."


@dataclass(frozen=True)
class Order:
    """What `edgemed calibrate` was asked for.

    Attributes:
        sources: files and folders.
        output: the folder to be.
        recipe: a TOML file, whose contract is checked and which is copied beside the images.
        labels: a table that names the images and their classes; then `sources` are not looked at.
        count: how many images to store at most.
        seed: of the choice.
        key: file of the key of pseudonyms; made where it does not exist; `None` for a key that is thrown away.
        options: of the de-identification; its key is replaced.
        force: replace an existing set.
    """

    sources: tuple[Path, ...]
    output: Path
    recipe: Path | None = None
    labels: Path | None = None
    count: int = MAX_IMAGES
    seed: int = 0
    key: Path | None = None
    options: Options = field(default_factory=Options)
    force: bool = False


@dataclass(frozen=True)
class Refusal:
    """Images that were left out for one reason."""

    kind: str
    reason: str
    count: int


@dataclass(frozen=True)
class Assembled:
    """A set that was made."""

    path: Path
    manifest: ImageSet
    report: SetReport
    refusals: tuple[Refusal, ...]


@dataclass
class _Tally:
    """What became of the candidates."""

    offered: int = 0
    entries: list[ImageEntry] = field(default_factory=list)
    hashes: set[str] = field(default_factory=set)
    reports: list[tuple[str, DeidReport]] = field(default_factory=list)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)

    def refuse(self, kind: str, reason: str) -> None:
        self.refused[kind, reason] += 1

    @property
    def kinds(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for (kind, _), count in self.refused.items():
            counts[kind] += count
        return dict(sorted(counts.items()))


def assemble(order: Order, progress: Progress | None = None) -> Assembled:
    """Make a calibration set.

    Raises:
        InputError: the target exists, there are no images, or every one was left out.
        ResourceError: disk, permission, and the like; nothing is left behind.
    """
    progress = progress or SilentProgress()
    _check_output(order)
    recipe = None if order.recipe is None else load_recipe(order.recipe)
    recipe_bytes = None if order.recipe is None else order.recipe.read_bytes()
    key = _key(order.key, order.output)
    options = replace(order.options, key=key)
    tally = _Tally()
    with progress.stage("find") as stage:
        candidates = list(_candidates(order, recipe, tally, stage))
        stage.note(f"{len(candidates)} images of {len({one.group for one in candidates})} patients or folders")
    with staged_directory(order.output, replaceable=is_image_set if order.force else None) as folder:
        with progress.stage("store", min(order.count, len(candidates))) as stage, os_errors_as_resource(order.output):
            for one in in_order(candidates, order.seed):
                if len(tally.entries) >= order.count:
                    break
                _take(one, folder, recipe, options, tally, stage)
            stage.note(f"{len(tally.entries)} images")
        manifest = _manifest(order, tally, recipe_bytes)
        report = merged(tally.reports, PROFILE)
        _write_documents(folder, manifest, report, recipe_bytes)
    return Assembled(order.output, manifest, report, _refusals(tally))


def _check_output(order: Order) -> None:
    target = order.output
    if order.force and target.is_dir() and any(target.iterdir()) and not is_image_set(target):
        raise InputError(
            f"{target} was not made by edgemed calibrate; --force replaces such folders only.",
            "Choose another --output.",
        )
    check_target(target, is_image_set if order.force else None)
    for source in order.sources:
        if source.resolve().is_relative_to(target.resolve()):
            raise InputError(f"{source} lies in {target}, which would be replaced.", "Choose another --output.")


def _key(path: Path | None, output: Path) -> bytes:
    """The key of a file, made where it does not exist, readable by its owner only."""
    if path is None:
        return secrets.token_bytes(KEY_BYTES)
    if path.resolve().is_relative_to(output.resolve()):
        raise InputError(f"{path} would lie in the set, and open its pseudonyms.", "Keep the key somewhere else.")
    try:
        if not path.exists():
            made = secrets.token_bytes(KEY_BYTES)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(made.hex() + "\n")
            return made
        if not path.is_file() or path.stat().st_size > 4096:
            raise InputError(f"{path} is not a key.", _KEY_HINT)
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise from_os_error(error, path) from error
    except ValueError as error:
        raise InputError(f"{path} is not hexadecimal.", _KEY_HINT) from error
    if len(key) < KEY_BYTES:
        raise InputError(f"{path} holds {len(key)} bytes, too short a key.", _KEY_HINT)
    return key


def _candidates(order: Order, recipe: Recipe | None, tally: _Tally, stage: Stage) -> Iterator[Candidate]:
    if order.labels is not None:
        found = labelled_samples(read_label_table(order.labels))
    else:
        found = [(sample, (), None) for sample in find_samples(order.sources, recipe)]
    tally.offered = len(found)
    stage.total(len(found))
    for sample, labels, patient in found:
        try:
            yield candidate(sample, labels, patient)
        except InputError as error:
            tally.refuse("unreadable", reason_of(error, sample))
        stage.advance()


def _take(one: Candidate, folder: Path, recipe: Recipe | None, options: Options, tally: _Tally, stage: Stage) -> None:
    try:
        kept = keep(one.sample, folder, recipe, options)
    except InputError as error:
        tally.refuse(_kind(error), reason_of(error, one.sample))
        return
    if kept.sha256 in tally.hashes:
        tally.refuse("copy", "its bytes are those of another image.")
        return
    patient = None if one.patient is None else Identities(options.key).patient(one.patient)
    tally.hashes.add(kept.sha256)
    tally.entries.append(ImageEntry(file=kept.file, sha256=kept.sha256, patient=patient, labels=one.labels))
    tally.reports += kept.reports
    stage.advance()


def _kind(error: InputError) -> str:
    kinds = {BurnedInError: "burned-in text", ContractError: "contract"}
    return next((kind for known, kind in kinds.items() if isinstance(error, known)), "unreadable")


def _manifest(order: Order, tally: _Tally, recipe: bytes | None) -> ImageSet:
    if not tally.entries:
        (kind, reason), count = tally.refused.most_common(1)[0]
        raise InputError(
            f"None of the images can be used; {count} times: {kind}: {reason}", "Correct the images, or the recipe."
        )
    return ImageSet(
        schema=SCHEMA,
        images=tuple(sorted(tally.entries, key=lambda entry: entry.file)),
        seed=order.seed,
        offered=tally.offered,
        refused=tally.kinds,
        recipe_sha256=None if recipe is None else sha256_bytes(recipe),
        key="random" if order.key is None else "given",
    )


def _write_documents(folder: Path, manifest: ImageSet, report: SetReport, recipe: bytes | None) -> None:
    for name, model in ((MANIFEST_FILE, manifest), (REPORT_FILE, report)):
        (folder / name).write_text(model.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")
    if recipe is not None:
        (folder / RECIPE_FILE).write_bytes(recipe)


def _refusals(tally: _Tally) -> tuple[Refusal, ...]:
    return tuple(Refusal(kind, reason, count) for (kind, reason), count in tally.refused.most_common())
