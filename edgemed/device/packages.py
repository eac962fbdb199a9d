"""Which Debian packages are installed, read from dpkg's own list: no process is started."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from edgemed.device.sysfs import Tree

STATUS: Final = "var/lib/dpkg/status"
_MOST_BYTES: Final = 64 << 20  # JetPack's list with a desktop is about 4 MB
_VERSION: Final = re.compile(r"(?:\d+:)?(\d+(?:\.\d+)*)")


def installed_packages(tree: Tree) -> Mapping[str, str]:
    """Full version of every installed package by name; empty where there is no list (another system, a container)."""
    data = tree.data(STATUS, _MOST_BYTES) or b""
    return dict(_installed(data.decode(errors="replace")))


def upstream(version: str | None) -> str | None:
    """The leading numbers of a package's version: `6.2.1+b38` is `6.2.1`, `10.3.0.30-1+cuda12.5` is `10.3.0.30`."""
    match = _VERSION.match(version or "")
    return match[1] if match else None


def _installed(text: str) -> Iterator[tuple[str, str]]:
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields = dict(_fields(stanza))
        if fields.get("Status", "").endswith(" installed") and {"Package", "Version"} <= fields.keys():
            yield fields["Package"], fields["Version"]


def _fields(stanza: str) -> Iterator[tuple[str, str]]:
    """Fields on one line; what is indented continues another."""
    for line in stanza.split("\n"):
        key, colon, value = line.partition(":")
        if colon and key and not key[0].isspace():
            yield key, value.strip()
