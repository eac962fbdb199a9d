"""Images go together only where a golden batch of that size was answered rightly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from evaluate.hostile import reseal
from onnx import TensorProto, helper

from edgemed.base.errors import InputError
from edgemed.bundle.read import open_bundle
from edgemed.runners.golden import Golden
from edgemed.serve.models.hosted import HostedModel
from tests.serve import kit
from tests.serve.models.kit import WAIT_S, frame, hosting
from tests.waiting import wait_for


def graph(*, mixes: bool) -> bytes:
    """The mean of each image; one that mixes takes that of all images together."""
    axes = [0, 1, 2, 3] if mixes else [1, 2, 3]
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=axes, keepdims=1),
        helper.make_node("ReduceMean", ["image"], ["each"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["each", "zero"], ["zeros"]),
        helper.make_node("Add", ["mean", "zeros"], ["whole"]),
        helper.make_node("Reshape", ["whole", "shape"], ["score"]),
    ]
    constants = [
        helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 1]),
        helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
    ]
    made = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 4, 4, 1])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1])],
        constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write(path: Path, *, mixes: bool) -> Path:
    kit.write_classifier(path)
    images = np.random.default_rng(2).random((8, 1, 4, 4, 1), dtype=np.float32)
    golden = Golden({"image": images}, {"fp32": {"score": images.mean((2, 3, 4))[..., None]}})

    def edit(manifest: dict[str, Any]) -> None:
        manifest["batch"] = {"min": 1, "opt": 2, "max": 4}
        manifest["inputs"][0]["shape"] = [None, 4, 4, 1]
        manifest["outputs"][0]["shape"] = [None, 1]
        manifest["golden"]["tolerance"] = {"fp32": {"score": 1e-6}}  # means of 16 floats, summed in another order

    reseal(path, files={"graphs/float.onnx": graph(mixes=mixes), "golden.npz": golden.to_bytes()}, edit=edit)
    open_bundle(path)
    return path


@pytest.mark.parametrize("mixes", [False, True])
def test_a_golden_batch_decides(tmp_path: Path, mixes: bool) -> None:
    bundle = write(tmp_path / "chest.edgemed", mixes=mixes)
    with hosting(kit.bedside(tmp_path, bundle=bundle)) as daemon:
        model = daemon.services.models.get("chest")
        assert isinstance(model, HostedModel)
        wait_for(lambda: model.greatest_batch == 4 or daemon.services.readiness.light == "degraded")
        assert (model.greatest_batch == 1) == mixes
        asked = {seed: model.submit(frame(seed)) for seed in range(40)}
        for seed, future in asked.items():
            expected = frame(seed)["image"].mean()
            assert future.result(WAIT_S).outputs["score"] == pytest.approx(expected, abs=1e-6)
        four = {"image": np.concatenate([frame(seed)["image"] for seed in range(4)])}
        if mixes:
            with pytest.raises(InputError, match="one image at a time"):
                model.submit(four)
            finding = daemon.services.readiness.findings[0]
            assert "batches wrongly" in finding.reason
            assert daemon.services.readiness.ready
        else:
            np.testing.assert_allclose(
                model.submit(four).result(WAIT_S).outputs["score"][:, 0], four["image"].mean((1, 2, 3)), atol=1e-6
            )
