"""The models of a daemon: loaded, checked, switched."""

from __future__ import annotations

import time
from functools import partial

from edgemed.base.errors import InputError
from edgemed.bundle.read import open_bundle
from edgemed.serve.alarms import Alarms
from edgemed.serve.audit.trail import Audit
from edgemed.serve.config import Config
from edgemed.serve.journal.database import Journal
from edgemed.serve.loops import Beat, Loops
from edgemed.serve.metrics import Metrics
from edgemed.serve.models.hosted import HostedModel
from edgemed.serve.models.served import Served
from edgemed.serve.readiness import Readiness

_TICK_S = 0.25
_LIMIT_NS = 60_000_000_000  # large bundles are hashed anew before a worker is begun


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
        """Verify every bundle now; load them in the background, for what comes in is kept meanwhile.

        Raises:
            InputError: there is no bundle, or its recipe was assumed.
            IntegrityError: one is damaged, or not trusted.
        """
        for section in self._config.models:
            bundle = open_bundle(section.bundle)
            if bundle.manifest.recipe.assumed:
                raise InputError(
                    f"The recipe of {bundle.path.name} was assumed, not stated.", "Build it with a recipe of its own."
                )
            model = HostedModel(self._config, section, bundle, "1", self._journal, self._alarms, self._metrics)
            model.announced = True
            self._models[section.name] = model
            self._readiness.register(f"model {section.name}", partial(getattr, model, "finding"))
        self._loops.start("models", self._tend, limit_ns=_LIMIT_NS)

    def _tend(self, beat: Beat) -> None:
        for model in self._models.values():
            model.load()
            beat()
        while beat.wait(_TICK_S):
            for model in self._models.values():
                model.tend(time.monotonic_ns())

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
