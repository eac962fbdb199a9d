"""The matrix at full size, by the command a user types: `make matrix`, or `python -m benchmarks.matrix NAME ...`.

Every row is built by `edgemed build`, verified by `edgemed verify`, and each of its graphs is compiled by TensorRT-RTX.
A row that was done stays done (in `.matrix/`) until its file is removed; the table goes to `docs/models.md`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import CommandError, measure
from edgemed.bundle.read import Bundle, open_bundle
from tests.matrix.check import check
from tests.matrix.rows import REFUSALS, ROWS, Row

REPO = Path(__file__).resolve().parent.parent
RESULTS = REPO / ".matrix"
PAGE = REPO / "docs" / "models.md"
_BEGIN, _END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
_HEADINGS = {
    "segmentation": "Segmentation",
    "classic": "Classification",
    "efficient": "Classification, efficient networks and transformers",
    "sequences": "Sequences",
    "other": "Other shapes of models, and how they were saved",
    "layers": "Layers, between two convolutions at 128×128",
}
_LARGE = 150 << 20
_MEMORY_FACTOR = 4  # peak memory of the largest process over the weights, for models above `_LARGE`


def run(name: str) -> dict[str, Any]:
    """Build one row at full size and check it.

    Raises:
        AssertionError: something that holds for every row does not.
        CalledProcessError, CommandError: a command failed.
    """
    row = ROWS[name]
    with tempfile.TemporaryDirectory(prefix="edgemed-matrix-") as scratch:
        folder = Path(scratch)
        environment = {**os.environ, "KERAS_HOME": str(folder / ".keras"), "CUDA_VISIBLE_DEVICES": "-1"}
        zoo = [sys.executable, str(REPO / "tests" / "matrix" / "zoo.py"), "full", str(folder), name]
        subprocess.run(zoo, env=environment, check=True, capture_output=True)
        command = [sys.executable, "-m", "edgemed", "build", f"model{row.suffix}", *_options(row)]
        cost = measure(command, folder / name)
        bundle = open_bundle(folder / name / "model.edgemed")
        subprocess.run([sys.executable, "-m", "edgemed", "verify", str(bundle.path)], check=True, capture_output=True)
        found = dataclasses.asdict(check(row, bundle))
        weights = _weights(bundle)
        assert weights <= _LARGE or cost.largest_bytes <= _MEMORY_FACTOR * weights, (
            f"{cost} for {weights} bytes of weights"
        )
        inputs = [list(t.shape) for t in bundle.manifest.inputs]
    return {
        **found,
        "inputs": inputs,
        "weights": weights,
        "peak": cost.largest_bytes,
        "cpu_s": cost.cpu_s,
        "wall_s": cost.wall_s,
    }


def _options(row: Row) -> list[str]:
    options = [f"--{row.precision}"]
    for name, shape in row.shapes.get("full", {}).items():
        options += ["--input", f"{name}={'x'.join(map(str, shape))}"]
    if row.batch is not None:
        options += ["--dynamic-batch", row.batch]
    return options + (["--allow-code", "custom.py"] if row.code is not None else [])


def _weights(bundle: Bundle) -> int:
    """Bytes of the float graph's weights, near enough: of the graph and its data."""
    ref = bundle.manifest.graphs["float"]
    return sum(bundle.manifest.files[path].size for path in (ref.path, *ref.data))


def table() -> str:
    """The rows that are done, as Markdown."""
    lines = []
    for family, heading in _HEADINGS.items():
        rows = {name: row for name, row in ROWS.items() if row.family == family}
        lines += [
            f"### {heading}",
            "",
            "| model | input | weights MB | nodes | opset | parity | INT8 MACs | INT8 error | plan MB: float / INT8 / "
            "INT8+FP16 | CPU s | peak GB |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += [_line(name, row) for name, row in rows.items()] + [""]
    lines += ["### What is refused", "", "| case | the message names | way out |", "| --- | --- | --- |"]
    lines += [f"| {r.title} | {_plain(r.what)} | {_plain(r.hint)} |" for r in REFUSALS.values()]
    return "\n".join(lines)


def _plain(pattern: str) -> str:
    return pattern.replace("\\", "").replace("|", " or ")


def _line(name: str, row: Row) -> str:
    path = RESULTS / f"{name}.json"
    title = f"{row.title}{f' ({row.note})' if row.note else ''}"
    if not path.exists():
        return f"| {title} | not run |" + " |" * 9
    found = json.loads(path.read_text())
    inputs = ", ".join("×".join("?" if d is None else str(d) for d in shape) for shape in found["inputs"])
    share = "–" if found["share"] is None else f"{found['share']:.1%}"
    error = f"{found['error']:.2%}" + (" (FP16)" if row.precision == "fp16" else "")
    names = ("float", "int8", "int8_fp16") if row.precision == "int8" else ("float", "fp16")
    plans = " / ".join(_plan(found["plans"][graph]) for graph in names)
    return (
        f"| {title} | {inputs} | {found['weights'] / 1e6:.1f} | {found['nodes']} | {found['opset']} | "
        f"{found['parity']:.1e} | {share} | {error} | {plans} | {found['cpu_s']:.0f} | {found['peak'] / 1e9:.1f} |"
    )


def _plan(found: int | str) -> str:
    return f"{found / 1e6:.1f}" if isinstance(found, int) else "refused¹"


def write_page() -> None:
    """Put the table between its marks in the page."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(_BEGIN, 1)
    _, tail = rest.split(_END, 1)
    PAGE.write_text(f"{head}{_BEGIN}\n\n{table()}\n\n{_END}{tail}", encoding="utf-8")


def main() -> None:
    """Run the rows that are named, or all that are not done, and write the table."""
    RESULTS.mkdir(exist_ok=True)
    named = sys.argv[1:]
    failed = []
    for name in named or [n for n in ROWS if not (RESULTS / f"{n}.json").exists()]:
        try:
            found = run(name)
        except (AssertionError, subprocess.CalledProcessError, CommandError) as error:
            failed.append(name)
            print(f"✗ {name}: {error}", flush=True)
            continue
        (RESULTS / f"{name}.json").write_text(json.dumps(found))
        print(f"✓ {name}: {found['cpu_s']:.0f} CPU s, {found['peak'] / 1e9:.1f} GB", flush=True)
    write_page()
    done = [json.loads(p.read_text()) for n in ROWS if (p := RESULTS / f"{n}.json").exists()]
    if done:
        worst = max(found["parity"] for found in done)
        print("BENCH " + json.dumps({"name": "matrix", "rows": len(done), "of": len(ROWS), "worst_parity": worst}))
    if failed:
        raise SystemExit(f"{len(failed)} rows failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
