"""One data set becomes another: the rows of the profile applied, element by element, sequences included."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgemed.base.errors import InputError
from edgemed.base.lazy import require
from edgemed.imaging.deid.identity import Identities, shifted
from edgemed.imaging.deid.options import Options
from edgemed.imaging.deid.report import Done, Recorder
from edgemed.imaging.deid.table import Action, Row, profile, type_of
from edgemed.imaging.deid.values import (
    BYTES,
    DATES,
    FREE_TEXT,
    NUMBERS,
    STRUCTURAL,
    dummy,
    known_text,
    meaning_of,
    strings,
    well_formed,
    well_known_uid,
)

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

MAX_DEPTH: Final = 24
_CODE: Final = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
PSEUDONYMOUS: Final = ("PatientID", "PatientName")
_PLACEHOLDER: Final = ("REMOVED", "99EDGEMED", "Removed")  # 99...: a private scheme (PS3.16 chapter 8)
_PIXELS: Final = frozenset(
    ("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")
)
_PALETTES: Final = frozenset(
    f"{segmented}{color}PaletteColorLookupTableData"
    for segmented in ("", "Segmented")
    for color in ("Red", "Green", "Blue", "Alpha")
)
_LUT_SEQUENCES: Final = ("ModalityLUTSequence", "VOILUTSequence")
_UNLISTED: Final = Row("", "X/Z/D", {}, "")
_DONE: Final[dict[Action, Done]] = {
    "X": "removed",
    "Z": "emptied",
    "D": "replaced",
    "U": "new-uid",
    "K": "kept",
    "S": "shifted",
}


@dataclass(frozen=True)
class Verdict:
    """What happens to an element, and why; `noted` is false for what nobody needs to read about."""

    action: Action
    why: str
    noted: bool = True


@dataclass(frozen=True)
class Place:
    """Where an element lies: `path` from the top, and the keyword of the sequence it is in."""

    path: str = ""
    parent: str | None = None
    depth: int = 0

    def of(self, name: str) -> str:
        """The path of an element here."""
        return f"{self.path}/{name}" if self.path else name

    def into(self, name: str) -> Place:
        """Inside a sequence here.

        Raises:
            InputError: deeper than any real file goes.
        """
        if self.depth + 1 > MAX_DEPTH:
            raise InputError(f"Its sequences are nested more than {MAX_DEPTH} deep.", "Check the file.")
        return Place(self.of(name), name, self.depth + 1)


@dataclass
class Cleaner:
    """Applies the profile.

    Args:
        options: what is kept beyond it.
        identities: makes pseudonyms and UIDs.
        sop_class: SOP Class UID, which decides the types of attributes.
        days: that dates move.
        echoes: the person's names and numbers, upper case; text that repeats one goes, wherever it stands.
        recorder: takes the report.
        palette: whether pixels are indices into a palette, which then stays.
    """

    options: Options
    identities: Identities
    sop_class: str
    days: int
    echoes: frozenset[str]
    recorder: Recorder
    palette: bool = False

    def dataset(self, source: Dataset, place: Place) -> Dataset:
        """A cleaned copy; pixel data and other unchanged values are shared with the source, not copied."""
        cleaned: Dataset = require("pydicom", extra="imaging", purpose="read DICOM").Dataset()
        for tag, element in elements(source):
            group, number = tag >> 16, tag & 0xFFFF
            if group in (0x0000, 0x0002) or number == 0:  # group lengths, and what belongs before the data set
                continue
            kept = self._private(source, tag, element, place) if group % 2 else self._standard(tag, element, place)
            if kept is not None:
                cleaned.add(kept)
        self._keep_creators(source, cleaned)
        return cleaned

    def _standard(self, tag: int, element: DataElement | None, place: Place) -> DataElement | None:
        keyword = _keyword(tag)
        if element is None:
            verdict, vr = Verdict("X", "its value cannot be read"), "UN"
        else:
            vr = str(element.VR)
            verdict = self._judge(tag, keyword, element, place)
        name = keyword or _tag_text(tag)
        if verdict.noted:
            self.recorder.add(place.of(name), tag, vr, _DONE[verdict.action], verdict.why)
        return None if element is None else self._apply(verdict.action, element, place.into(name))

    def _judge(self, tag: int, keyword: str, element: DataElement, place: Place) -> Verdict:
        row = profile().find(tag)
        if keyword in PSEUDONYMOUS and place.parent is None and self.options.pseudonym:
            return Verdict("X", "", noted=False)  # the pseudonym is put there at the end
        kind = type_of(keyword, parent=place.parent, sop_class=self.sop_class)
        if row is None:
            return self._unlisted(tag, keyword, element, kind, place)
        chosen = self.options.chosen(row)
        if chosen is None:
            return Verdict(row.resolve(kind), f"profile {row.action}")
        action, option = chosen
        if action == "K" and element.VR != "SQ" and not self._sound(tag, element):
            return Verdict(row.resolve(kind), f"option {option}, but the value is not what its VR says")
        return Verdict(action, f"option {option}")

    def _unlisted(self, tag: int, keyword: str, element: DataElement, kind: int, place: Place) -> Verdict:
        """What the table does not name is kept by the profile; here only where it cannot hold words."""
        vr = str(element.VR)
        gone = _UNLISTED.resolve(kind)
        if not keyword:
            return Verdict("X", "not in the data dictionary")
        if vr == "SQ":
            return Verdict("K", "", noted=False)
        if not self._sound(tag, element):
            return Verdict(gone, "the value is not what its VR says")
        if not BYTES.isdisjoint(vr.split(" or ")) and not self._is_image(keyword, place):
            return Verdict("X", "bytes that the image does not need")
        if vr == "UI":
            known = all(well_known_uid(uid) for uid in strings(element.value))
            kept = known or self.options.retain_uids
            return Verdict("K", "", noted=False) if kept else Verdict("U", "a UID that the standard did not give")
        if vr in DATES:
            moves: dict[str, Action] = {"remove": gone, "shift": "S", "keep": "K"}
            return Verdict(moves[self.options.dates], "dates that the table does not name")
        if self._echoes(keyword, element):
            return Verdict(gone, "repeats a name or number of the patient")
        if vr in FREE_TEXT and not self._may_stay(keyword, element):
            return Verdict(gone, "free text that the table does not name")
        return Verdict("K", "", noted=False)

    def _is_image(self, keyword: str, place: Place) -> bool:
        """Whether bytes are pixels, or tables that pixels go through; in others, anything may be written."""
        if keyword == "LUTData":
            return place.parent in _LUT_SEQUENCES
        return place.parent is None and (keyword in _PIXELS or (self.palette and keyword in _PALETTES))

    def _may_stay(self, keyword: str, element: DataElement) -> bool:
        if keyword in _CODE and element.VR != "UN":  # `_coded` checks the whole triplet
            return True
        if self.options.unlisted_text == "keep" and element.VR not in ("UN", "PN"):
            return True
        return known_text(keyword, strings(element.value))

    def _sound(self, tag: int, element: DataElement) -> bool:
        vr = str(element.VR)
        expected = _dictionary_vrs(tag)
        have = frozenset(vr.split(" or "))  # as pydicom says it of what was set in memory and not yet written
        same = have <= expected or (have <= NUMBERS and not NUMBERS.isdisjoint(expected))
        return same and well_formed(vr, _texts(vr, element))

    def _echoes(self, keyword: str, element: DataElement) -> bool:
        if keyword in STRUCTURAL or (element.VR != "CS" and element.VR not in FREE_TEXT):
            return False
        return any(echo in value.upper() for value in strings(element.value) for echo in self.echoes)

    def _apply(self, action: Action, element: DataElement, inside: Place) -> DataElement | None:
        if action == "X":
            return None
        if element.VR == "SQ" and action in ("K", "U", "S"):
            return _with(element, self._items(element, inside))
        if action == "K":
            return _with(element, element.value)
        if action == "U" and element.VR == "UI":
            return _with(element, _each(element, self._uid))
        if action == "S":
            return _with(element, self._moved(element))
        if action == "Z":
            return _with(element, [] if element.VR == "SQ" else None)
        return self._dummy(element, inside)

    def _items(self, element: DataElement, inside: Place) -> list[Dataset]:
        items = [self.dataset(item, inside) for item in element.value]
        return [coded for item in items if (coded := self._coded(item, inside)) is not None]

    def _coded(self, item: Dataset, inside: Place) -> Dataset | None:
        """A code that the dictionaries know keeps their words for it; another is no better than free text."""
        if "CodingSchemeDesignator" not in item and not any(keyword in item for keyword in _CODE):
            return item
        if self.options.unlisted_text == "keep":
            return item
        scheme, code = str(item.get("CodingSchemeDesignator", "")), str(item.get("CodeValue", ""))
        meaning = meaning_of(scheme, code) if scheme and code else None
        if meaning is None:
            self.recorder.add(inside.path, _tag_of(inside.parent), "SQ", "cleaned", "a code that is in no dictionary")
            scheme, code, meaning = _PLACEHOLDER[1], _PLACEHOLDER[0], _PLACEHOLDER[2]
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, scheme, meaning[:64]
        return item

    def _uid(self, uid: str) -> str:
        known = not uid or (well_known_uid(uid) and well_formed("UI", [uid]))
        return uid if known else self.identities.uid(uid)

    def _moved(self, element: DataElement) -> Any:
        if element.VR == "TM":
            values = strings(element.value)
            return element.value if well_formed("TM", values) else None
        if element.VR not in ("DA", "DT") or not well_formed(str(element.VR), strings(element.value)):
            return None
        moved = [shifted(value, self.days) for value in strings(element.value)]
        return None if None in moved or not moved else moved if len(moved) > 1 else moved[0]

    def _dummy(self, element: DataElement, inside: Place) -> DataElement:
        """A stand-in: of a sequence one item of stand-ins, so that not even the number of items tells."""
        vr = str(element.VR)
        if vr == "SQ":
            items = [self._dummies(item, inside) for item in list(element.value)[:1]]
            return _with(element, items)
        if vr == "UI":
            return _with(element, _each(element, self.identities.uid))
        return _with(element, dummy(vr))

    def _dummies(self, item: Dataset, inside: Place) -> Dataset:
        stand_in: Dataset = require("pydicom", extra="imaging", purpose="read DICOM").Dataset()
        for tag, element in elements(item):
            if element is None or (tag >> 16) % 2 or tag & 0xFFFF == 0:
                continue
            name = _keyword(tag) or _tag_text(tag)
            well_known = element.VR == "UI" and all(well_known_uid(uid) for uid in strings(element.value))
            stand_in.add(_with(element, element.value) if well_known else self._dummy(element, inside.into(name)))
        return stand_in

    def _private(self, source: Dataset, tag: int, element: DataElement | None, place: Place) -> DataElement | None:
        if element is not None and self._is_safe(source, tag):
            self.recorder.add(place.of(_tag_text(tag)), tag, str(element.VR), "kept", "option safe_private")
            return self._apply("K", element, place.into(_tag_text(tag)))
        vr = "UN" if element is None else str(element.VR)
        self.recorder.add(place.of(_tag_text(tag)), tag, vr, "removed", "profile X, private")
        return None

    def _is_safe(self, source: Dataset, tag: int) -> bool:
        group, number = tag >> 16, tag & 0xFFFF
        block = number >> 8
        if block < 0x10:  # the creators themselves
            return False
        creator = str(source[group, block].value or "").strip() if (group, block) in source else ""
        wanted = self.options.safe_private
        return any((s.group, s.creator, s.element) == (group, creator, number & 0xFF) for s in wanted)

    def _keep_creators(self, source: Dataset, cleaned: Dataset) -> None:
        """Blocks of private elements that stay need their creator beside them."""
        for tag in [tag for tag in cleaned.keys() if tag.group % 2]:  # noqa: SIM118 - a data set iterates its elements
            creator = (tag.group, tag.element >> 8)
            if creator not in cleaned:
                cleaned.add(_with(source[creator], source[creator].value))


def elements(source: Dataset) -> Iterator[tuple[int, DataElement | None]]:
    """Tags and elements in order; `None` for an element that pydicom cannot make sense of."""
    for tag in sorted(source.keys()):
        yield int(tag), _element(source, tag)


def _element(source: Dataset, tag: Any) -> DataElement | None:
    try:
        element: DataElement = source[tag]
        element.value  # noqa: B018 - values are converted when first asked for
    except Exception:  # pydicom raises whatever a hostile value provokes
        return None
    return element


def _with(element: DataElement, value: Any) -> DataElement:
    """A copy of an element with another value, of which pydicom asks no further questions."""
    made = copy.copy(element)
    if element.VR == "SQ":
        value = require("pydicom.sequence", extra="imaging", purpose="read DICOM").Sequence(value)
    if element.VR == "PN" and isinstance(value, str):
        value = require("pydicom.valuerep", extra="imaging", purpose="read DICOM").PersonName(value)
    made._value = element.empty_value if value is None else value
    return made


def _each(element: DataElement, change: Any) -> Any:
    values = [change(uid) for uid in strings(element.value)]
    uid = require("pydicom.uid", extra="imaging", purpose="read DICOM").UID
    made = [uid(value) for value in values]
    return made if len(made) > 1 else made[0] if made else None


def _texts(vr: str, element: DataElement) -> list[str]:
    """Text of VRs that have a form; nothing is rendered of the others, which may be large."""
    return strings(element.value) if vr in ("AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI") else []


def _keyword(tag: int) -> str:
    keyword: str = require("pydicom.datadict", extra="imaging", purpose="read DICOM").keyword_for_tag(tag)
    return keyword


def _tag_of(keyword: str | None) -> int:
    tag = require("pydicom.datadict", extra="imaging", purpose="read DICOM").tag_for_keyword(keyword or "")
    return int(tag or 0)


def _dictionary_vrs(tag: int) -> frozenset[str]:
    datadict = require("pydicom.datadict", extra="imaging", purpose="read DICOM")
    try:
        return frozenset(datadict.dictionary_VR(tag).split(" or "))
    except KeyError:
        return frozenset()


def _tag_text(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
