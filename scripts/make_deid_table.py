"""Write `edgemed/imaging/deid/profile.json` and `types.json`, the tables that de-identification works by.

Usage: make_deid_table.py PROFILE ANONYMIZER

PROFILE is `standard/confidentiality_profile_attributes.json` of github.com/innolitics/dicom-standard (MIT) at `COMMIT`:
Table E.1-1 of PS3.15 with its option columns. ANONYMIZER is `dicomfields_2026c.py` of dicom-anonymizer 2.1.0 on PyPI
(BSD-3-Clause): the actions of a newer edition, without options. The two are compared row by row: a row on which they
differ ends the script; rows that only the newer has are taken over, and named in the output.

The types of attributes (1, 2, 3 in each IOD) come from the tables of PS3.3 that highdicom (MIT) carries.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

FOLDER = Path(__file__).resolve().parent.parent / "edgemed" / "imaging" / "deid"
COMMIT = "7f4749d"
EDITION, NEWER = "2024e", "2026c"

OPTIONS = {
    "rtnLongFullDatesOpt": "full_dates",
    "rtnLongModifDatesOpt": "modified_dates",
    "rtnUIDsOpt": "uids",
    "rtnDevIdOpt": "device",
    "rtnPatCharsOpt": "patient",
    "rtnInstIdOpt": "institution",
}
"""Columns of the options that are offered. Clean Descriptors, Graphics and Structured Content need a reader's
judgement: without these options the profile removes what they would clean, and so do we."""

DECIDED = {"300a0054": {"uids": "K"}}
"""Options of rows that only the newer edition has: a UID is a UID, the column keeps every other one."""

PATTERNS = {"50xxxxxx": "Curve Data", "60xx3000": "Overlay Data", "60xx4000": "Overlay Comments"}
CODE = frozenset(("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning"))
"""The same in every code sequence, so not listed for each."""

TEXT = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT", "UN"))

Row = dict[str, Any]


def standard(path: Path) -> dict[str, Row]:
    """Rows of Table E.1-1 by tag (8 hex digits, `x` for any)."""
    rows = {}
    for entry in json.loads(path.read_text(encoding="utf-8")):
        tag = "private" if "odd" in entry["id"] else entry["id"]
        options = {ours: entry[theirs] for theirs, ours in OPTIONS.items() if theirs in entry}
        rows[tag] = {"name": entry["name"], "action": entry["basicProfile"], "edition": EDITION, "options": options}
    return rows


def newer(path: Path) -> dict[str, str]:
    """Actions of dicom-anonymizer by tag; its ranges of groups are our patterns, and left out."""
    spec = importlib.util.spec_from_file_location("dicomfields", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lists = {name: tags for name, tags in vars(module).items() if name.endswith("_TAGS") and name != "ALL_TAGS"}
    actions = {name[: -len("_TAGS")].replace("_STAR", "*").replace("_", "/"): tags for name, tags in lists.items()}
    return {f"{tag[0]:04x}{tag[1]:04x}": action for action, tags in actions.items() for tag in tags if len(tag) == 2}


def merged(rows: dict[str, Row], actions: dict[str, str]) -> dict[str, Row]:
    """Both, where they agree."""
    for tag, row in rows.items():
        if tag in PATTERNS or tag == "private":
            continue
        if actions.get(tag) != row["action"]:
            raise SystemExit(f"{tag} {row['name']}: {row['action']} in {EDITION}, {actions.get(tag)} in {NEWER}")
    for tag in sorted(set(actions) - set(rows)):
        name = keyword_for_tag(int(tag, 16)) or "(not in pydicom's dictionary)"
        print(f"only in {NEWER}: {tag} {actions[tag]:5} {name}")
        rows[tag] = {"name": name, "action": actions[tag], "edition": NEWER, "options": DECIDED.get(tag, {})}
    return dict(sorted(rows.items()))


def wanted(keyword: str, rows: dict[str, Row]) -> bool:
    """Whether the type decides what happens: a combined action, or text that the table does not name."""
    tag = tag_for_keyword(keyword)
    if tag is None or keyword in CODE:
        return False
    row = rows.get(f"{tag:08x}")
    return "/" in row["action"] if row else dictionary_VR(tag) in TEXT


def types(rows: dict[str, Row]) -> dict[str, Any]:
    """The strictest type of each attribute: at the top by IOD, in a sequence by the sequence."""
    iods = sorted(get_iod_module_map())
    top: dict[str, dict[str, int]] = defaultdict(dict)
    nested: dict[str, int] = {}
    modules = get_module_attribute_map()
    for iod in iods:
        for module in get_iod_module_map()[iod]:
            for attribute in modules.get(module["key"], ()):
                keyword, kind = attribute["keyword"], int(attribute["type"][0])
                if not wanted(keyword, rows):
                    continue
                if attribute["path"]:
                    key = f"{attribute['path'][-1]}/{keyword}"
                    nested[key] = min(kind, nested.get(key, 3))
                else:
                    top[keyword][iod] = min(kind, top[keyword].get(iod, 3))
    return {
        "source": "PS3.3, as highdicom carries it (MIT)",
        "sop_classes": dict(sorted(get_sop_class_iod_map().items())),
        "top": {keyword: _short(kinds) for keyword, kinds in sorted(top.items()) if min(kinds.values()) < 3},
        "nested": {key: kind for key, kind in sorted(nested.items()) if kind < 3},
    }


def _short(kinds: dict[str, int]) -> int | dict[str, list[str]]:
    """One number where all IODs that have the attribute agree."""
    if len(set(kinds.values())) == 1:
        return next(iter(kinds.values()))
    return {str(n): sorted(iod for iod, kind in kinds.items() if kind == n) for n in (1, 2) if n in kinds.values()}


def main() -> None:
    """Compare, merge and write."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    rows = merged(standard(Path(sys.argv[1])), newer(Path(sys.argv[2])))
    source = {
        EDITION: f"PS3.15 {EDITION} Table E.1-1, from github.com/innolitics/dicom-standard at {COMMIT} (MIT)",
        NEWER: f"rows that PS3.15 {NEWER} adds, from dicom-anonymizer 2.1.0 (BSD-3-Clause); without option columns",
    }
    (FOLDER / "profile.json").write_text(_lines(source, rows), encoding="utf-8")
    (FOLDER / "types.json").write_text(_type_lines(types(rows)), encoding="utf-8")


def _lines(source: dict[str, str], rows: dict[str, Row]) -> str:
    body = ",\n".join(f"  {json.dumps(tag)}: {json.dumps(row, ensure_ascii=False)}" for tag, row in rows.items())
    return f'{{\n "source": {json.dumps(source)},\n "rows": {{\n{body}\n }}\n}}\n'


def _type_lines(document: dict[str, Any]) -> str:
    parts = [f' "source": {json.dumps(document["source"])}']
    for name in ("sop_classes", "top", "nested"):
        body = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in document[name].items())
        parts.append(f' "{name}": {{\n{body}\n }}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main()
