"""Real bundles on real ONNX Runtime in a worker."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemed.base.errors import EdgemedError, GateError, InputError, IntegrityError
from edgemed.bundle.read import open_bundle
from edgemed.evaluate.bundled import runner_of
from edgemed.runtime.contained.runner import ContainedRunner
from edgemed.runtime.contained.states import State
from tests.evaluate.bundles import classifier, write_bundle
from tests.evaluate.hostile import reseal, with_golden
from tests.runtime.contained.kit import QUICK, WAIT_S


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A classifier with a float and an INT8 graph, and golden vectors that are right."""
    return with_golden(write_bundle(tmp_path / "little.edgemed", boundaries={"float": 0.5, "int8": 0.52}))[0]


def images(count: int) -> list[dict[str, NDArray[Any]]]:
    rng = np.random.default_rng(3)
    return [{"image": rng.random((1, 4, 4, 1), dtype=np.float32)} for _ in range(count)]


@pytest.mark.parametrize("precision", ["fp32", "int8", None])
def test_the_worker_answers_what_onnx_runtime_answers_here(bundle: Path, precision: Any) -> None:
    opened = open_bundle(bundle)
    with ContainedRunner.of_bundle(bundle, "onnxruntime", precision=precision, limits=QUICK) as contained:
        health = contained.status.model
        assert health.golden is not None
        assert health.golden.passed
        assert health.golden.samples == 8
        with runner_of(opened, precision) as here:
            assert contained.info == here.info
            assert contained.specs == here.specs
            for feeds in images(20):
                np.testing.assert_array_equal(contained.infer(feeds)["score"], here.infer(feeds)["score"])


def test_a_killed_worker_loads_the_bundle_again(bundle: Path) -> None:
    with ContainedRunner.of_bundle(bundle, "onnxruntime", limits=QUICK) as contained:
        feeds = images(1)[0]
        first = contained.infer(feeds)["score"]
        pid = contained.status.model.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        np.testing.assert_array_equal(contained.infer(feeds)["score"], first)
        assert contained.status.model.rebuilds == 1


def test_a_bundle_that_was_replaced_meanwhile_is_not_taken_for_the_first_one(bundle: Path) -> None:
    with ContainedRunner.of_bundle(bundle, "onnxruntime", precision="fp32", limits=QUICK) as contained:
        reseal(bundle, files={"graphs/float.onnx": classifier(0.9)})
        open_bundle(bundle)  # whole by itself
        pid = contained.status.model.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(IntegrityError, match="not the bundle that was opened before"):
            contained.infer(images(1)[0])
        assert contained.status.model.state is State.REFUSED


def test_a_graph_that_answers_its_golden_vectors_wrongly_is_never_ready(bundle: Path) -> None:
    reseal(bundle, files={"graphs/float.onnx": classifier(0.9)})
    limits = replace(QUICK, rebuilds=2)
    contained = ContainedRunner.of_bundle(bundle, "onnxruntime", precision="fp32", limits=limits)
    with pytest.raises(GateError, match=r"Given up after 2 rebuilds.*golden vectors were answered wrongly"), contained:
        pytest.fail("it was entered")
    golden = contained.status.model.golden
    assert golden is not None
    assert not golden.passed


def test_without_a_gpu_the_model_is_answered_by_the_fallback(bundle: Path) -> None:
    """There is neither GPU nor engine here; where there were, this bundle would have no engine of this device."""
    with pytest.raises(EdgemedError), ContainedRunner.of_bundle(bundle, "tensorrt", limits=QUICK):
        pytest.fail("it was entered")
    with ContainedRunner.of_bundle(bundle, "tensorrt", fallback="onnxruntime", limits=QUICK) as contained:
        assert contained.status.state == "fallback"
        assert contained.status.model.state is State.REFUSED
        reply = contained.submit(images(1)[0]).result(WAIT_S)
        assert reply.info.backend == "onnxruntime"
        assert reply.info.bundle_digest == open_bundle(bundle).digest


def test_what_is_no_bundle_is_refused_before_any_worker_is_started(tmp_path: Path) -> None:
    begun_ns = time.monotonic_ns()
    contained = ContainedRunner.of_bundle(tmp_path / "none.edgemed", "onnxruntime", limits=QUICK)
    with pytest.raises(InputError, match="does not exist"), contained:
        pytest.fail("it was entered")
    assert contained.status.model.generation == 0
    assert contained.status.model.since_ns < begun_ns
