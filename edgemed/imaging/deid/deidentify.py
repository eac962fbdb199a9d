"""`deidentify`: a data set in, a data set that names nobody and a report out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgemed import __version__
from edgemed.base.errors import InputError
from edgemed.base.lazy import require
from edgemed.base.store import scratch_directory
from edgemed.imaging.deid.clean import PSEUDONYMOUS, Cleaner, Place, elements
from edgemed.imaging.deid.identity import Identities
from edgemed.imaging.deid.options import Options
from edgemed.imaging.deid.pixels import blank_pixels, drop_high_bits
from edgemed.imaging.deid.regions import Blanking, BurnedInError, burned_in, find_blanking
from edgemed.imaging.deid.report import SCHEMA, DeidReport, Recorder
from edgemed.imaging.deid.stream import strip_comments
from edgemed.imaging.deid.values import strings
from edgemed.imaging.dicom.file import DicomFile, open_dicom

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataset import FileDataset

PROFILE: Final = "PS3.15 2024e Basic Application Level Confidentiality Profile, with the rows of 2026c"
_ECHO_LENGTH: Final = 4  # shorter pieces of names turn up in words by chance
_FACES: Final = ("CT", "MR", "PT")


def deidentify_file(path: Path, options: Options) -> tuple[FileDataset, DeidReport]:
    """Apply the profile to an image file, see `deidentify`.

    Raises:
        InputError: the file is not read, see `open_dicom`; or as `deidentify`. Names the file.
        ResourceError: it cannot be read.
    """
    opened = open_dicom(path)  # judges the header, so that what follows may trust its sizes
    with silent_pydicom():
        source = require("pydicom", extra="imaging", purpose="read DICOM").dcmread(path, force=True)
    try:
        return deidentify(source, options, opened=opened)
    except InputError as error:
        if str(path) in error.what:
            raise
        raise type(error)(f"{path} is not de-identified: {error.what}", error.hint) from error


def deidentify(
    dataset: Dataset, options: Options | None = None, *, opened: DicomFile | None = None
) -> tuple[FileDataset, DeidReport]:
    """Apply the Basic Profile of PS3.15 Annex E, with options.

    The source is not changed. Files of one study stay together when they are de-identified with the same key: UIDs
    and pseudonyms follow from it.

    Args:
        dataset: as pydicom reads it, file meta included; with its pixels, where it has any.
        options: what to keep; the default keeps nothing, under a key that is thrown away.
        opened: the file it comes from, whose pixels are decoded when they must be blanked; without it the data set is
            written to a private temporary folder for that.

    Raises:
        BurnedInError: text may be burned into its pixels, and no region rule matches.
        InputError: it has no SOP Class or Instance
            UID, or is a DICOMDIR; its sequences are too deep; its compressed frames cannot be told apart.
        MissingSoftwareError: pydicom, or what decodes the pixels that must be blanked, is not installed.
    """
    options = options or Options()
    with silent_pydicom():
        return _deidentify(dataset, options, opened)


@contextmanager
def silent_pydicom() -> Iterator[None]:
    """No word from pydicom: what it says of a value that breaks a rule holds the value, which may be a name."""
    logger = logging.getLogger("pydicom")
    was = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was


def _deidentify(dataset: Dataset, options: Options, opened: DicomFile | None) -> tuple[FileDataset, DeidReport]:
    _require_identity(dataset)
    blanking = _blanking(dataset, options)
    identities, recorder = Identities(options.key), Recorder()
    identity = patient_identity(dataset)
    sop_class = _text(dataset, "SOPClassUID")
    # the palette of PALETTE COLOR, or one that supplements gray values (PS3.3 C.8.16.2.1.2)
    palette = _text(dataset, "PhotometricInterpretation").upper() == "PALETTE COLOR" or _text(
        dataset, "PixelPresentation"
    ).upper() in ("COLOR", "MIXED")
    days, echoes = identities.days(identity), _echoes(dataset)
    cleaner = Cleaner(options, identities, sop_class, days, echoes, recorder, palette)
    cleaned = cleaner.dataset(dataset, Place())
    if options.pseudonym:
        _name(cleaned, identities.patient(identity), recorder)
    file = _as_file(dataset, cleaned)
    pixels = _pixels(dataset, file, blanking, opened)
    _mark(file, options, pixels_cleaned=blanking is not None)
    codes = tuple(code for code, _ in options.codes(pixels_cleaned=blanking is not None))
    report = DeidReport(
        schema=SCHEMA,
        profile=PROFILE,
        codes=codes,
        tags=recorder.tags(),
        pixels=pixels,
        notes=tuple(_notes(dataset, options)),
    )
    return file, report


def _require_identity(dataset: Dataset) -> None:
    if "DirectoryRecordSequence" in dataset:
        raise InputError("It is a DICOMDIR, a list of patients and files.", "Give the files that it lists.")
    for keyword, name in (("SOPClassUID", "SOP Class UID"), ("SOPInstanceUID", "SOP Instance UID")):
        if not _text(dataset, keyword):
            raise InputError(f"It has no {name}.", "Check the file.")


def patient_identity(dataset: Dataset) -> str:
    """What tells one patient from another: Patient ID and its issuer, else the study, else the file itself."""
    patient = _text(dataset, "PatientID")
    if patient:
        return f"{patient}\0{_text(dataset, 'IssuerOfPatientID')}"
    return _text(dataset, "StudyInstanceUID") or _text(dataset, "SOPInstanceUID")


def _text(dataset: Dataset, keyword: str) -> str:
    """A value as text; empty where it is absent, or cannot be read."""
    try:
        return "\\".join(strings(dataset.get(keyword))).strip()
    except Exception:  # pydicom raises whatever a hostile value provokes
        return ""


def _blanking(dataset: Dataset, options: Options) -> Blanking | None:
    reason = burned_in(dataset)
    blanking = find_blanking(dataset, options.regions)
    if reason is not None and blanking is None:
        raise BurnedInError(
            f"Text may be burned into the pixels: {reason}.",
            "Look at it, then give a region rule that says what to blank, see docs/deidentification.md.",
        )
    return blanking


def _echoes(dataset: Dataset) -> frozenset[str]:
    """Names and numbers of the patient, and of every other person, wherever they stand; upper case."""
    found: set[str] = set()
    _collect(dataset, found, 0)
    return frozenset(word for word in found if len(word) >= _ECHO_LENGTH)


def _collect(dataset: Dataset, found: set[str], depth: int) -> None:
    for tag, element in elements(dataset):
        if element is None or tag >> 16 in (0x0002, 0x7FE0):
            continue
        if element.VR == "SQ":
            if depth < 4:  # persons are named near the top; what lies deeper is judged by its own row
                for item in element.value:
                    _collect(item, found, depth + 1)
        elif element.VR == "PN":
            for name in strings(element.value):
                found.update(name.upper().replace("^", " ").replace("=", " ").split())
        elif element.keyword in ("PatientID", "OtherPatientIDs", "AccessionNumber", "PatientBirthDate"):
            found.update(value.strip().upper() for value in strings(element.value))


def _name(cleaned: Dataset, pseudonym: str, recorder: Recorder) -> None:
    for keyword in PSEUDONYMOUS:
        setattr(cleaned, keyword, pseudonym)
        element = cleaned[keyword]
        recorder.add(keyword, element.tag, element.VR, "replaced", "profile Z, by the patient's pseudonym")


def _as_file(source: Dataset, cleaned: Dataset) -> FileDataset:
    """The data set with new file meta: of the old one only the transfer syntax is taken over."""
    pydicom = require("pydicom.dataset", extra="imaging", purpose="read DICOM")
    meta = pydicom.FileMetaDataset()
    meta.TransferSyntaxUID = _transfer_syntax(source)
    meta.MediaStorageSOPClassUID = cleaned.get("SOPClassUID", "")
    meta.MediaStorageSOPInstanceUID = cleaned.get("SOPInstanceUID", "")
    if not (meta.MediaStorageSOPClassUID and meta.MediaStorageSOPInstanceUID):
        raise InputError("Its SOP Class UID or SOP Instance UID is no UID.", "Check the file.")
    syntax = meta.TransferSyntaxUID
    file: FileDataset = pydicom.FileDataset(
        "",
        cleaned,
        preamble=b"\0" * 128,  # a TIFF header, or anything else, may hide in the old one
        file_meta=meta,
        is_implicit_VR=syntax.is_implicit_VR,
        is_little_endian=syntax.is_little_endian,
    )
    _legal_charset(file)
    return file


def _transfer_syntax(source: Dataset) -> Any:
    uid = require("pydicom.uid", extra="imaging", purpose="read DICOM")
    meta = getattr(source, "file_meta", None)
    syntax = uid.UID(str(meta.get("TransferSyntaxUID", "") or "")) if meta is not None else uid.UID("")
    if syntax and not syntax.is_private and syntax.is_transfer_syntax:
        return syntax
    implicit, little = source.original_encoding
    if little is False:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian


def _legal_charset(file: Dataset) -> None:
    known = require("pydicom.charset", extra="imaging", purpose="read DICOM").python_encoding
    values = strings(file.get("SpecificCharacterSet", None))
    if not all(value in known for value in values):
        file.SpecificCharacterSet = "ISO_IR 192"


def _pixels(source: Dataset, file: FileDataset, blanking: Blanking | None, opened: DicomFile | None) -> str:
    done = []
    if blanking is not None:
        if opened is not None:
            blank_pixels(opened, file, blanking.mask)
        else:
            _blank_in_scratch(source, file, blanking)
        file.BurnedInAnnotation = "NO"
        done.append(blanking.why)
    elif drop_high_bits(source, file):
        done.append("overlays in the high bits of pixels cleared")
    taken = strip_comments(file)
    if taken:
        what = ", ".join(f"{count} {name}" for name, count in sorted(taken.items()))
        done.append(f"{what} taken out of compressed frames")
    return "; ".join(done) or "unchanged"


def _blank_in_scratch(source: Dataset, file: FileDataset, blanking: Blanking) -> None:
    with scratch_directory("edgemed-deid") as folder:
        path = folder / "image.dcm"
        source.save_as(path, enforce_file_format=True)
        try:
            blank_pixels(open_dicom(path), file, blanking.mask)
        except InputError as error:  # the name of the scratch file tells nobody anything
            raise InputError(error.what.replace(str(path), "It"), error.hint) from error


def _mark(file: Dataset, options: Options, *, pixels_cleaned: bool) -> None:
    """Say in the file what was done (PS3.15 E.1.1, PS3.3 C.12.1.1.1 and C.7.1.1)."""
    pydicom = require("pydicom", extra="imaging", purpose="read DICOM")
    file.PatientIdentityRemoved = "YES"
    file.DeidentificationMethod = [f"edgemed {__version__}", "PS3.15 2024e Basic Profile"]
    items = []
    for code, meaning in options.codes(pixels_cleaned=pixels_cleaned):
        item = pydicom.Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", meaning
        items.append(item)
    file.DeidentificationMethodCodeSequence = items
    words = {"remove": "REMOVED", "shift": "MODIFIED", "keep": "UNMODIFIED"}
    file.LongitudinalTemporalInformationModified = words[options.dates]


def _notes(dataset: Dataset, options: Options) -> list[str]:
    notes = []
    modality, part = _text(dataset, "Modality").upper(), _text(dataset, "BodyPartExamined").upper()
    if modality in _FACES and (not part or any(word in part for word in ("HEAD", "BRAIN", "NECK", "FACE", "SKULL"))):
        notes.append("A face can be rendered from slices of a head; recognizable features were not removed.")
    if options.retain_uids:
        notes.append("UIDs were kept: whoever has the originals finds the patient by them.")
    if options.unlisted_text == "keep":
        notes.append("Free text that Table E.1-1 does not name was kept; read it before you pass the file on.")
    return notes
