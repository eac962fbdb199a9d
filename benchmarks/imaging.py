"""The imaging front end beside pydicom with scikit-image, and MONAI: `make bench-imaging`.

Two tasks, the same work for all: a 2048 × 2048 radiograph of 16 bits, uncompressed, becomes 512 × 512 float32 by window
and area mean; a CT series becomes a volume in Hounsfield units. MONAI wants PyTorch: it gets a virtual environment of
its own under `$EDGEMED_BENCH_CACHE` (`~/.cache/edgemed-bench`), about 2.7 GB. Contestants take turns; the bar is
images per second of CPU time, the median of the turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

REPO = Path(__file__).resolve().parent.parent
WORK = REPO / "benchmarks" / "imaging_contestants.py"
CACHE = Path(os.environ.get("EDGEMED_BENCH_CACHE") or Path.home() / ".cache" / "edgemed-bench")
MONAI = ("torch==2.13.0", "monai==1.6.1", "pydicom==3.0.2", "itk==5.4.7", "scikit-image==0.26.0")
TURNS, ROUNDS = 5, 3
FILES, SIDE = 8, 2048
SLICES = 120

CR = {
    "edgemed": "edgemed",
    "pydicom + skimage downscale_local_mean": "skimage",
    "pydicom + skimage resize (another filter)": "skimage_usual",
    "MONAI, PydicomReader, area": "monai",
}
CT = {
    "edgemed": "edgemed",
    "pydicom, sorted and stacked, unchecked": "pydicom",
    "MONAI, PydicomReader": "monai_pydicom",
    "MONAI, ITKReader": "monai_itk",
}


def monai_python() -> Path:
    """The Python of MONAI's environment, which is made if there is none."""
    folder = CACHE / "monai"
    python = folder / "bin" / "python"
    works = [python, "-c", "import monai, torch, itk, pydicom, skimage"]
    if not python.exists() or subprocess.run(works, capture_output=True, check=False).returncode:
        print(f"Installing MONAI below {folder}: 2.7 GB.", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *MONAI], check=True)
    return python


def template(name: str) -> pydicom.Dataset:
    """A real header, which costs what real headers cost to read."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), f"{name} comes with pydicom-data: make venv"
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def write_radiographs(folder: Path) -> None:
    """A real chest film of 1955 × 1841, stretched to 2048 × 2048; each file with other noise."""
    dataset = template("RG1_UNCR.dcm")
    film = dataset.pixel_array
    rows, columns = (np.arange(SIDE) * side // SIDE for side in film.shape)
    film = film[rows][:, columns] >> 3  # 15 bits to 12
    dataset.Rows = dataset.Columns = SIDE
    dataset.BitsStored, dataset.HighBit, dataset.PhotometricInterpretation = 12, 11, "MONOCHROME2"
    for key in ("PixelPaddingValue", "SmallestImagePixelValue", "LargestImagePixelValue"):
        dataset.pop(key, None)
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "0"
    rng = np.random.default_rng(0)
    for index in range(FILES):
        noisy = np.clip(film + rng.integers(-20, 20, film.shape), 0, 4095).astype("<u2")
        dataset.PixelData = noisy.tobytes()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(index)])
        dataset.save_as(folder / f"{index}.dcm", enforce_file_format=True)


def write_series(folder: Path) -> None:
    """The header of a real CT slice, 120 of them in random order, 512 × 512."""
    dataset = template("CT_small.dcm")
    dataset.Rows = dataset.Columns = 512
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.PixelRepresentation = "1", "-1024", 1
    for key in ("PixelPaddingValue", "SmallestImagePixelValue", "LargestImagePixelValue"):
        dataset.pop(key, None)
    rng = np.random.default_rng(0)
    for place, index in enumerate(rng.permutation(SLICES)):
        dataset.ImagePositionPatient = [-158.1, -179.0, float(place) * 2.5]
        dataset.InstanceNumber = place + 1
        dataset.PixelData = rng.integers(0, 3000, (512, 512), dtype="<i2").tobytes()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(place)])
        dataset.save_as(folder / f"{index:04d}.dcm", enforce_file_format=True)


def turn(contestant: str, task: str, folder: Path, scratch: Path, monai: Path) -> tuple[dict[str, float], np.ndarray]:
    """One turn of one contestant: what it took, and what came out."""
    python = monai if contestant.startswith("monai") else Path(sys.executable)
    result = scratch / f"{contestant}_{task}.npy"
    command = [python, WORK, contestant, task, folder, result, str(ROUNDS)]
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    if done.returncode:
        raise SystemExit(f"{contestant} failed at {task}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1]), np.load(result)


def contest(task: str, contestants: dict[str, str], folder: Path, scratch: Path, monai: Path) -> dict[str, float]:
    """All turns; prints a row for each contestant, returns the median CPU ms of each and the largest difference."""
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    results: dict[str, np.ndarray] = {}
    for _ in range(TURNS):
        for name, contestant in contestants.items():
            figures, results[name] = turn(contestant, task, folder, scratch, monai)
            turns[name].append(figures)
    for name in contestants:
        row = [statistics.median(t[key] for t in turns[name]) for key in ("cpu_ms", "wall_ms", "peak_mb")]
        # over what the process held after its first run: what more of the same work adds
        more = statistics.median(t["peak_mb"] - t["warm_mb"] for t in turns[name])
        off = float(np.abs(results[name].astype(np.float64) - results["edgemed"]).max())
        print(f"| {task} | {name} | {row[0]:.1f} | {row[1]:.1f} | {row[2]:.0f} | {more:.0f} | {off:.3g} |", flush=True)
    ratios = {
        contestants[name]: statistics.median(
            theirs["cpu_ms"] / ours["cpu_ms"] for ours, theirs in zip(turns["edgemed"], turns[name], strict=True)
        )
        for name in contestants
    }
    comparable = [name for name in contestants if contestants[name] != "skimage_usual"]
    ratios["diff"] = max(float(np.abs(results[n].astype(np.float64) - results["edgemed"]).max()) for n in comparable)
    return ratios


def main() -> None:
    """Make the data, run the turns, print one table and the BENCH line."""
    sys.path.insert(0, str(REPO))
    from benchmarks.imaging_contestants import HIGH, LOW

    monai = monai_python()
    print("| task | by | CPU ms | wall ms | peak MB | growth MB | max difference from ours |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        films, series = Path(scratch) / "films", Path(scratch) / "series"
        films.mkdir()
        series.mkdir()
        write_radiographs(films)
        write_series(series)
        cr = contest("cr", CR, films, Path(scratch), monai)
        ct = contest("ct", CT, series, Path(scratch), monai)
    print(f"The series makes {SLICES * 512 * 512 * 2 / 1e6:.0f} MB as int16.")
    figures = {
        "cr_vs_skimage": round(cr["skimage"], 2),
        "cr_vs_monai": round(cr["monai"], 2),
        "ct_vs_monai": round(min(ct["monai_pydicom"], ct["monai_itk"]), 2),
        "max_grey_diff": round(max(cr["diff"] * (HIGH - LOW), ct["diff"]), 4),
    }
    print("BENCH " + json.dumps({"name": "imaging", **figures}))


if __name__ == "__main__":
    main()
