"""What kind of images come, in words of fixed lists: a manufacturer's or technician's free text may name anybody."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from edgemed.base.errors import InputError

OTHER: Final = "other"
NONE: Final = "none"

_MODALITIES: Final = "BI CR CT DG DX ECG ES GM IO IVUS LS MG MR NM OAM OCT OP OPT OT PT PX RF RG SC SM TG US XA XC"
_BODY_PARTS: Final = (
    "ABDOMEN ANKLE ANUS AORTA ARM BACK BILEDUCT BLADDER BRAIN BREAST CALCANEUS CHEST CHESTABDOMEN CHESTABDPELVIS"
    " CLAVICLE COCCYX COLON CSPINE ELBOW ESOPHAGUS EXTREMITY EYE FEMUR FINGER FOOT HAND HEAD HEADNECK HEART HIP HUMERUS"
    " JAW KIDNEY KNEE LEG LIVER LSPINE LUNG NECK PANCREAS PELVIS PROSTATE RECTUM RIB SHOULDER SKIN SKULL SPINE SPLEEN"
    " SSPINE STOMACH THYROID TOE TSPINE UTERUS WHOLEBODY WRIST"
)
_MANUFACTURERS: Final = (
    "agfa",
    "canon",
    "carestream",
    "dentsply",
    "esaote",
    "fujifilm",
    "ge",
    "hitachi",
    "hologic",
    "iba",
    "konica minolta",
    "mindray",
    "nikon",
    "olympus",
    "philips",
    "samsung",
    "shimadzu",
    "siemens",
    "sonosite",
    "toshiba",
    "united imaging",
    "zeiss",
)
_WORDS: Final = {name: re.compile(rf"\b{name}\b") for name in _MANUFACTURERS}

FIELDS: Final = ("modality", "body part", "manufacturer")


def kind_of(path: Path) -> dict[str, str]:
    """`FIELDS` of a file: a word of the lists, 'other', or 'none' where the file does not say, or is no DICOM file."""
    from edgemed.imaging.dicom.describe import describe

    try:
        found = describe(path)
    except (InputError, OSError):
        return dict.fromkeys(FIELDS, NONE)
    return {
        "modality": _listed(found.modality, _MODALITIES),
        "body part": _listed(found.body_part.replace(" ", ""), _BODY_PARTS),
        "manufacturer": _manufacturer(found.manufacturer),
    }


def _listed(text: str, known: str) -> str:
    word = text.strip().upper()
    return NONE if not word else word if word in known.split() else OTHER


def _manufacturer(text: str) -> str:
    word = text.strip().lower()
    if not word:
        return NONE
    return next((name for name, pattern in _WORDS.items() if pattern.search(word)), OTHER)
