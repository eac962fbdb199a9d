"""Other patients, as far as pseudonyms tell: of one key they do, of two they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgemed.base.errors import InputError
from edgemed.calibrate.assemble import Order, assemble
from edgemed.calibrate.dataset import open_calibration_set
from edgemed.evaluate.seen import Seen, refuse_patients
from edgemed.imaging.sources import Sample, list_samples
from tests.imaging.make_dicom import write

RNG = np.random.default_rng(7)


def deidentified(folder: Path, patients: list[str], key: Path | None) -> list[Sample]:
    """Samples of a set that `edgemed calibrate` makes of one image of each patient."""
    for number, patient in enumerate(patients):
        pixels = RNG.integers(0, 4095, (8, 8)).astype(np.uint16)
        write(folder / "raw" / f"{number}.dcm", pixels, PatientID=patient, StudyInstanceUID=f"1.2.{number + 1}")
    assemble(Order((folder / "raw",), folder / "set", key=key))
    return list_samples(folder / "set")


def seen_in(samples: list[Sample]) -> Seen:
    """As a bundle tells of what calibrated it."""
    opened = open_calibration_set(samples[0].path.parent)
    entries = opened.manifest(opened.samples, opened.samples).samples
    patients = [entry.patient for entry in entries]
    return Seen(frozenset(entry.sha256 for entry in entries), frozenset(filter(None, patients)), all(patients))


def test_other_patients_under_one_key(tmp_path: Path) -> None:
    calibration = deidentified(tmp_path / "a", ["A", "B"], tmp_path / "key")
    other = deidentified(tmp_path / "b", ["C", "D"], tmp_path / "key")
    assert refuse_patients(other, seen_in(calibration)) is True
    same = deidentified(tmp_path / "c", ["C", "B"], tmp_path / "key")
    with pytest.raises(InputError, match="1 of 2 images are of patients that calibration has seen"):
        refuse_patients(same, seen_in(calibration))


@pytest.mark.parametrize("named", [True, False])
def test_of_two_keys_nothing_is_claimed(tmp_path: Path, named: bool) -> None:
    calibration = deidentified(tmp_path / "a", ["A", "B"], tmp_path / "key" if named else None)
    same = deidentified(tmp_path / "b", ["A", "B"], tmp_path / "other" if named else None)
    assert refuse_patients(same, seen_in(calibration)) is False


def test_where_one_side_was_made_otherwise_nothing_is_claimed(tmp_path: Path) -> None:
    calibration = deidentified(tmp_path / "a", ["A", "B"], tmp_path / "key")
    pixels = RNG.integers(0, 4095, (8, 8)).astype(np.uint16)
    foreign = write(tmp_path / "c" / "x.dcm", pixels, PatientID="ANON-7", PatientIdentityRemoved="YES")
    assert refuse_patients([Sample.of(foreign)], seen_in(calibration)) is False
    mixed = [*deidentified(tmp_path / "b", ["C"], tmp_path / "key"), Sample.of(foreign)]
    assert refuse_patients(mixed, seen_in(calibration)) is False


def test_studies_without_patient_id_may_be_of_one_patient(tmp_path: Path) -> None:
    calibration = deidentified(tmp_path / "a", ["A", ""], tmp_path / "key")
    other = deidentified(tmp_path / "b", ["C"], tmp_path / "key")
    assert refuse_patients(other, seen_in(calibration)) is False
