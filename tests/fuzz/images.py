"""Coverage-guided fuzzing of everything that reads an image file: `python -m tests.fuzz.images [libFuzzer options]`.

Any file, however damaged, is read or refused with an `EdgemedError`: no other exception, no crash of a decoder, no
hang, no memory beyond the limits. Seeds are the small files of pydicom and compressed twins of one small image.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edgemed.imaging", "edgemed.recipe", "pydicom"]):
    import pydicom
    from pydicom.data import get_testdata_file

    from edgemed.base.errors import EdgemedError
    from edgemed.base.runner import TensorSpec
    from edgemed.imaging.samples import SampleReader
    from edgemed.recipe.schema import Recipe

_LARGEST_SEED = 20_000
_FIXED = ["-timeout=20", "-rss_limit_mb=3000", "-max_len=40000", "-close_fd_mask=3", "-verbosity=0"]

RECIPE = Recipe.model_validate(
    {"input": {"steps": [{"op": "window", "file": True, "otherwise": "range"}, {"op": "resize", "size": [8, 8]}]}}
)
READER = SampleReader([TensorSpec("x", "float32", (1, 8, 8, 1))], RECIPE, {"x": "NHWC"})
SUFFIXES = {0: ".dcm", 1: ".png", 2: ".nii", 3: ".npy", 4: ".npz"}


def seeds(folder: Path) -> None:
    """Write the seeds: one byte that chooses the suffix, then the file."""
    for path in sorted(Path(pydicom.data.__file__).parent.glob("test_files/*.dcm")):
        if path.stat().st_size <= _LARGEST_SEED:
            (folder / path.name).write_bytes(b"\0" + path.read_bytes())
    small = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(small, str)
    for syntax in (pydicom.uid.RLELossless, pydicom.uid.JPEG2000Lossless, pydicom.uid.JPEGLSLossless):
        dataset = pydicom.dcmread(small)
        dataset.Rows = dataset.Columns = 16
        dataset.PixelData = dataset.PixelData[: 16 * 16 * 2]
        try:
            dataset.compress(syntax)
        except RuntimeError:  # no encoder for it is installed
            continue
        target = folder / f"{syntax}.dcm"
        dataset.save_as(target, enforce_file_format=True)
        target.write_bytes(b"\0" + target.read_bytes())


def one_input(data: bytes) -> None:
    """Read one file."""
    if not data:
        return
    path = FOLDER / f"input{SUFFIXES[data[0] % len(SUFFIXES)]}"
    path.write_bytes(data[1:])
    try:
        READER.spread(path, 2)
    except EdgemedError:
        pass
    finally:
        path.unlink()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        FOLDER = Path(scratch)
        (FOLDER / "corpus").mkdir()
        seeds(FOLDER / "corpus")
        sys.stdout.write(f"{len(list((FOLDER / 'corpus').iterdir()))} seeds\n")
        sys.stdout.flush()
        atheris.Setup([sys.argv[0], *_FIXED, *sys.argv[1:], str(FOLDER / "corpus")], one_input)
        atheris.Fuzz()
