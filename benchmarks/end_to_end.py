"""From the modality's first byte to the result at the PACS: `python -m benchmarks.end_to_end [IMAGES] [SERIES]`.

`edgemed profile bedside.toml` twice: single images of 512 x 512 through a classifier, then series of four slices
through a segmenter, complete by the count that their headers name. The models are tiny: what is seen is the daemon.
Latency counts from when each was meant to be sent, to the receiver's Success for its result.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom.uid import generate_uid

from edgemed.cli.profiled import print_way
from edgemed.cli.way import Walked, WayRequest, walk
from edgemed.profile.way import ModelWay
from tests.serve import kit
from tests.serve.analysis import bundles

IMAGES, SERIES, SLICES = 300, 60, 4
PACE = "250ms"  # from one intended arrival to the next: a busy room, not a flood

CONFIG = """
[daemon]
state = "state"
[[models]]
name = "image"
bundle = "image.edgemed"
runner = "onnxruntime"
match = { modalities = ["CR"] }
send_to = ["pacs"]
[[models]]
name = "series"
bundle = "series.edgemed"
runner = "onnxruntime"
level = "series"
match = { modalities = ["CT"] }
results = ["sr", "seg"]
send_to = ["pacs"]
[[destinations]]
name = "pacs"
kind = "dicom"
ae_title = "PACS"
host = "pacs.invalid"
port = 104
[trust]
allow_unsigned = true
[log]
level = "warning"
"""


def walked(root: Path, name: str, images: Sequence[Any], repeat: int) -> Walked:
    """One study, replayed."""
    study = root / name
    study.mkdir()
    for number, image in enumerate(images):
        kit.write(image, study / f"{number}.dcm")
    return walk(
        WayRequest(root / "bedside.toml", study, repeat, PACE), lambda text: print(f"{name}: {text}", flush=True)
    )


def slices() -> list[Any]:
    uids = {"study": generate_uid(), "series": generate_uid()}
    size = {"rows": 256, "columns": 256, "NumberOfSeriesRelatedInstances": SLICES}
    return [kit.image(**uids, **size, position=float(place)) for place in range(SLICES)]


def percentiles(model: ModelWay) -> dict[str, float]:
    """Of the whole way, in ms; the slowest where there are too few for a percentile."""
    latency = model.latency
    if latency is None:
        raise SystemExit(f"{model.name} answered nothing")
    found = {p: latency.percentile(p).value_ns for p in ("50", "95")}
    return {f"p{p}": round((latency.max_ns if value is None else value) / 1e6, 2) for p, value in found.items()}


def main(images: int = IMAGES, series: int = SERIES) -> None:
    """Print two tables and one BENCH line."""
    figures: dict[str, dict[str, float]] = {}
    counted: dict[str, int] = {}
    complete = True
    with tempfile.TemporaryDirectory(prefix="edgemed-way.") as folder:
        root = Path(folder)
        kit.write_classifier(root / "image.edgemed")
        bundles.volume(root / "series.edgemed")
        (root / "bedside.toml").write_text(CONFIG)
        one = [kit.image(sop_class=kit.CR, rows=512, columns=512)]
        for name, sent, repeat, results in (("image", one, images, 1), ("series", slices(), series, 2)):
            done = walked(root, name, sent, repeat)
            print_way(done.way)
            model = next(each for each in done.way.models if each.name == name)
            figures[f"{name}_ms"], counted[name] = percentiles(model), model.counts.answered
            complete = complete and counted[name] == repeat and done.received == results * repeat
    print(f"{images} images, {series} series of {SLICES} slices; {os.cpu_count()} cores")
    print("\nBENCH " + json.dumps({"name": "end_to_end", "n": counted, **figures}, separators=(",", ":")))
    if not complete:
        raise SystemExit(1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
