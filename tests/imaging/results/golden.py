"""Results whose bytes are known: every form that a report takes, of images that are the same in every run.

`golden.json` holds the hashes of what highdicom and pydicom alone wrote, and of what was changed on purpose since. Run
as a program, this prints them anew; a change is a change of what hospitals archive, and belongs into the changelog.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from edgemed.imaging.results import make_results
from edgemed.imaging.results.content import Concept, Content, Reading, ResultFile, Score
from tests.imaging.results import cases
from tests.serve import kit

KNOWN = Path(__file__).with_name("golden.json")
_EDGEMED, _HIGHDICOM = "0.1.0", "0.28.2"  # versions stand in each file
_NAMES = {
    "latin": ("ISO_IR 100", "Müller^Jörg"),
    "cyrillic": ("ISO_IR 144", "Люкceмбypг^Роза"),
    "chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
    "japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "unknown": ("KLINGON", "Doe^Jane"),
}


def hashes() -> dict[str, str]:
    """Of each file of each content, by content, kind and place."""
    with tempfile.TemporaryDirectory() as folder, _versions():
        return {
            f"{name} {number} {file.kind}": hashlib.sha256(_lasting(file)).hexdigest()
            for name, said in _contents(Path(folder))
            for number, file in enumerate(make_results(said, cases.EVERY))
        }


def _lasting(file: ResultFile) -> bytes:
    """All bytes, but a capture's pixels: its letters are drawn by whatever Pillow there is."""
    return file.data.split(b"\xe0\x7f\x10\x00OB")[0] if file.kind == "sc" else file.data


@contextmanager
def _versions() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(mock.patch("edgemed.imaging.results.part10.VERSION_NAME", f"EDGEMED_{_EDGEMED}"))
        stack.enter_context(mock.patch("highdicom.base_content.__version__", _HIGHDICOM))
        yield


def _contents(folder: Path) -> Iterator[tuple[str, Content]]:
    made = _Images(folder)
    cr, cine = made("cr", kit.CR), made("cine", kit.US_MULTIFRAME, frames=20)
    slices = [
        made(f"slice{z}", kit.CT, position=2.5 * z, series="1.2.826.0.7.2", rows=32, columns=24) for z in range(4)
    ]
    said = cases.content(cr, readings=(cases.classified(),), ood=0.25, notes=("The series is incomplete.",))
    yield "binary", said
    yield "lifted", replace(said, author=replace(cases.AUTHOR, research_only=False, intended_use="", station=""))
    yield "revision", replace(said, revision=3, replaces=("1.2.3.4", "1.2.3.5"))
    yield "refusal", cases.content(cr, refusal="The contract asks for CT, and this is CR.")
    yield "regression", cases.content(cr, readings=_measured())
    yield "words", cases.content(cr, readings=_worded())
    yield "several", cases.content(cr, slices[0], cine, readings=(cases.classified(0), cases.classified(2, 3)))
    yield "frame of all", cases.content(cr, cine, readings=(cases.classified(None, 3),))
    yield "mask", cases.content(cr, readings=(cases.drawn(cases.blobs(64, 64)), cases.classified()))
    yield "nothing", cases.content(slices[0], readings=(cases.drawn(np.zeros((2, 32, 24), bool)),))
    yield "slices", cases.content(*slices, readings=tuple(cases.drawn(cases.blobs(32, 24, z), z) for z in range(4)))
    planes = tuple((z, 0) for z in (3, 2, 1, 0))
    volume = cases.drawn(np.stack([cases.blobs(32, 24, z) for z in range(4)], axis=1), None)
    yield "volume", cases.content(*slices, readings=(volume, cases.classified(None)), planes=planes)
    yield "few frames", cases.content(cine, readings=tuple(cases.classified(0, frame) for frame in range(4)))
    yield "frames", cases.content(cine, readings=tuple(cases.classified(0, frame) for frame in range(20)))
    yield "outlines", cases.content(cine, readings=tuple(cases.drawn(cases.blobs(64, 64, f), 0, f) for f in (0, 7)))
    yield (
        "no frames",
        cases.content(
            made("sc", "1.2.840.10008.5.1.4.1.1.7", frames=3), readings=(cases.drawn(cases.blobs(64, 64), frame=1),)
        ),
    )
    yield "retired", cases.content(made("us", "1.2.840.10008.5.1.4.1.1.6"), readings=(cases.classified(),))
    yield "private", cases.content(made("private", "1.3.6.1.4.1.99999.1", frames=3), readings=(cases.classified(),))
    long = {"PatientID": "P" * 70, "AccessionNumber": "A" * 20, "IssuerOfPatientID": "HOSP", "PatientAge": "045Y"}
    long |= {
        "StudyDescription": "Thorax",
        "PatientIdentityRemoved": "YES",
        "BodyPartExamined": "KNEE",
        "Laterality": "L",
    }
    yield "header", cases.content(made("header", kit.CR, **long), readings=(cases.classified(),))
    for name, (declared, patient) in _NAMES.items():
        source = made(name, kit.CR, SpecificCharacterSet=declared, PatientName=patient)
        yield name, cases.content(source, readings=(cases.classified(),))
    yield "other script", replace(said, notes=("Люкс",))


def _measured() -> tuple[Reading, ...]:
    values = (12.3456789, 0.0, -1.5e-9, 123456789.0)
    units = ("mm", "1", "cm/s", "{counts}")
    every = zip(values, units, strict=True)
    return tuple(Reading(f"value {unit}", "regression", 0, value=value, unit=unit) for value, unit in every)


def _worded() -> tuple[Reading, ...]:
    names = ("Verschattung, rechts basal, unklar", "肺炎", "a|b^c", "x" * 100)
    concepts = (
        None,
        None,
        Concept("12345678901234567", "99LOCAL", "A local word"),
        Concept("urn:oid:1.2.3.4.5", "99X", ""),
    )
    every = zip(names, concepts, strict=True)
    scores = tuple(Score(name, 1 / 3, place == 1, concept) for place, (name, concept) in enumerate(every))
    return (Reading("y", "multilabel", 0, scores=scores),)


class _Images:
    """Writes images whose UIDs are made of their names, in a time zone of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, sop_class: str, *, series: str = "1.2.826.0.7.1", **fields: Any) -> Path:
        instance = "1.2.826.0.7." + str(int(hashlib.sha256(name.encode()).hexdigest()[:16], 16))
        fields = {"TimezoneOffsetFromUTC": "-0330", **fields}
        image = kit.image(sop_class=sop_class, study="1.2.826.0.7", series=series, instance=instance, **fields)
        return kit.write(image, self._folder / f"{name}.dcm")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(hashes(), indent=1) + "\n")
