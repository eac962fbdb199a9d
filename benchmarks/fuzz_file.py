"""Damaged DICOM files: sent by C-STORE as the images that they say they are, and dropped into a watched folder."""

from __future__ import annotations

import io
import random
import struct
from functools import cache
from pathlib import Path

import pydicom.data
from pydicom.uid import generate_uid

from benchmarks.fuzz import Bedside, settle, until
from benchmarks.fuzz_pdu import held_against, talk
from edgemed.base.errors import EdgemedError
from edgemed.imaging.dicom.identity import look
from edgemed.imaging.dicom.part10 import read_meta
from edgemed.imaging.dicom.syntaxes import SYNTAXES
from edgemed.serve.dicom.contexts import IMAGES
from tests.serve import kit
from tests.serve.dicom import rig

MOST_BYTES = 200_000
Sample = tuple[str, str, str, bytes, bytes]  # SOP class, SOP instance, syntax, meta information, data set


@cache
def samples() -> list[Sample]:
    """Files in pydicom's package that are images in a syntax that we read, and images of ours."""
    found = []
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*.dcm")):
        data = path.read_bytes() if path.stat().st_size < MOST_BYTES else b""
        try:
            meta = read_meta(io.BytesIO(data))
            identity = look(data[meta.offset :], SYNTAXES[meta.syntax]).identity
        except (EdgemedError, KeyError):
            continue
        if identity.sop_class in IMAGES and identity.sop_instance and meta.sop_instance:
            body = data[meta.offset :]
            found.append((identity.sop_class, identity.sop_instance, meta.syntax, data[: meta.offset], body))
    assert len(found) > 10
    for frames in (None, 3):
        ds = kit.image(sop_class=kit.CT if frames is None else kit.US_MULTIFRAME, frames=frames, rows=16, columns=16)
        data = kit.encode(ds)
        offset = read_meta(io.BytesIO(data)).offset
        found.append((str(ds.SOPClassUID), str(ds.SOPInstanceUID), rig.EXPLICIT, data[:offset], data[offset:]))
    return found


def damaged(rng: random.Random) -> tuple[str, str, str, bytes, bytes]:
    """One of them under a UID of its own, damaged: bytes, lengths, tags, pieces left out or twice, its end."""
    sop_class, instance, syntax, meta, body = rng.choice(samples())
    unique = str(generate_uid(entropy_srcs=[str(rng.random())]))[: len(instance)].rstrip(".").ljust(len(instance), "1")
    meta, body = (part.replace(instance.encode(), unique.encode()) for part in (meta, body))
    data = bytearray(body)
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        if not data:  # its end was cut off at its beginning
            break
        at = rng.randrange(min(len(data), rng.choice((200, 2000, len(data)))))
        what = rng.randrange(6)
        if what == 0:
            data[at] = rng.randrange(256)
        elif what == 1:
            data[at : at + 4] = rng.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", struct.pack("<L", rng.randrange(1 << 31)))
            )
        elif what == 2:
            del data[at : at + rng.randrange(1, 64)]
        elif what == 3:
            data[at:at] = data[at : at + rng.randrange(1, 64)]
        elif what == 4:
            data[at : at + 8] = rng.randbytes(8)
        else:
            del data[max(at, 8) :]
    return sop_class, unique, syntax, meta, bytes(data)


class FileTarget:
    """See `Target`: by C-STORE."""

    name = "file"

    def __init__(self) -> None:
        self.answered = 0
        self._answers: dict[str, list[int]] = {}

    def make(self, rng: random.Random) -> tuple[str, list[bytes]]:
        sop_class, instance, syntax, _, body = damaged(rng)
        pieces = [body[at : at + 30000] for at in range(0, len(body), 30000)] or [b""]
        return instance, [
            rig.associate((sop_class, [syntax]), calling="FUZZER"),
            rig.p_data((1, 3, rig.store_command(sop_class, instance))),
            *(rig.p_data((1, 2 if n == len(pieces) - 1 else 0, piece)) for n, piece in enumerate(pieces)),
            rig.RELEASE,
        ]

    def send(self, bedside: Bedside, data: object) -> None:
        assert isinstance(data, tuple)
        instance, pdus = data
        said = talk(bedside.dicom, pdus)
        self._answers.setdefault(instance, []).extend(status for _, status in said)

    def unaccounted(self, bedside: Bedside) -> list[str]:
        self.answered = sum(map(len, self._answers.values()))
        silent = [f"{uid} got no answer." for uid, statuses in self._answers.items() if not statuses]
        return silent + held_against(bedside, self._answers)


class FolderTarget:
    """See `Target`: whole files in a watched folder. Each leaves it, or there is an alarm and it is put aside."""

    name = "folder"

    def __init__(self) -> None:
        self.answered = 0
        self._dropped = 0

    def make(self, rng: random.Random) -> bytes:
        _, _, _, meta, body = damaged(rng)
        data = bytearray(meta + body)
        if rng.random() < 0.3:
            data[rng.randrange(len(meta))] = rng.randrange(256)
        return bytes(data)

    def send(self, bedside: Bedside, data: object) -> None:
        assert isinstance(data, bytes)
        self._dropped += 1
        part = bedside.folder / "part"
        part.write_bytes(data)
        part.rename(bedside.inbox / f"{self._dropped}.dcm")

    def unaccounted(self, bedside: Bedside) -> list[str]:
        if not until(lambda: not any(bedside.inbox.glob("*.dcm"))):
            return [f"{path.name} lies where it was put." for path in bedside.inbox.glob("*.dcm")]
        (entered,) = bedside.rows("SELECT count(*) + total(repeats) FROM object WHERE inlet = 'inbox'")[0]
        self.answered = int(float(str(entered)))
        aside = len(list((bedside.inbox / "rejected").glob("*")))
        missing = self._dropped - aside - self.answered
        return [*settle(bedside), *[f"{missing} dropped files are nowhere."] * (missing > 0)]
