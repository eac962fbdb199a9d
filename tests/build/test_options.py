"""Options of the build that are parsed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgemed.base.errors import UsageError
from edgemed.build.options import parse_batch
from edgemed.bundle.read import open_bundle
from tests.build.conftest import edgemed


def test_a_range_of_batches() -> None:
    assert str(parse_batch("1:4:8")) == "1:4:8"
    assert parse_batch("1:2:2").shapes((None, 8, 8, 1)) == ((1, 8, 8, 1), (2, 8, 8, 1), (2, 8, 8, 1))


@pytest.mark.parametrize(
    "text", ["", "4", "1:2", "1:2:3:4", "4:2:8", "8:4:1", "2:4:8", "0:1:2", "1:4:4096", "a:b:c", "-1:1:1", "1:²:3"]
)
def test_no_range_of_batches(text: str) -> None:
    with pytest.raises(UsageError, match="MIN:OPT:MAX"):
        parse_batch(text)


def test_a_bundle_whose_batch_varies(models: Path, images: Path, tmp_path: Path) -> None:
    """One bundle answers one image and three at once alike; all its graphs name the dimension."""
    done = edgemed(
        "build", models / "seed.h5", "--calibration", images, "--dynamic-batch", "1:2:4", "--output", "m.edgemed",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bundle = open_bundle(tmp_path / "m.edgemed")
    assert bundle.manifest.inputs[0].shape == (None, 32, 32, 3)
    assert bundle.manifest.outputs[0].shape == (None, 1)
    assert bundle.manifest.profiles() == {"image": ((1, 32, 32, 3), (2, 32, 32, 3), (4, 32, 32, 3))}
    for name in bundle.manifest.graphs:
        graph = onnx.load_from_string(bundle.graph(name)).graph
        assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
        assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert len(bundle.manifest.engines) == 1  # TensorRT-RTX took the range
    rng = np.random.default_rng(0)
    arrays = rng.random((3, 32, 32, 3), np.float32)
    np.savez(tmp_path / "three.npz", image=arrays)
    for i, array in enumerate(arrays):
        np.savez(tmp_path / f"{i}.npz", image=array)
    files = ["three.npz", "0.npz", "1.npz", "2.npz"]
    done = edgemed("run", "m.edgemed", *files, "--save", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    together, *single = (np.load(tmp_path / "out" / name)["probability"] for name in files)
    assert together.shape == (3, 1)
    np.testing.assert_allclose(together, np.concatenate(single), atol=1e-6)  # the same sums, in blocks of three
    assert edgemed("verify", "m.edgemed", cwd=tmp_path).returncode == 0


def test_signature_of_a_saved_model(models: Path, images: Path, tmp_path: Path) -> None:
    """A wrong name is answered with the ones there are; no half bundle is left."""
    done = edgemed("build", models / "resnet", "--fp32", "--signature", "score", "--output", "m.edgemed", cwd=tmp_path)
    assert done.returncode == 2
    assert "no signature 'score'" in done.stderr
    assert "serve" in done.stderr
    assert not (tmp_path / "m.edgemed").exists()


def test_options_that_do_not_belong_are_refused(models: Path, tmp_path: Path) -> None:
    done = edgemed("build", models / "seed.h5", "--fp32", "--signature", "score", cwd=tmp_path)
    assert done.returncode == 2
    assert "has no signatures" in done.stderr
    bundle = tmp_path / "m.edgemed"
    bundle.mkdir()
    for option in (("--dynamic-batch", "1:2:4"), ("--signature", "score")):
        done = edgemed("build", bundle, *option, cwd=tmp_path)
        assert done.returncode == 2
        assert "belong to a Keras model" in done.stderr
