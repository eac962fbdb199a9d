"""Engines that are kept here, and a bundle that shall run here. Records are read; plans are not loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgemed.device.doctor.diagnosis import Facts, Line, note, ok, unknown, wrong
from edgemed.device.doctor.scene import BundleNeeds, Live, Scene
from edgemed.device.profile import supports_int8
from edgemed.device.sysfs import Tree

_ENGINES: Final = "engines"
_RECORD: Final = "engine.json"
_PLAN: Final = "plan"
_SCHEMA: Final = "edgemed/engine/1"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MOST_ENGINES: Final = 1000
_MOST_NAMED: Final = 4
_KEY: Final = ("bundle", "flavour", "version", "compute_capability", "board", "precision")


@dataclass(frozen=True)
class _Kept:
    """One engine's folder; `key` is None where its record or its plan is missing or damaged."""

    folder: str
    key: dict[str, Any] | None


def engines(scene: Scene) -> Line:
    """Every kept engine's key against this machine: an engine of another TensorRT or JetPack is never used again."""
    if scene.live is None:
        return unknown("engines", "The engines of another root's user cannot be asked.")
    kept = tuple(_kept(scene.live.room.path))
    damaged = [engine.folder for engine in kept if engine.key is None]
    stale = [(e.folder, why) for e in kept if e.key is not None and (why := _stale(scene, scene.live, e.key))]
    facts: Facts = {
        "kept": len(kept),
        "stale": tuple(folder for folder, _ in stale),
        "damaged": tuple(damaged),
    }
    if damaged:
        return wrong(
            "engines",
            f"{len(damaged)} of {len(kept)} kept engines are damaged: {_named(damaged)}.",
            "Build them anew: edgemed build NAME.edgemed",
            facts=facts,
        )
    if stale:
        return note(
            "engines",
            f"{len(stale)} of {len(kept)} kept engines are not for this machine as it is: "
            f"{_named([f'{folder} ({why})' for folder, why in stale])}.",
            "Build them anew: edgemed build NAME.edgemed; their folders can be deleted.",
            facts=facts,
        )
    return ok("engines", f"{len(kept)} kept, all for this machine" if kept else "none is kept yet", facts=facts)


def bundle(scene: Scene) -> Line:
    """Whether the bundle will run here: precision, opset, and an engine for it."""
    asked = scene.bundle
    if asked is None:
        return unknown("bundle", "No bundle was named.")
    facts: Facts = {"bundle": asked.name, "digest": asked.digest, "precision": asked.precision}
    capability = scene.compute_capability
    if capability is None:
        return unknown(
            "bundle",
            f"{asked.name} ({asked.precision}) runs on ONNX Runtime here; there is no GPU to judge it by.",
            f"`edgemed inspect {asked.name} --device NAME` tells what a board will take.",
            facts=facts,
        )
    if refused := _refused(scene, asked, capability):
        return wrong("bundle", *refused, facts=facts)
    if scene.live is not None and not _has_engine(scene, scene.live, asked):
        return note(
            "bundle",
            f"No engine of {asked.name} ({asked.precision}) is kept for this machine as it is.",
            f"Build it, which takes minutes: edgemed build {asked.name}",
            facts=facts,
        )
    return ok("bundle", f"{asked.name} ({asked.precision}) has an engine for this machine", facts=facts)


def _refused(scene: Scene, asked: BundleNeeds, capability: str) -> tuple[str, str] | None:
    """Why no engine of the bundle can be had on this machine, and what to do; None where one can."""
    if scene.too_old:
        remedy = f"`edgemed inspect {asked.name} --device {scene.name}` prints how to export it."
        return "edgemed does not run on this JetPack: see `jetpack`.", remedy
    if asked.precision == "int8" and not supports_int8(capability):
        found = f"{asked.name} is INT8, for which TensorRT has no kernels on compute capability {capability}."
        return found, "Build it for FP16: edgemed build MODEL --fp16"
    lowest = min((opset for opset, _ in asked.graphs.values()), default=0)
    if scene.row is not None and lowest > scene.row.opset:
        found = f"{asked.name} has opset {lowest}, TensorRT {scene.row.tensorrt} reads up to {scene.row.opset}."
        remedy = f"Build it for this board: edgemed build MODEL --device {scene.name}@{scene.row.jetpack[-1]}"
        return found, remedy
    return None


def _has_engine(scene: Scene, live: Live, asked: BundleNeeds) -> bool:
    keys = (engine.key for engine in _kept(live.room.path) if engine.key is not None)
    mine = (k for k in keys if (k["bundle"], k["precision"]) == (asked.digest, asked.precision))
    return any(_stale(scene, live, key) is None for key in mine)


def _kept(state: Path) -> Iterator[_Kept]:
    """All engines, `<bundle digest>/<key>`; folders that are being written start with a dot."""
    tree = Tree(state)
    bundles = [name for name in tree.names(_ENGINES) if _DIGEST.fullmatch(name)]
    folders = [f"{name}/{key}" for name in bundles for key in tree.names(f"{_ENGINES}/{name}") if key[0] != "."]
    for folder in folders[:_MOST_ENGINES]:
        yield _Kept(folder.partition("/")[2], _key(tree, f"{_ENGINES}/{folder}"))


def _key(tree: Tree, folder: str) -> dict[str, Any] | None:
    try:
        record = json.loads(tree.data(f"{folder}/{_RECORD}", 1 << 20) or b"")
        key, size = record["key"], record["plan_bytes"]
        whole = record["schema"] == _SCHEMA and all(isinstance(key[name], str) for name in _KEY)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    plan = tree.stat(f"{folder}/{_PLAN}")
    return key if whole and plan is not None and plan.st_size == size else None


def _stale(scene: Scene, live: Live, key: dict[str, Any]) -> str | None:
    """The first thing in which an engine's key differs from this machine, or None."""
    version = live.tensorrt.text("version") if key["flavour"] == "tensorrt" else live.tensorrt_rtx
    if version is not None and key["version"] != version:
        return f"{key['flavour']} {key['version']}, here {version}"
    if scene.compute_capability is not None and key["compute_capability"] != scene.compute_capability:
        return f"compute capability {key['compute_capability']}"
    if scene.name != "unknown" and key["board"] != scene.name:
        return f"board {key['board']}"
    release = _release(scene)
    if release is not None and key.get("jetpack") != release:
        return f"JetPack {key.get('jetpack')}, here {release}"
    return None


def _release(scene: Scene) -> str | None:
    if scene.board is None:
        return None
    return scene.board.jetpack or (f"l4t-{scene.board.l4t}" if scene.board.l4t else None)


def _named(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
