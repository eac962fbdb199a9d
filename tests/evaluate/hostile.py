"""Bundles that were tampered with by someone who knows how the hashes go."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgemed.base.hashing import sha256_bytes
from edgemed.bundle.model import precisions, specs_of
from edgemed.bundle.read import open_bundle
from edgemed.evaluate.bundled import runner_of
from edgemed.runners.golden import Golden

Edit = Callable[[dict[str, Any]], object]


def reseal(bundle: Path, *, files: dict[str, bytes] | None = None, edit: Edit = lambda manifest: None) -> Path:
    """Replace files and edit the manifest, with hashes that fit."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    for name, data in (files or {}).items():
        (bundle / name).write_bytes(data)
        manifest["files"][name] = {"sha256": sha256_bytes(data), "size": len(data)}
        for ref in (manifest["recipe"], *manifest["graphs"].values()):
            if ref["path"] == name:
                ref["sha256"] = sha256_bytes(data)
    edit(manifest)
    raw = json.dumps(manifest).encode()
    (bundle / "manifest.json").write_bytes(raw)
    (bundle / "manifest.sha256").write_text(f"{sha256_bytes(raw)}  manifest.json\n")
    return bundle


def copy_of(bundle: Path, name: str) -> Path:
    """A copy beside it."""
    return Path(shutil.copytree(bundle, bundle.parent / name))


def with_golden(path: Path, samples: int = 8) -> tuple[Path, Golden]:
    """Give a bundle golden vectors that are right."""
    bundle = open_bundle(path)
    specs, rng = specs_of(bundle), np.random.default_rng(0)
    shapes = {spec.name: (samples, *(size or 1 for size in spec.shape)) for spec in specs.inputs}
    inputs = {name: rng.random(shape, dtype=np.float32) for name, shape in shapes.items()}
    outputs: dict[str, dict[str, Any]] = {}
    for precision in precisions(bundle):
        with runner_of(bundle, precision) as runner:
            answers = [runner.infer({name: each[i] for name, each in inputs.items()}) for i in range(samples)]
        outputs[precision] = {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}
    golden = Golden(inputs, outputs)
    tolerance = {precision: dict.fromkeys(each, 1e-5) for precision, each in outputs.items()}
    document = {"path": "golden.npz", "samples": samples, "tolerance": tolerance}
    reseal(path, files={"golden.npz": golden.to_bytes()}, edit=lambda manifest: manifest.update(golden=document))
    return path, golden
