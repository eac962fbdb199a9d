"""Bundles that were tampered with by someone who knows how the hashes go."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgemed.base.hashing import sha256_bytes
from edgemed.bundle.model import precisions
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
    images = np.random.default_rng(0).random((samples, 1, 4, 4, 1), dtype=np.float32)
    outputs: dict[str, dict[str, Any]] = {}
    for precision in precisions(bundle):
        with runner_of(bundle, precision) as runner:
            outputs[precision] = {"score": np.stack([runner.infer({"image": image})["score"] for image in images])}
    golden = Golden({"image": images}, outputs)
    tolerance = {precision: {"score": 1e-5} for precision in outputs}
    document = {"path": "golden.npz", "samples": samples, "tolerance": tolerance}
    reseal(path, files={"golden.npz": golden.to_bytes()}, edit=lambda manifest: manifest.update(golden=document))
    return path, golden
