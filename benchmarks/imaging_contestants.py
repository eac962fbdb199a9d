"""One contestant of `make bench-imaging` at one task, in a process of its own: prints what it took, keeps its result.

`python imaging_contestants.py CONTESTANT TASK FOLDER RESULT.npy ROUNDS`. Imports and one warm-up run are not counted.
Every contestant reads the same files and does the same work; each as its own documentation shows it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

LOW, HIGH = 200.0, 3200.0
"""The radiograph's window: shown from black to white; one grey level is 1 / (HIGH - LOW) of that."""
SIZE = 512


def edgemed_cr() -> Callable[[Path], np.ndarray]:
    """The product's own path: contract, reader, recipe."""
    from edgemed.base.runner import TensorSpec
    from edgemed.imaging.samples import SampleReader
    from edgemed.recipe.schema import Recipe

    steps = [{"op": "window", "low": LOW, "high": HIGH}, {"op": "resize", "size": [SIZE, SIZE], "filter": "area"}]
    recipe = Recipe.model_validate({"input": {"color": "gray", "steps": steps}})
    reader = SampleReader([TensorSpec("image", "float32", (1, SIZE, SIZE, 1))], recipe, {"image": "NHWC"})
    return lambda path: reader.read(path)["image"][0, ..., 0]


def skimage_cr() -> Callable[[Path], np.ndarray]:
    """pydicom and scikit-image; the fastest of its functions that averages areas."""
    import pydicom
    from pydicom.pixels import apply_modality_lut
    from skimage.transform import downscale_local_mean

    def run(path: Path) -> np.ndarray:
        dataset = pydicom.dcmread(path)
        values = apply_modality_lut(dataset.pixel_array, dataset)
        shown = np.clip((values - LOW) / (HIGH - LOW), 0, 1)
        return downscale_local_mean(shown, (shown.shape[0] // SIZE, shown.shape[1] // SIZE)).astype(np.float32)

    return run


def skimage_usual_cr() -> Callable[[Path], np.ndarray]:
    """pydicom and `skimage.transform.resize`, which most scripts call: another filter, told for comparison only."""
    import pydicom
    from pydicom.pixels import apply_modality_lut
    from skimage.transform import resize

    def run(path: Path) -> np.ndarray:
        dataset = pydicom.dcmread(path)
        values = apply_modality_lut(dataset.pixel_array, dataset)
        shown = np.clip((values - LOW) / (HIGH - LOW), 0, 1)
        return resize(shown, (SIZE, SIZE), anti_aliasing=True).astype(np.float32)

    return run


def monai_cr() -> Callable[[Path], np.ndarray]:
    """MONAI's transforms with its pydicom reader, which is the faster one for a single file."""
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Resize, ScaleIntensityRange

    run = Compose([
        LoadImage(reader="PydicomReader", image_only=True),
        EnsureChannelFirst(),
        ScaleIntensityRange(LOW, HIGH, 0.0, 1.0, clip=True),
        Resize((SIZE, SIZE), mode="area"),
    ])  # fmt: skip
    return lambda path: np.asarray(run(str(path)))[0].T


def edgemed_ct() -> Callable[[Path], np.ndarray]:
    """The product's series reader: order, geometry and its checks."""
    from edgemed.imaging.series import read_series, series_files

    return lambda folder: read_series(series_files(folder)).pixels


def pydicom_ct() -> Callable[[Path], np.ndarray]:
    """The script that most write: read, sort, stack; nothing is checked."""
    import pydicom

    def run(folder: Path) -> np.ndarray:
        slices = [pydicom.dcmread(path) for path in folder.iterdir()]
        slices.sort(key=lambda dataset: float(dataset.ImagePositionPatient[2]))
        return np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in slices])

    return run


def _monai_ct(reader: str) -> Callable[[Path], np.ndarray]:
    from monai.transforms import LoadImage

    load = LoadImage(reader=reader, image_only=True)
    return lambda folder: np.asarray(load(str(folder))).transpose(2, 1, 0)


def monai_pydicom_ct() -> Callable[[Path], np.ndarray]:
    """MONAI with its pydicom reader."""
    return _monai_ct("PydicomReader")


def monai_itk_ct() -> Callable[[Path], np.ndarray]:
    """MONAI with its ITK reader."""
    return _monai_ct("ITKReader")


def peak_mb() -> float:
    """Most memory this process held; `ru_maxrss` would be that of the process it was forked from, if that was more."""
    (line,) = (text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Run, measure, print one JSON line."""
    contestant, task, folder, result, rounds = sys.argv[1:6]
    run: Callable[[Path], np.ndarray] = globals()[f"{contestant}_{task}"]()
    items = sorted(Path(folder).iterdir()) if task == "cr" else [Path(folder)]
    np.save(result, run(items[0]))  # also warms up
    before = peak_mb()
    cpu_ns, wall_ns = [], []
    for _ in range(int(rounds)):
        start = time.process_time_ns(), time.perf_counter_ns()
        for item in items:
            run(item)
        cpu_ns.append((time.process_time_ns() - start[0]) / len(items))
        wall_ns.append((time.perf_counter_ns() - start[1]) / len(items))
    figures = {"cpu_ms": np.median(cpu_ns) / 1e6, "wall_ms": np.median(wall_ns) / 1e6}
    print(json.dumps({**figures, "peak_mb": peak_mb(), "warm_mb": before}))


if __name__ == "__main__":
    main()
