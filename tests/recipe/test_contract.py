"""The contract: what fits passes, what does not is refused with every reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgemed.base.errors import InputError
from edgemed.recipe.contract import STORAGE_CLASSES, Contract, check_contract, violations
from edgemed.recipe.image import Facts

CHEST = Contract(
    sop_classes=("ComputedRadiographyImageStorage", "1.2.840.10008.5.1.4.1.1.1.1"),
    modalities=("CR", "DX"),
    body_parts=("CHEST",),
    photometric=("MONOCHROME1", "MONOCHROME2"),
    laterality=("U",),
    views=("PA", "AP"),
    manufacturers=("Acme",),
    min_rows=512,
    min_columns=512,
    max_rows=4096,
    max_frames=1,
    min_bits=10,
    spacing=(0.1, 0.2),
    burned_in="require-no",
)
FILM = Facts(
    rows=2048,
    columns=2048,
    photometric="MONOCHROME1",
    bits=12,
    modality="CR",
    sop_class="1.2.840.10008.5.1.4.1.1.1",
    body_part="chest ",
    laterality="U",
    view="PA",
    spacing=(0.143, 0.143),
    manufacturer="ACME",
    burned_in=False,
)


def test_what_fits_passes():
    check_contract(CHEST, FILM)
    check_contract(CHEST, replace(FILM, sop_class=STORAGE_CLASSES["DigitalXRayImageStorageForPresentation"]))
    check_contract(Contract(), Facts(rows=1, columns=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sop_class": STORAGE_CLASSES["CTImageStorage"]},
            "The SOP Class is CTImageStorage; the recipe's contract takes Comp",
        ),
        ({"sop_class": "1.2.3"}, "The SOP Class is 1.2.3;"),
        ({"modality": "CT"}, "Modality is 'CT'; the recipe's contract takes CR, DX"),
        ({"body_part": "KNEE"}, "Body Part Examined is 'KNEE'; the recipe's contract takes CHEST"),
        ({"photometric": "RGB"}, "Photometric Interpretation is 'RGB'"),
        ({"laterality": "L"}, "Laterality is 'L'; the recipe's contract takes U"),
        ({"view": "LL"}, "View Position is 'LL'"),
        ({"manufacturer": "Other"}, "Manufacturer is 'Other'"),
        ({"rows": 511}, "511 rows; the recipe's contract takes 512 to 4096"),
        ({"columns": 20_000}, "20000 columns; the recipe's contract takes 512 to 16384"),
        ({"frames": 2}, "2 frames; the recipe's contract takes 1 to 1"),
        ({"bits": 8}, "8 bits stored; the recipe's contract takes at least 10"),
        (
            {"spacing": (0.143, 0.3)},
            "rows and columns lie 0.143 x 0.3 mm apart; the recipe's contract takes 0.1 to 0.2 mm",
        ),
        ({"burned_in": True}, "burned into its pixels"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str):
    (reason,) = violations(CHEST, replace(FILM, **change))
    assert message in reason


@pytest.mark.parametrize(
    ("fact", "name"),
    [
        ("sop_class", "SOP Class UID"),
        ("modality", "Modality"),
        ("body_part", "Body Part Examined"),
        ("photometric", "Photometric Interpretation"),
        ("laterality", "Laterality"),
        ("view", "View Position"),
        ("manufacturer", "Manufacturer"),
        ("bits", "Bits stored"),
        ("spacing", "distance of rows and columns"),
        ("burned_in", "Burned In Annotation"),
    ],
)
def test_a_file_that_does_not_say_is_refused(fact: str, name: str):
    (reason,) = violations(CHEST, replace(FILM, **{fact: None}))
    assert reason == f"The file does not say its {name}, which the recipe's contract asks for."


def test_all_reasons_are_given_at_once():
    with pytest.raises(InputError, match=r"Modality is 'CT'.*Body Part Examined is 'KNEE'.*100 rows"):
        check_contract(CHEST, replace(FILM, modality="CT", body_part="KNEE", rows=100))


def test_slices_are_counted_and_measured():
    contract = Contract(min_frames=10, slice_spacing=(0.5, 5))
    volume = Facts(rows=1, columns=1, frames=20, slice_spacing=5.0)
    check_contract(contract, volume)
    assert ["at least 10" in reason for reason in violations(contract, replace(volume, frames=9))] == [True]
    assert len(list(violations(contract, replace(volume, slice_spacing=7.0)))) == 1
    assert len(list(violations(contract, replace(volume, slice_spacing=None)))) == 1


def test_files_that_are_silent_about_burned_in_text_pass_unless_they_must_say_no():
    silent = Facts(rows=1, columns=1)
    check_contract(Contract(burned_in="refuse"), silent)
    assert list(violations(Contract(burned_in="require-no"), silent))
    check_contract(Contract(), replace(silent, burned_in=True))


def test_what_a_file_says_cannot_steer_the_terminal():
    (reason,) = violations(CHEST, replace(FILM, modality="\x1b[2J" + "x" * 9999))
    assert "\x1b" not in reason
    assert len(reason) < 200
