"""What a model's worker runs here: the TensorRT engine of this device where there is one, else ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgemed.base.quantity import SECOND
from edgemed.bundle.read import Bundle
from edgemed.runtime.contained.spec import Backend, BundleWorker, WorkerSpec
from edgemed.runtime.contained.states import Limits
from edgemed.runtime.open import choose_backend
from edgemed.serve.config.daemon import GoldenSection
from edgemed.serve.config.models import ModelSection

LOAD_NS: Final = 300 * SECOND  # large plans on slow storage take minutes
_HANG_NS: Final[dict[Backend, int]] = {"tensorrt": 5 * SECOND, "onnxruntime": 60 * SECOND}


@dataclass(frozen=True)
class Worker:
    """How a model is run.

    Attributes:
        spec: its own worker.
        limits: how long things may take there.
        fallback: what answers while that one does not, if anything.
        fallback_limits: the same for it.
        why: why it is not TensorRT although it might have been.
    """

    spec: WorkerSpec
    limits: Limits
    fallback: WorkerSpec | None = None
    fallback_limits: Limits | None = None
    why: str | None = None


def worker_of(section: ModelSection, bundle: Bundle, golden: GoldenSection) -> Worker:
    """The worker of a verified bundle.

    Raises:
        EdgemedError: what the section asks for cannot be had here; see `open_runner`.
    """
    backend, why = choose_backend(bundle, runner=section.runner, precision=section.precision)
    spec = BundleWorker(bundle.path, backend, section.precision)
    limits = _limits(backend, section, golden)
    if section.when_lost != "onnxruntime":
        return Worker(spec, limits, why=why)
    other = BundleWorker(bundle.path, "onnxruntime", section.precision)
    return Worker(spec, limits, other, _limits("onnxruntime", section, golden), why)


def _limits(backend: Backend, section: ModelSection, golden: GoldenSection) -> Limits:
    hang_ns = section.hang_ns or _HANG_NS[backend]
    return Limits(load_ns=LOAD_NS, hang_ns=hang_ns, check_every_ns=golden.every_ns)
