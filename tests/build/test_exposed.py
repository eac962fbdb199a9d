"""What a bundle shows of patients is said before it does, unless the set was made to show nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgemed.build.samples import _exposed
from edgemed.calibrate.assemble import Order, assemble
from edgemed.calibrate.dataset import open_calibration_set
from edgemed.recipe.schema import load_recipe
from tests.build.conftest import write_images
from tests.imaging.make_dicom import write, write_series

RNG = np.random.default_rng(3)


def exposed(folder: Path) -> list[str]:
    recipe = folder / "recipe.toml"
    return _exposed(open_calibration_set(folder, load_recipe(recipe) if recipe.exists() else None))


def test_formats_that_name_nobody_are_not_warned_of(tmp_path: Path) -> None:
    assert exposed(write_images(tmp_path / "a", 3, size=8)) == []


def test_all_dicom_images_are_counted_and_none_is_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", 2, size=8)
    for index in range(40):  # more than ever judge
        more = {"PatientIdentityRemoved": "YES"} if index % 4 else {"BurnedInAnnotation": "YES"}
        write(folder / f"Miller_{index}.dcm", RNG.integers(0, 4095, (8, 8)).astype(np.uint16), **more)
    (warning,) = exposed(folder)
    assert warning.startswith("10 of 40 DICOM images do not say that the patient's identity was removed; ")
    assert "Pixels of 10 may show a name (Burned In Annotation says YES). Golden vectors are pixels" in warning
    assert "Miller" not in warning


@pytest.mark.parametrize("kind", ["images", "dicom", "series"])
def test_a_set_of_edgemed_calibrate_is_fine(tmp_path: Path, kind: str) -> None:
    if kind == "images":
        write_images(tmp_path / "in", 3, size=8)
    for index in range(3):
        if kind == "dicom":
            write(tmp_path / "in" / f"{index}.dcm", RNG.integers(0, 4095, (8, 8)).astype(np.uint16))
        if kind == "series":
            write_series(tmp_path / "in" / f"{index}", RNG.integers(0, 99, (4, 8, 8)).astype(np.int16))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[input]\nkind = "volume"\n' if kind == "series" else "[input]\n")
    assemble(Order((tmp_path / "in",), tmp_path / "set", recipe=recipe))
    assert exposed(tmp_path / "set") == []
