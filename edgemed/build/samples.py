"""Which samples calibrate, which ones judge, and by which recipe they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.build.fold import Folding, plan
from edgemed.build.options import CALIBRATION_FOLDER, BuildOptions
from edgemed.calibrate.dataset import (
    ENOUGH_IMAGES,
    RECIPE_FILE,
    CalibrationManifest,
    CalibrationSet,
    open_calibration_set,
)
from edgemed.imaging.samples import Feeds, SampleReader
from edgemed.imaging.sources import Sample, list_samples
from edgemed.recipe.schema import Layout, Recipe, assumed_recipe, load_recipe
from edgemed.runners.golden import MINIMUM

MAX_JUDGED = 32
_ENOUGH_TO_SPLIT = 32
_MAX_JUDGED_BYTES = 512 << 20

T = TypeVar("T")

LAYOUTS: dict[int, str] = {2: "NC", 3: "NWC", 4: "NHWC", 5: "NDHWC"}
"""Keras puts channels last; the layout of a tensor by its rank, batch included."""


@dataclass(frozen=True)
class Samples:
    """Everything the later stages need to know about data.

    Attributes:
        reader: turns a sample into feeds.
        recipe_text: TOML as it goes into the bundle.
        calibration: the set and the role of each sample, or `None` for a build without images.
        calibrating: samples that ranges are taken from.
        judging: samples that fidelity is measured on; none for a build without images.
        judged: their feeds; golden vectors are made of them.
        trained: what Keras is given for them: the same, unless the recipe was folded into the graph.
        held_out: whether the judged samples were kept out of calibration.
        warnings: what the user should know about the data.
    """

    reader: SampleReader
    recipe: Recipe
    recipe_text: str
    calibration: CalibrationManifest | None
    calibrating: tuple[Sample, ...]
    judging: tuple[Sample, ...]
    judged: tuple[Feeds, ...]
    trained: tuple[Feeds, ...]
    held_out: bool
    warnings: tuple[str, ...]
    folding: Folding | None = None

    def folded(self, layout: Layout) -> Samples:
        """With the recipe's tail in the graph: feeds are of what the folded graph takes.

        Raises:
            InputError: it cannot be folded, see `fold.plan`; or there are no images.
        """
        if len(self.reader.inputs) != 1 or not self.judging:
            what = "there are no images" if not self.judging else "the model takes several inputs"
            raise InputError(f"Nothing can be folded: {what}.", "Leave --fold-preprocessing out.")
        spec = self.reader.inputs[0]
        folding = plan(self.recipe, spec, layout, [self.reader.image(sample) for sample in self.judging])
        reader = SampleReader([folding.spec], folding.rest, {spec.name: "NHWC"})
        judged = tuple(reader.read(sample) for sample in self.judging)
        text = recipe_toml(folding.rest)
        return replace(self, reader=reader, recipe=folding.rest, recipe_text=text, judged=judged, folding=folding)


def find_calibration(options: BuildOptions) -> CalibrationSet | None:
    """The calibration set: `--calibration`, else `./calibration` where it holds images, else none.

    Raises:
        InputError: none for an INT8 build, or fewer than the golden vectors need.
    """
    folder = options.calibration
    recipe = _given_recipe(options, folder or CALIBRATION_FOLDER)
    if folder is None and CALIBRATION_FOLDER.is_dir() and list_samples(CALIBRATION_FOLDER, recipe):
        folder = CALIBRATION_FOLDER
    if folder is None:
        if options.precision == "int8":
            raise InputError(
                "INT8 needs calibration images, and ./calibration holds none.",
                "Put at least 100 typical images there, name a folder with --calibration, or use --fp16 or --fp32.",
            )
        return None
    found = open_calibration_set(folder, recipe, max_images=options.max_images)
    if len(found) < MINIMUM:
        raise InputError(
            f"{folder} holds {len(found)} images; at least {MINIMUM} are needed.", "100 or more give stable ranges."
        )
    return found


def prepare(
    options: BuildOptions, calibration: CalibrationSet | None, inputs: Sequence[TensorSpec], *, rescales_inside: bool
) -> Samples:
    """Choose the recipe, split the files, and read the ones that judge.

    Raises:
        InputError: a file cannot be read or does not fit the model.
    """
    recipe, text = _recipe(options, calibration, rescales_inside=rescales_inside)
    layouts: dict[str, Layout] = {spec.name: recipe.input.layout or "NHWC" for spec in inputs}
    reader = SampleReader(inputs, recipe, layouts)
    if calibration is None:
        judged = tuple(_synthetic(inputs, 255.0 if rescales_inside else 1.0, seed) for seed in range(MINIMUM))
        return Samples(reader, recipe, text, None, (), (), judged, judged, True, (_noise_warning(options),))
    calibrating, judging = split(calibration.samples, _affordable(inputs))
    held_out = not set(calibrating) & set(judging)  # copies were left out, so this holds by hash too
    manifest = calibration.manifest(calibrating, judging)
    judged = tuple(reader.read(sample) for sample in judging)
    warnings = (*_warnings(recipe, calibration, held_out=held_out), *_exposed(calibration))
    return Samples(
        reader, recipe, text, manifest, tuple(calibrating), tuple(judging), judged, judged, held_out, warnings
    )


def _noise_warning(options: BuildOptions) -> str:
    if options.precision == "fp16":
        return "No images were given: fidelity is measured, and FP16 overflow looked for, on noise."
    return "No images were given: fidelity is measured on noise."


def split(samples: Sequence[T], judged: int) -> tuple[list[T], list[T]]:
    """Those that calibrate and those that judge: disjoint where there are enough, drawn evenly over the sorted list."""
    count = min(judged, max(MINIMUM, len(samples) // 8))
    chosen = sorted({int(i) for i in np.linspace(0, len(samples) - 1, count)})
    judging = [samples[i] for i in chosen]
    if len(samples) < _ENOUGH_TO_SPLIT:
        return list(samples), judging
    return [sample for sample in samples if sample not in set(judging)], judging


def _affordable(inputs: Sequence[TensorSpec]) -> int:
    size = sum(int(np.prod([d or 1 for d in spec.shape])) * np.dtype(spec.dtype).itemsize for spec in inputs)
    return max(MINIMUM, min(MAX_JUDGED, _MAX_JUDGED_BYTES // max(size, 1)))


def _recipe(options: BuildOptions, calibration: CalibrationSet | None, *, rescales_inside: bool) -> tuple[Recipe, str]:
    """The recipe by the order of design §5, and its TOML text."""
    path = _recipe_path(options, None if calibration is None else calibration.folder)
    if path is not None:
        return load_recipe(path), path.read_text(encoding="utf-8")
    if calibration is not None and all(sample.holds_arrays for sample in calibration.samples):
        recipe = Recipe(name="as-is", description="NPY or NPZ arrays, fed as they are", raw=True)
    else:
        recipe = assumed_recipe(rescales_inside=rescales_inside)
    return recipe, recipe_toml(recipe)


def _given_recipe(options: BuildOptions, folder: Path) -> Recipe | None:
    path = _recipe_path(options, folder)
    return None if path is None else load_recipe(path)


def _recipe_path(options: BuildOptions, folder: Path | None) -> Path | None:
    from edgemed.base.resources import find_resource

    if options.recipe is not None:
        return find_resource("calibration", options.recipe)
    if folder is not None and (folder / RECIPE_FILE).is_file():
        return folder / RECIPE_FILE
    return None


def recipe_toml(recipe: Recipe) -> str:
    """TOML text that reads back as `recipe`."""
    import tomli_w

    said = recipe.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return tomli_w.dumps({"name": recipe.name, **said})


def _warnings(recipe: Recipe, calibration: CalibrationSet, *, held_out: bool) -> tuple[str, ...]:
    warnings = []
    if recipe.assumed:
        warnings.append(f"No recipe was given; assumed: {recipe.description}. Check that training did the same.")
    if len(calibration) < ENOUGH_IMAGES:
        warnings.append(f"Only {len(calibration)} calibration images; {ENOUGH_IMAGES} or more give stable ranges.")
    if not held_out:
        warnings.append("Too few images to keep some apart: fidelity is measured on calibration images.")
    return tuple(warnings)


def _exposed(calibration: CalibrationSet) -> list[str]:
    """What the bundle would show of patients: pixels, as golden vectors. Files are named by hash alone."""
    found = calibration.declared.values()
    named = sum(not image.removed for image in found)
    reasons = [image.burned_in for image in found if image.burned_in is not None]
    said = []
    if named:
        said.append(f"{named} of {len(found)} DICOM images do not say that the patient's identity was removed")
    if reasons:
        said.append(f"Pixels of {len(reasons)} may show a name ({reasons[0]})")
    if not said:
        return []
    return [
        f"{'; '.join(said)}. Golden vectors are pixels, and go into the bundle; "
        "`edgemed calibrate` makes a set that names nobody."
    ]


def _synthetic(inputs: Sequence[TensorSpec], largest: float, seed: int) -> Feeds:
    rng = np.random.default_rng(seed)
    return {
        spec.name: (rng.random([d or 1 for d in spec.shape]) * largest).astype(np.dtype(spec.dtype)) for spec in inputs
    }
