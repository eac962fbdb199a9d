"""In the worker: makes the Runner, or the Lane, that the parent asked for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgemed.base.errors import InputError, IntegrityError

if TYPE_CHECKING:
    from edgemed.base.runner import Runner
    from edgemed.bundle.read import Bundle
    from edgemed.runtime.lane import Lane


def build(message: dict[str, Any]) -> Runner | Lane:
    """What the message describes, not entered yet.

    Raises:
        EdgemedError: it cannot be made.
    """
    kinds: dict[str, Callable[[dict[str, Any]], Runner | Lane]] = {
        "onnxruntime": _onnxruntime,
        "tensorrt": _tensorrt,
        "function": _function,
    }
    return kinds[message["kind"]](message)


def _bundle(message: dict[str, Any]) -> Bundle:
    """The bundle, which has to be the one that the parent read."""
    from edgemed.bundle.read import open_bundle

    bundle = open_bundle(Path(message["bundle"]))
    if bundle.digest != message["digest"]:
        raise IntegrityError(
            f"{bundle.path.name} is not the bundle that was opened before.", "Restart with the one that is meant."
        )
    return bundle


def _onnxruntime(message: dict[str, Any]) -> Runner:
    from edgemed.bundle.model import graph_of, specs_of
    from edgemed.runners.ort import OnnxRuntimeRunner

    bundle = _bundle(message)
    precision, graph = graph_of(bundle, message["precision"])
    return OnnxRuntimeRunner(
        bundle.graph_source(graph),
        precision=precision,
        bundle_digest=bundle.digest,
        threads=int(message["options"].get("threads", 0)),
        promised=specs_of(bundle),
    )


def _tensorrt(message: dict[str, Any]) -> Lane:
    from edgemed.engine.onboard import find_plan
    from edgemed.runtime.tensorrt import TensorRtLane

    options = dict(message["options"])
    plan = find_plan(_bundle(message), precision=message["precision"], dla_core=options.get("dla_core"))
    return TensorRtLane(plan, **options)


def _function(message: dict[str, Any]) -> Runner | Lane:
    where, _, name = message["function"].rpartition(":")
    made: Runner | Lane = getattr(_module(where), name)(**message["arguments"])
    return made


def _module(where: str) -> ModuleType:
    if not where.endswith(".py"):
        return importlib.import_module(where)
    spec = importlib.util.spec_from_file_location(Path(where).stem, where)
    if spec is None or spec.loader is None:
        raise InputError(f"{where} is no Python file.", "Name one.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
