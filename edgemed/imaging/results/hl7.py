"""The result as an HL7 version 2.5.1 message, ORU^R01 (chapter 7): what an order system or a patient record takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from edgemed.base.errors import InputError
from edgemed.imaging.results.clean import CONTROLS
from edgemed.imaging.results.document import Answer, Code, Mask, Patient, Result
from edgemed.imaging.results.words import RESEARCH, SCHEME, private

_ESCAPES: Final = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}
_MOST: Final = 2000
"""Observations of one message: interfaces choke on longer ones, and the report holds them all."""
_UID: Final = ("110180", "Study Instance UID", "DCM")
_COMMENT: Final = ("121106", "Comment", "DCM")
_STATUS: Final = ("111065", "Summary of Analyses", "DCM")

Coded = tuple[str, str, str]


def oru(result: Result | Mapping[str, Any], *, application: str = "EDGEMED", receiving: str = "") -> bytes:
    r"""Write the message.

    Each class of each reading becomes an OBX with its probability and one with the decision; masks give their area or
    volume. Observation Result Status (OBX-11) is `P`, preliminary, as nobody has looked at it yet; `C`, corrected,
    for a revision; `X`, no result, where nothing was analysed.

    Args:
        result: the JSON result, as a record or as it was parsed.
        application: MSH-3, with the station as MSH-4.
        receiving: MSH-5, with MSH-6 after a `^` where there is one.

    Returns:
        Segments that end in carriage returns: ASCII, or UTF-8 where MSH-18 says so. The same result gives the same
        bytes, and the same control ID (MSH-10), by which a receiver knows what it has already.

    Raises:
        InputError: no input of it is DICOM: it is not known whose result it is.
    """
    record = result if isinstance(result, Result) else Result.model_validate(result)
    if record.patient is None:
        raise InputError("The result is about no DICOM file: nobody's record can take it.", "Send it as JSON.")
    stamp = record.analysed.replace("-", "").replace(":", "").replace("T", "").replace("Z", "")[:14] + "+0000"
    status = "X" if record.refusal is not None else "C" if record.revision > 1 else "P"
    segments = [
        _msh(record, application, receiving, stamp),
        _pid(record.patient),
        _segment("ORC", "RE", _safe(record.patient.placer_order), _filler(record)),
        _obr(record, record.patient, stamp, status),
    ]
    observed = _observations(record)
    if len(observed) > _MOST:
        left = len(observed) - _MOST
        observed = [*observed[:_MOST], ("TX", _COMMENT, "", f"{left} more observations: see the report.", "")]
    segments += [_obx(number, item, status, stamp, record) for number, item in enumerate(observed, 1)]
    text = "\r".join(segments) + "\r"
    if text.isascii():
        return text.encode("ascii")
    fields = segments[0].split("|")
    fields += [""] * (18 - len(fields))
    segments[0] = "|".join([*fields[:17], "UNICODE UTF-8"])
    return ("\r".join(segments) + "\r").encode("utf-8")


Observation = tuple[str, Coded, str, str, str]
"""OBX-2 type, OBX-3 what, OBX-4 of what, OBX-5 value (not escaped), OBX-6 unit."""


def _msh(record: Result, application: str, receiving: str, stamp: str) -> str:
    control = hashlib.sha256(f"{record.uid} {record.analysed}".encode()).hexdigest()[:20]
    to, _, facility = receiving.partition("^")
    return _segment(
        *("MSH", "^~\\&", _safe(application), _safe(record.station), _safe(to), _safe(facility), stamp, ""),
        *("ORU^R01^ORU_R01", control, "P", "2.5.1"),
    )


def _pid(patient: Patient) -> str:
    issuer = f"^^^{_safe(patient.issuer)}" if patient.issuer else ""
    birth = patient.birth_date
    return _segment("PID", "1", "", _safe(patient.id) + issuer, "", _names(patient.name), "", birth, patient.sex)


def _names(name: str) -> str:
    """XPN from PN: HL7 has the suffix before the prefix; a group each for alphabet, ideograms and phonetics."""
    found = []
    for group, kind in zip(name.split("="), ("A", "I", "P"), strict=False):
        parts = [_safe(part) for part in (group.split("^") + [""] * 5)[:5]]
        if any(parts):
            family, given, middle, prefix, suffix = parts
            found.append("^".join((family, given, middle, suffix, prefix, "", "L", kind)))
    return "~".join(found)


def _filler(record: Result) -> str:
    """Our number of the order: what the department called it, else the accession number, else the result's own."""
    assert record.patient is not None
    return _safe(record.patient.filler_order or record.patient.accession or record.uid)


def _obr(record: Result, patient: Patient, stamp: str, status: str) -> str:
    fields = [""] * 26
    fields[0:4] = ["OBR", "1", _safe(patient.placer_order), _filler(record)]
    fields[4] = "^".join((_safe(record.model.name[:20]), _safe(record.model.name), SCHEME))
    fields[7] = stamp
    names = _names(patient.referring)
    fields[16] = "^" + "^".join(names.split("~")[0].split("^")[:3]) if names else ""
    fields[18] = _safe(patient.accession)
    fields[22], fields[25] = stamp, status
    return _segment(*fields)


def _observations(record: Result) -> list[Observation]:
    done = "Not Attempted" if record.refusal is not None else "Succeeded"
    number = "111225" if record.refusal is not None else "111222"
    study = next((each.study for each in record.inputs if each.study), "")
    found: list[Observation] = [("ST", _UID, "", study, ""), ("CWE", _STATUS, "", f"{number}^{done}^DCM", "")]
    remarks = [RESEARCH] if record.research_only else []
    remarks += [f"NOT ANALYSED: {record.refusal}"] if record.refusal is not None else []
    found += [("TX", _COMMENT, "", remark, "") for remark in (*remarks, *record.notes)]
    for place, answer in enumerate(record.readings, 1):
        found += _answered(answer, str(place))
    return found


def _answered(answer: Answer, place: str) -> list[Observation]:
    """One reading; OBX-4 joins the observations of one class: reading, then class."""
    where = f" frame {answer.frame + 1}" if answer.frame is not None else ""
    if answer.value is not None:
        name = private(answer.output)
        return [("NM", (name.value, name.meaning + where, SCHEME), place, f"{answer.value:.6g}", answer.unit)]
    found: list[Observation] = []
    for number, score in enumerate(answer.scores, 1):
        what, of = _coded(score.name, score.code, where), f"{place}.{number}"
        decision = "52101004^Present^SCT" if score.found else "2667000^Absent^SCT"
        if answer.task != "segmentation":
            found.append(("NM", ("122157", "Probability", "DCM"), of, f"{score.value:.6g}", "1"))
        found.append(("CWE", what, of, decision, ""))
    for number, mask in enumerate(answer.masks, 1):
        found += _measured(mask, f"{place}.{number}")
    return found


def _measured(mask: Mask, of: str) -> list[Observation]:
    if not mask.pixels:
        return []
    if mask.volume_mm3 is not None:
        return [("NM", ("118565006", "Volume", "SCT"), of, f"{mask.volume_mm3:.6g}", "mm3")]
    if mask.area_mm2 is not None:
        return [("NM", ("42798000", "Area", "SCT"), of, f"{mask.area_mm2:.6g}", "mm2")]
    return [("NM", ("42798000", "Area", "SCT"), of, str(mask.pixels), "{pixels}")]


def _coded(name: str, code: Code | None, where: str) -> Coded:
    if code is not None:
        return code.value, code.meaning + where, code.scheme
    concept = private(name)
    return concept.value, concept.meaning + where, SCHEME


def _obx(number: int, item: Observation, status: str, stamp: str, record: Result) -> str:
    kind, what, of, value, unit = item
    written = value if kind == "CWE" else _safe(value)
    fields = [""] * 19
    fields[0:6] = ["OBX", str(number), kind, "^".join(_safe(part) for part in what), of, written]
    fields[6] = f"{_safe(unit)}^^UCUM" if unit else ""
    fields[11], fields[14] = status, stamp
    fields[18] = _safe(record.station)
    return _segment(*fields)


def _segment(*fields: str) -> str:
    return "|".join(fields).rstrip("|")


def _safe(text: str) -> str:
    """Without what would end a field, a component or a segment (chapter 2.7)."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    escaped = "".join(_ESCAPES.get(letter, letter) for letter in lines)
    return CONTROLS.sub(" ", escaped.replace("\n", "\\.br\\"))
