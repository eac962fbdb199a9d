"""What a bundle was calibrated on, and what must therefore not judge it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgemed.base.errors import InputError, IntegrityError
from edgemed.bundle.read import Bundle
from edgemed.imaging.deid.identity import fingerprint_of
from edgemed.imaging.privacy import pseudonym
from edgemed.imaging.sources import Sample

CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True)
class Seen:
    """What a bundle was calibrated on; empty for one that never was.

    Attributes:
        hashes: SHA-256 of every sample.
        patients: pseudonyms of de-identified patients.
        all_named: every sample has a pseudonym.
    """

    hashes: frozenset[str] = frozenset()
    patients: frozenset[str] = frozenset()
    all_named: bool = False


def seen_by(bundle: Bundle) -> Seen:
    """What the bundle was calibrated on.

    Raises:
        IntegrityError: the list is missing from a calibrated bundle, or is not one.
    """
    if bundle.manifest.calibration is None:
        return Seen()
    try:
        document = TypeAdapter(dict[str, Any]).validate_json(bundle.read(CALIBRATION_FILE))
        samples = TypeAdapter(list[dict[str, str | None]]).validate_python(document["samples"])
        patients = [sample.get("patient") for sample in samples]
        hashes = frozenset(str(sample["sha256"]) for sample in samples)
        return Seen(hashes, frozenset(filter(None, patients)), all(patients))
    except (ValidationError, KeyError) as error:
        raise IntegrityError(f"{CALIBRATION_FILE} does not list hashes.", "Build the bundle anew.") from error


def refuse_patients(samples: Sequence[Sample], seen: Seen) -> bool:
    """Whether samples and calibration are of different patients, as far as pseudonyms of de-identified files tell.

    Returns:
        True where every sample on both sides has a pseudonym of one key: under two keys one patient has two.

    Raises:
        InputError: calibration has seen a patient of theirs.
    """
    if not seen.patients:
        return False
    patients = [pseudonym(sample) for sample in samples]
    shared = [sample.name for sample, patient in zip(samples, patients, strict=True) if patient in seen.patients]
    if shared:
        raise InputError(
            f"{len(shared)} of {len(samples)} images are of patients that calibration has seen, {shared[0]} first.",
            "Evaluate on other patients.",
        )
    keys = {None if patient is None else fingerprint_of(patient) for patient in (*patients, *seen.patients)}
    return seen.all_named and len(keys) == 1 and None not in keys
