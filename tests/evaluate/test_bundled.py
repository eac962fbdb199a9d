"""A bundle is right when its golden vectors were run; one that lets nothing be run is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemed.base.errors import InputError, IntegrityError
from edgemed.base.progress import SilentProgress
from edgemed.bundle.read import open_bundle
from edgemed.evaluate.bundled import check_bundle, runner_of
from edgemed.runners.golden import Golden
from edgemed.runners.ort import OnnxRuntimeRunner
from evaluate.bundles import classifier, write_bundle
from evaluate.hostile import reseal, with_golden


@pytest.fixture
def sound(tmp_path: Path) -> tuple[Path, Golden]:
    return with_golden(write_bundle(tmp_path / "little.edgemed", boundaries={"float": 0.5, "int8": 0.6}))


def check(path: Path) -> dict[str, bool]:
    results = check_bundle(open_bundle(path), SilentProgress())
    return {precision: result.passed for precision, result in results.items()}


def test_a_sound_bundle_passes_in_every_precision(sound: tuple[Path, Golden]) -> None:
    assert check(sound[0]) == {"fp32": True, "int8": True}


def test_a_runner_is_checked_in_its_own_precision_alone(sound: tuple[Path, Golden]) -> None:
    bundle = open_bundle(sound[0])
    results = check_bundle(bundle, SilentProgress(), runner_of(bundle, "int8"))
    assert {precision: result.passed for precision, result in results.items()} == {"int8": True}


def test_a_runner_that_computes_another_model_fails(sound: tuple[Path, Golden]) -> None:
    bundle = open_bundle(sound[0])
    other = OnnxRuntimeRunner(classifier(0.9), precision="int8")
    assert not check_bundle(bundle, SilentProgress(), other)["int8"].passed


def test_a_precision_without_vectors_is_refused(sound: tuple[Path, Golden]) -> None:
    bundle = open_bundle(sound[0])
    runner = OnnxRuntimeRunner(bundle.graph("float"), precision="fp16")
    with pytest.raises(InputError, match="no golden vectors for fp16") as caught:
        check_bundle(bundle, SilentProgress(), runner)
    assert caught.value.hint == "It has: fp32, int8."


def test_another_graph_fails(sound: tuple[Path, Golden]) -> None:
    path = reseal(sound[0], files={"graphs/int8.onnx": classifier(0.7)})
    assert check(path) == {"fp32": True, "int8": False}


EMPTY = {"image": np.zeros((0, 1, 4, 4, 1), np.float32)}
GOLDEN = {
    "no samples": lambda g: Golden(EMPTY, {p: {"score": np.zeros((0, 1, 1), np.float32)} for p in g.outputs}),
    "fewer outputs": lambda g: Golden(g.inputs, {p: {"score": o["score"][:4]} for p, o in g.outputs.items()}),
    "fewer samples than stated": lambda g: Golden(
        {"image": g.inputs["image"][:4]}, {p: {"score": o["score"][:4]} for p, o in g.outputs.items()}
    ),
    "one precision": lambda g: Golden(g.inputs, {"fp32": g.outputs["fp32"]}),
    "text": lambda g: Golden(g.inputs, {p: {"score": o["score"].astype("U9")} for p, o in g.outputs.items()}),
    "another name": lambda g: Golden(g.inputs, {p: {"other": o["score"]} for p, o in g.outputs.items()}),
}


@pytest.mark.parametrize("change", GOLDEN.values(), ids=GOLDEN)
def test_vectors_that_check_less_than_they_say_are_refused(sound: tuple[Path, Golden], change: Any) -> None:
    path = reseal(sound[0], files={"golden.npz": change(dataclasses.replace(sound[1])).to_bytes()})
    with pytest.raises(IntegrityError, match=r"[Gg]olden"):
        check(path)


MANIFEST = {
    "no graphs": lambda m: m.update(graphs={}),
    "no INT8 graph": lambda m: m["graphs"].pop("int8"),
    "no tolerance": lambda m: m["golden"].update(tolerance={}),
    "negative tolerance": lambda m: m["golden"]["tolerance"]["int8"].update(score=-1.0),
    "tolerance that is no number": lambda m: m["golden"]["tolerance"]["int8"].update(score=float("nan")),
    "endless tolerance": lambda m: m["golden"]["tolerance"]["int8"].update(score=float("inf")),
    "other samples": lambda m: m["golden"].update(samples=9),
    "another input": lambda m: m["inputs"][0].update(name="picture"),
    "another type": lambda m: m["inputs"][0].update(dtype="uint8"),
    "another size": lambda m: m["inputs"][0].update(shape=[1, 200_000, 200_000, 1]),
    "another output": lambda m: m["outputs"][0].update(name="\x1b[31mother"),
    "two outputs": lambda m: m["outputs"].append({**m["outputs"][0], "name": "more"}),
}


@pytest.mark.parametrize("edit", MANIFEST.values(), ids=MANIFEST)
def test_manifests_that_make_the_check_empty_are_refused(sound: tuple[Path, Golden], edit: Any) -> None:
    path = reseal(sound[0], edit=edit)
    with pytest.raises(IntegrityError):
        check(path)


@pytest.mark.parametrize("graph", [b"", b"\x08\x07garbage", classifier(0.5).replace(b"Sigmoid", b"Sagmoid")])
def test_a_graph_that_does_not_load_is_a_fault_of_the_bundle(sound: tuple[Path, Golden], graph: bytes) -> None:
    path = reseal(sound[0], files={"graphs/int8.onnx": graph})
    with pytest.raises(IntegrityError), runner_of(open_bundle(path)):
        pass
