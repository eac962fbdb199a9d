"""A study that can be sent again and again as another one: only its UIDs change, in place, and no other byte.

Each file is read once. Its own UIDs, and what refers to them anywhere in it, become stand-ins of one length, whose
places are kept; to send it anew means to write other UIDs of that length there. Pixel data are never decoded.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgemed.base.errors import EdgemedError, InputError, os_errors_as_resource
from edgemed.imaging.dicom.part10 import FileMeta, read_meta

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

UID_LENGTH: Final = 44  # of "2.25." and a UUID of 39 digits: most have so many
_MOST_FILES: Final = 20_000
_WHO: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "InstanceNumber")
_PIXELS: Final = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))

Fresh = Mapping[str, str]
"""What each UID of the study becomes."""


@dataclass(frozen=True)
class Template:
    """One image as it will be sent.

    Attributes:
        path: the data set alone, with stand-ins.
        sop_class, sop_instance: as in the study.
        syntax: Transfer Syntax UID.
        slots: where a UID of the study stands, and which.
    """

    path: Path
    sop_class: str
    sop_instance: str
    syntax: str
    slots: tuple[tuple[int, str], ...]

    def filled(self, fresh: Fresh) -> bytes:
        """The data set with fresh UIDs."""
        with os_errors_as_resource(self.path):
            data = bytearray(self.path.read_bytes())
        for place, uid in self.slots:
            data[place : place + UID_LENGTH] = fresh[uid].encode("ascii")
        return bytes(data)


@dataclass(frozen=True)
class Series:
    """What goes through one association.

    Attributes:
        study, uid: as in the folder.
        images: in the order of their Instance Numbers.
    """

    study: str
    uid: str
    images: tuple[Template, ...]


@dataclass(frozen=True)
class Study:
    """What is replayed: mostly one study.

    Attributes:
        series: in the order of their files' names.
        bytes: of all data sets.
        left_out: files that are no DICOM objects, or were there before under another name.
    """

    series: tuple[Series, ...]
    bytes: int
    left_out: int

    @property
    def images(self) -> int:
        return sum(len(series.images) for series in self.series)

    @property
    def uids(self) -> frozenset[str]:
        """Of studies, series and instances."""
        return frozenset(
            uid
            for series in self.series
            for uid in (series.study, series.uid, *(i.sop_instance for i in series.images))
        )

    def fresh(self) -> dict[str, str]:
        """Another UID for each of its own."""
        return {uid: fresh_uid() for uid in self.uids}


@dataclass(frozen=True)
class _Found:
    path: Path
    study: str
    series: str
    instance: str
    number: int
    meta: FileMeta


def fresh_uid() -> str:
    """A new UID of `UID_LENGTH` characters (PS3.5 annex B.2)."""
    while True:
        text = f"2.25.{uuid.UUID(int=secrets.randbits(128), version=4).int}"
        if len(text) == UID_LENGTH:
            return text


def read_study(folder: Path, scratch: Path) -> Study:
    """Make templates of all DICOM files of a folder and of those in it.

    Args:
        folder: whose files are read, and not changed.
        scratch: takes the templates.

    Raises:
        InputError: there are no images, or one cannot be sent under other UIDs.
        ResourceError: a file cannot be read or written.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder.", "Give the folder of a study's DICOM files.")
    with os_errors_as_resource(folder):
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if len(paths) > _MOST_FILES:
        raise InputError(f"{folder} has more than {_MOST_FILES} files.", "Give the folder of one study.")
    found: dict[str, _Found] = {}
    for path in paths:
        if (each := _look(path)) is not None:
            found.setdefault(each.instance, each)
    if not found:
        raise InputError(f"{folder} has no DICOM image.", "Give the folder of a study's DICOM files.")
    stand_ins = {uid: fresh_uid() for each in found.values() for uid in (each.study, each.series, each.instance)}
    groups: dict[tuple[str, str], list[_Found]] = {}
    for each in found.values():
        groups.setdefault((each.study, each.series), []).append(each)
    made: list[Series] = []
    size = 0
    for (study, series), files in groups.items():
        images: list[Template] = []
        for each in sorted(files, key=lambda file: (file.number, file.path)):
            data = _stood_in(each, stand_ins)
            images.append(_template(each, data, stand_ins, scratch / f"{size}.{len(images)}"))
            size += len(data)
        made.append(Series(study, series, tuple(images)))
    return Study(tuple(made), size, len(paths) - len(found))


def _look(path: Path) -> _Found | None:
    """Who a file is; `None` of what cannot be stored: no DICOM, a DICOMDIR, an object without pixels."""
    from pydicom import dcmread

    try:
        with os_errors_as_resource(path), path.open("rb") as file:
            meta = read_meta(file)
            file.seek(0)
            ds = dcmread(file, stop_before_pixels=True, specific_tags=[*_WHO, "Rows"], force=True)
    except InputError:
        return None
    except EdgemedError:
        raise
    except Exception:  # whatever pydicom stumbles over is not an image that a modality could send
        return None
    study, series, instance = (str(ds.get(name) or "") for name in _WHO[:3])
    if not (study and series and instance) or not meta.syntax or not meta.sop_class or "Rows" not in ds:
        return None
    return _Found(path, study, series, instance, int(ds.get("InstanceNumber") or 0), meta)


def _stood_in(found: _Found, stand_ins: Fresh) -> bytes:
    """The data set of a file with stand-ins."""
    from pydicom import dcmread

    try:
        ds = dcmread(found.path, force=True)
        _replace(ds, stand_ins, {uid.encode("ascii") for uid in stand_ins})
        buffer = BytesIO()
        ds.save_as(buffer)
    except OSError as error:
        raise InputError(f"{found.path} cannot be read: {error.strerror}.", "Check the file.") from error
    except Exception as error:
        raise InputError(f"{found.path} is damaged: {type(error).__name__}.", "Fetch the file again.") from error
    data = buffer.getvalue()
    return data[read_meta(BytesIO(data)).offset :]


def _replace(ds: Dataset, by: Fresh, known: set[bytes]) -> None:
    """Put other UIDs in; elements that hold none of them stay the bytes that they were."""
    for tag in list(ds.keys()):
        if int(tag) in _PIXELS:
            continue
        raw = ds.get_item(tag)
        kind = _kind(raw)
        if kind == "UI" and any(str(uid) in by for uid in _values(ds[tag].value)):
            values = [by.get(str(uid), str(uid)) for uid in _values(ds[tag].value)]
            ds[tag].value = values if len(values) > 1 else values[0]
        elif kind == "SQ" and _may_hold(raw, known):
            for item in ds[tag].value:
                _replace(item, by, known)


def _kind(raw: Any) -> str:
    from pydicom.datadict import dictionary_VR

    if raw.VR is not None:
        return str(raw.VR)
    try:
        return dictionary_VR(raw.tag)
    except KeyError:
        return "UN"


def _may_hold(raw: Any, known: set[bytes]) -> bool:
    from pydicom.dataelem import RawDataElement

    return not isinstance(raw, RawDataElement) or raw.value is None or any(uid in raw.value for uid in known)


def _values(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def _template(found: _Found, data: bytes, stand_ins: Fresh, path: Path) -> Template:
    slots = tuple(sorted(_slots(data, stand_ins)))
    if not {found.study, found.series, found.instance} <= {uid for _, uid in slots}:
        raise InputError(
            f"{found.path} cannot be sent under other UIDs: its data set is deflated.",
            "Write it in another transfer syntax first.",
        )
    with os_errors_as_resource(path):
        path.write_bytes(data)
    return Template(path, found.meta.sop_class, found.instance, found.meta.syntax, slots)


def _slots(data: bytes, stand_ins: Fresh) -> Iterator[tuple[int, str]]:
    """Every place of a stand-in: none stands there by chance, as it was drawn from 2¹²² just now."""
    by_stand_in = {stand_in.encode("ascii"): uid for uid, stand_in in stand_ins.items()}
    place = data.find(b"2.25.")
    while place >= 0:
        uid = by_stand_in.get(data[place : place + UID_LENGTH])
        if uid is not None:
            yield place, uid
        place = data.find(b"2.25.", place + 1)
