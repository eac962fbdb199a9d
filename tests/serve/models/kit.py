"""Models whose worker does what a test tells it, in bundles that look like any other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from evaluate.hostile import reseal
from numpy.typing import NDArray

from edgemed.runtime.contained.states import Limits
from edgemed.serve.alarms import Alarms
from edgemed.serve.audit.chain import AuditLog
from edgemed.serve.config import Config
from edgemed.serve.config.daemon import GoldenSection
from edgemed.serve.config.models import ModelSection
from edgemed.serve.journal.database import Journal
from edgemed.serve.loops import Loops
from edgemed.serve.metrics import Metrics
from edgemed.serve.models import workers
from edgemed.serve.models.host import ModelHost
from edgemed.serve.readiness import Readiness
from tests.runtime.contained import kit as contained
from tests.runtime.contained.faulty import Control
from tests.serve import kit
from tests.waiting import wait_for

WAIT_S = 60  # for what must come; only a defect waits so long
MS = 1_000_000
TRIAL = {"inputs": 6, "watch": "300ms"}


@dataclass(frozen=True)
class Hosted:
    """A host of models with what it writes to, and nothing else of a daemon."""

    config: Config
    services: Any


@contextmanager
def hosting(config: Config) -> Iterator[Hosted]:
    """The models of a daemon alone: what is tested here starts in a moment."""
    config.daemon.state.mkdir(exist_ok=True)
    with Journal(config.daemon.state / "journal.sqlite3") as journal, ExitStack() as stack:
        alarms, metrics, readiness, loops = Alarms(journal), Metrics(), Readiness(), Loops()
        alarms.load()
        audit = AuditLog(config, alarms)
        stack.callback(audit.close)
        models = ModelHost(config, journal, alarms, metrics, readiness, loops, audit)
        models.start()
        stack.callback(models.stop)
        stack.callback(lambda: loops.stop(int(WAIT_S * 1e9)))
        yield Hosted(
            config,
            SimpleNamespace(
                journal=journal, alarms=alarms, metrics=metrics, readiness=readiness, models=models, audit=audit
            ),
        )


def write_faulty(path: Path) -> Path:
    """A bundle of the model that `faulty.py` computes; its worker is set by `faulty_worker`."""
    kit.write_classifier(path)
    case = contained.case()

    def edit(manifest: dict[str, Any]) -> None:
        manifest["inputs"][0].update(name="x", shape=[1, 16], layout="NC")
        manifest["outputs"][0].update(name="y", shape=[1, 16], task="regression", activation="none", classes=[])
        manifest["golden"].update(samples=8, tolerance={"fp32": {"y": 0.0}})

    reseal(path, files={"golden.npz": case.golden.to_bytes()}, edit=edit)
    return path


def faulty_worker(
    monkeypatch: pytest.MonkeyPatch, control: Path, *, fallback: Path | None = None, **limits: int
) -> Control:
    """Let every model run in a worker that fails as it is told, watched as any other."""

    def made(section: ModelSection, bundle: Any, golden: GoldenSection) -> workers.Worker:
        own = Limits(hang_ns=1000 * MS, check_every_ns=golden.every_ns, backoff_ns=MS, backoff_cap_ns=10 * MS)
        own = replace(own, **limits)
        other = None
        if section.when_lost == "onnxruntime":
            other = contained.worker(fallback, backend="onnxruntime")
        return workers.Worker(contained.worker(control, backend="tensorrt"), own, other)

    monkeypatch.setattr(workers, "worker_of", made)
    return Control(control)


def frame(seed: int) -> dict[str, NDArray[Any]]:
    """Feeds of the classifier."""
    return {"image": np.random.default_rng(seed).random((1, 4, 4, 1), dtype=np.float32)}


@contextmanager
def serving(tmp_path: Path, bundle: Path | None = None, **others: Any) -> Iterator[tuple[Hosted, ModelHost]]:
    model = {
        "name": "chest",
        "bundle": bundle or first(tmp_path),
        "runner": "onnxruntime",
        "trial": {**TRIAL, **others.pop("trial", {})},
    }
    with hosting(kit.bedside(tmp_path, models=[{**model, **others.pop("model", {})}], **others)) as daemon:
        host = daemon.services.models
        assert isinstance(host, ModelHost)
        wait_for(lambda: daemon.services.readiness.ready)
        yield daemon, host


def first(tmp_path: Path) -> Path:
    path = tmp_path / "first.edgemed"
    return path if path.exists() else kit.write_classifier(path)


def another(tmp_path: Path, name: str, **others: Any) -> Path:
    """One that decides the same, in other bytes."""
    path = kit.write_classifier(tmp_path / f"{name}.edgemed", **others)
    return reseal(path, edit=lambda manifest: manifest.update(intended_use=name))
