"""What a disk must keep when power goes: the log of `shim.c` replayed up to a moment, and the worst that is legal then.

A file keeps the bytes that it had when it was last synced. What was written since is lost, kept, or torn at sectors of
512 bytes, at random. A folder keeps the names that it had when it was last synced; each change since is lost or kept.
The same goes for the two halves of a rename between two folders. Synced means `fsync` of that very file or folder.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

_HEAD: Final = struct.Struct("<c3xIIIQq")
_SECTOR: Final = 512


@dataclass(frozen=True)
class Record:
    """One change, as the shim wrote it down."""

    op: str
    inode: int
    at: int
    path: str
    other: str
    data: bytes


def read_log(path: Path) -> Iterator[Record]:
    """All changes in their order; the last may be cut off, as its process was."""
    raw = path.read_bytes()
    place = 0
    while place + _HEAD.size <= len(raw):
        op, *lengths, inode, at = _HEAD.unpack_from(raw, place)
        ends = [place + _HEAD.size]
        for length in lengths:
            ends.append(ends[-1] + length)
        place = ends[-1]
        if place <= len(raw):
            name, other, data = (raw[a:b] for a, b in pairwise(ends))
            yield Record(op.decode(), inode, at, os.fsdecode(name), os.fsdecode(other), data)


@dataclass
class _File:
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # None: cut to that length
    attributes: dict[str, bytes] = field(default_factory=dict)
    synced_attributes: dict[str, bytes] = field(default_factory=dict)

    def sync(self) -> None:
        self.synced, self.synced_attributes = bytes(self.data), dict(self.attributes)
        self.pending.clear()

    def survives(self, chance: float, dice: random.Random) -> bytes:
        data = bytearray(self.synced)
        for at, piece in self.pending:
            if dice.random() >= chance:
                continue
            if piece is None:
                _cut(data, at)
            elif dice.random() < 0.5:
                _put(data, at, piece)
            else:
                _tear(data, at, piece, dice)
        return bytes(data)


@dataclass
class _Folder:
    names: dict[str, _File | _Folder] = field(default_factory=dict)
    synced: dict[str, _File | _Folder] = field(default_factory=dict)
    pending: list[dict[str, _File | _Folder | None]] = field(default_factory=list)

    def change(self, changes: dict[str, _File | _Folder | None]) -> None:
        self.pending.append(changes)
        _apply(self.names, changes)

    def sync(self) -> None:
        self.synced = dict(self.names)
        self.pending.clear()

    def survives(self, chance: float, dice: random.Random) -> dict[str, _File | _Folder]:
        names = dict(self.synced)
        for changes in self.pending:
            if dice.random() < chance:
                _apply(names, changes)
        return names


class Disk:
    """The files below a root, and what of them is safe.

    Args:
        root: as the processes knew it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._top = _Folder()
        self._inodes: dict[int, _File | _Folder] = {root.stat().st_ino: self._top}
        self.acknowledged: list[str] = []

    def replay(self, record: Record) -> None:
        """One more change; the methods are named by the shim's letters."""
        getattr(self, f"_do_{record.op}")(record)

    def rebuild(self, target: Path, chance: float, dice: random.Random) -> None:
        """Write what survives a power cut now.

        Args:
            target: an empty folder.
            chance: of what was not synced to survive; 0 is the strictest disk.
            dice: decide.
        """
        self._write(self._top, target, chance, dice, {})

    def _write(
        self, folder: _Folder, target: Path, chance: float, dice: random.Random, written: dict[int, Path]
    ) -> None:
        for name, node in folder.survives(chance, dice).items():
            path = target / name
            if isinstance(node, _Folder):
                path.mkdir()
                self._write(node, path, chance, dice, written)
            elif id(node) in written:  # another name of a file
                path.hardlink_to(written[id(node)])
            elif not name.endswith("-shm"):  # shared memory, which no power cut leaves behind
                written[id(node)] = path
                path.write_bytes(node.survives(chance, dice))
                path.chmod(0o600)  # modes are not in the log; keys are refused where others may read them
                for key, value in node.synced_attributes.items():
                    os.setxattr(path, key, value)

    def _find(self, path: str) -> tuple[_Folder, str]:
        *parents, name = Path(path).relative_to(self._root).parts
        folder = self._top
        for part in parents:
            below = folder.names[part]
            assert isinstance(below, _Folder)
            folder = below
        return folder, name

    def _file(self, record: Record) -> _File:
        found = self._inodes[record.inode]
        assert isinstance(found, _File)
        return found

    def _do_C(self, record: Record) -> None:
        made = self._inodes[record.inode] = _File()
        folder, name = self._find(record.path)
        folder.change({name: made})

    def _do_M(self, record: Record) -> None:
        made = self._inodes[record.inode] = _Folder()
        folder, name = self._find(record.path)
        folder.change({name: made})

    def _do_W(self, record: Record) -> None:
        file = self._file(record)
        _put(file.data, record.at, record.data)
        file.pending.append((record.at, record.data))

    def _do_T(self, record: Record) -> None:
        file = self._file(record)
        _cut(file.data, record.at)
        file.pending.append((record.at, None))

    def _do_S(self, record: Record) -> None:
        self._inodes[record.inode].sync()

    def _do_X(self, record: Record) -> None:
        self._file(record).attributes[record.other] = record.data

    def _do_R(self, record: Record) -> None:
        source, old = self._find(record.path)
        target, new = self._find(record.other)
        node = source.names[old]
        if source is target:
            source.change({old: None, new: node})
        else:
            target.change({new: node})
            source.change({old: None})

    def _do_L(self, record: Record) -> None:
        source, old = self._find(record.path)
        target, new = self._find(record.other)
        target.change({new: source.names[old]})

    def _do_U(self, record: Record) -> None:
        folder, name = self._find(record.path)
        folder.change({name: None})

    def _do_A(self, record: Record) -> None:
        self.acknowledged.append(record.data.decode())


def _apply(names: dict[str, _File | _Folder], changes: dict[str, _File | _Folder | None]) -> None:
    for name, node in changes.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _put(data: bytearray, at: int, piece: bytes) -> None:
    if len(data) < at:
        data.extend(bytes(at - len(data)))
    data[at : at + len(piece)] = piece


def _cut(data: bytearray, length: int) -> None:
    if length < len(data):
        del data[length:]
    else:
        data.extend(bytes(length - len(data)))


def _tear(data: bytearray, at: int, piece: bytes, dice: random.Random) -> None:
    """Some sectors of a write reach the disk."""
    place = 0
    while place < len(piece):
        end = min(len(piece), (at + place) // _SECTOR * _SECTOR + _SECTOR - at)
        if dice.random() < 0.5:
            _put(data, at + place, piece[place:end])
        place = end
