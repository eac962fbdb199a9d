"""The engine stage: which graph TensorRT-RTX compiles, and what is said when it refuses one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgemed.base.errors import InputError, MissingSoftwareError
from edgemed.build.stages import compile_plan
from edgemed.cli.console import ConsoleProgress
from edgemed.engine import rtx
from edgemed.graph.layers import KerasLayers

PLAN = SimpleNamespace(plan=b"plan", version="1.7", precision="int8")
WORDS = "tensorrt_rtx 1.7 cannot read the graph: node 0 'model_1/shrink_1/resize' (Resize): no such mode."


def compiled(monkeypatch: pytest.MonkeyPatch, refuse: dict[str, Exception]) -> Any:
    """What the stage says of two graphs, of which the compiler refuses some."""

    def compile_ahead(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name in refuse:
            raise refuse[path.name]
        return PLAN

    monkeypatch.setattr(rtx, "compile_ahead", compile_ahead)
    files = [SimpleNamespace(path=Path(name)) for name in ("int8_fp16.onnx", "int8.onnx")]
    clean = SimpleNamespace(layers=KerasLayers(["shrink"], ["model_1/shrink_1/resize"]), batch=None)
    return compile_plan(files, (), clean, "int8", ConsoleProgress())  # type: ignore[arg-type]


def test_the_first_graph_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compiled(monkeypatch, {})
    assert (found.plan, found.refused) == (PLAN, False)
    assert found.status == "compiled ahead of time from int8_fp16.onnx; not run here"


def test_a_refused_graph_is_named_with_its_keras_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compiled(monkeypatch, {"int8_fp16.onnx": InputError(WORDS, "Replace it.")})
    assert (found.plan, found.refused) == (PLAN, True)
    assert found.status.startswith("compiled ahead of time from int8.onnx; not run here; int8_fp16.onnx was refused")
    assert "the layer 'shrink': tensorrt_rtx 1.7 cannot read" in found.status


def test_all_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    error = InputError("It gives no reason.", "Replace it.")
    found = compiled(monkeypatch, {"int8_fp16.onnx": error, "int8.onnx": error})
    assert (found.plan, found.refused) == (None, True)
    assert "the layer" not in found.status
    assert found.status.count("was refused") == 2


def test_rtx_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = MissingSoftwareError("tensorrt_rtx is not installed.", "Install it.")
    found = compiled(monkeypatch, {"int8_fp16.onnx": missing})
    assert (found.plan, found.refused) == (None, False)
    assert "not installed" in found.status
