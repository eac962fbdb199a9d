"""The models of a daemon: loaded, checked, switched."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from numpy.typing import NDArray

from edgemed.base.errors import DeviceStateError, InputError
from edgemed.base.runner import RunnerInfo, RunnerSpecs
from edgemed.bundle.model import specs_of
from edgemed.bundle.read import Bundle, open_bundle
from edgemed.evaluate.bundled import reader_of
from edgemed.imaging.samples import SampleReader
from edgemed.runtime.contained.requests import Reply
from edgemed.runtime.contained.runner import ContainedRunner
from edgemed.runtime.contained.spec import Backend
from edgemed.serve.alarms import Alarms
from edgemed.serve.audit.trail import Audit
from edgemed.serve.config import Config, ModelSection
from edgemed.serve.journal.database import Journal
from edgemed.serve.loops import Beat, Loops
from edgemed.serve.metrics import Metrics
from edgemed.serve.models.served import Served
from edgemed.serve.readiness import Finding, Readiness


class HostedModel:
    """One version, in a worker of its own."""

    def __init__(self, section: ModelSection, bundle: Bundle) -> None:
        self.section = section
        self.bundle = bundle
        self.name = section.name
        self.version = "1"
        self.reader: SampleReader = reader_of(bundle)
        self._runner: ContainedRunner | None = None

    @property
    def specs(self) -> RunnerSpecs:
        return specs_of(self.bundle)

    @property
    def info(self) -> RunnerInfo:
        return self._worker.info

    @property
    def finding(self) -> Finding | None:
        if self._runner is None:
            return Finding(self.name, "It is being loaded.")
        status = self._runner.status
        return None if status.answers else Finding(self.name, f"Its worker is {status.state}.")

    def load(self) -> None:
        backend: Backend = "tensorrt" if self.section.runner == "tensorrt" else "onnxruntime"
        self._runner = ContainedRunner.of_bundle(
            self.bundle.path, backend, precision=self.section.precision
        ).__enter__()

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()

    @property
    def _worker(self) -> ContainedRunner:
        if self._runner is None:
            raise DeviceStateError(f"The model {self.name} is being loaded.", "Try again in a moment.")
        return self._runner

    def submit(
        self,
        feeds: Mapping[str, NDArray[Any]],
        *,
        due_ns: int | None = None,
        deadline_ns: int | None = None,
        live: bool = False,
        frame: int | None = None,
    ) -> Future[Reply]:
        del due_ns, live
        return self._worker.submit(feeds, deadline_ns=deadline_ns, frame=frame)


class ModelHost:
    """See `Models`."""

    name = "models"

    def __init__(
        self,
        config: Config,
        journal: Journal,
        alarms: Alarms,
        metrics: Metrics,
        readiness: Readiness,
        loops: Loops,
        audit: Audit,
    ) -> None:
        self._config = config
        self._journal = journal
        self._metrics = metrics
        self._audit = audit
        self._alarms = alarms
        self._readiness = readiness
        self._loops = loops
        self._models: dict[str, HostedModel] = {}

    def start(self) -> None:
        """Verify every bundle now; load them in the background, for what comes in is kept meanwhile."""
        for section in self._config.models:
            model = HostedModel(section, open_bundle(section.bundle))
            self._models[section.name] = model
            self._readiness.register(f"model {section.name}", partial(getattr, model, "finding"))
        self._loops.start("models", self._load, limit_ns=300_000_000_000)

    def _load(self, beat: Beat) -> None:
        for model in self._models.values():
            model.load()
            beat()
        while beat.wait(1.0):
            pass

    def drain(self) -> None:
        """Nothing to do: who asks is drained."""

    def stop(self) -> None:
        for model in self._models.values():
            model.close()

    def names(self) -> list[str]:
        return list(self._models)

    def get(self, name: str, version: str | None = None) -> Served:
        model = self._models.get(name)
        if model is None or version not in (None, model.version):
            raise InputError(f"There is no model {name}.", f"There are: {', '.join(self._models)}.")
        return model
