"""A share of the traffic in another precision too: whether the quantized model still says what the float one says.

The decision is taken over windows that do not overlap. Where no more answers disagree than the site puts up with
(`disagree`), a window raises the alarm by chance in one of `1 / FALSE_ALARM` at most (binomial tail); it is raised as
soon as a window has that many, and over when a whole window has no more than it was to have.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

from edgemed.base.errors import EdgemedError
from edgemed.bundle.manifest import Fidelity
from edgemed.bundle.read import Bundle
from edgemed.runtime.contained.requests import Reply
from edgemed.runtime.contained.runner import ContainedRunner
from edgemed.runtime.contained.spec import BundleWorker
from edgemed.runtime.contained.states import Limits
from edgemed.serve.alarms import Alarms
from edgemed.serve.config.daemon import GoldenSection
from edgemed.serve.config.models import ModelSection, Shadow
from edgemed.serve.metrics import Metrics
from edgemed.serve.models.agreement import Comparer, too_many
from edgemed.serve.models.hosted import HostedModel
from edgemed.serve.models.mirror import Mirror, stand_back

log = logging.getLogger(__name__)

FALSE_ALARM: Final = 0.001
_TIMES_MEASURED: Final = 4  # live images are more various than those of the build
_WITHOUT_FIGURES: Final = 0.05  # of the range, where the build has measured nothing
_HANG_NS: Final = 120_000_000_000  # it stands back behind everybody


class Window:
    """Comparisons up to the next decision."""

    def __init__(self, rules: Shadow) -> None:
        self.size, self._put_up_with = rules.window, rules.disagree
        self.limit = too_many(rules.window, rules.disagree, FALSE_ALARM)
        self.compared = self.disagreed = 0

    def add(self, agrees: bool) -> bool | None:
        """One comparison: `True` where the alarm is due, `False` where it is over, `None` where nothing is decided."""
        self.compared += 1
        self.disagreed += not agrees
        verdict: bool | None = None
        if self.disagreed >= self.limit:
            verdict = True
        elif self.compared >= self.size and self.disagreed <= self._put_up_with * self.size:
            verdict = False
        if verdict or self.compared >= self.size:
            self.compared = self.disagreed = 0
        return verdict


class PrecisionShadow:
    """Of one model; it follows the version that answers.

    Args:
        section: of the model; it has a `shadow`.
        golden: how often its own worker is checked.
        alarms: told of windows that disagree.
        metrics: count comparisons.
    """

    def __init__(self, section: ModelSection, golden: GoldenSection, alarms: Alarms, metrics: Metrics) -> None:
        assert section.shadow is not None, "made for those that have one"
        self._section, self._rules, self._golden = section, section.shadow, golden
        self._alarms, self._metrics = alarms, metrics
        self._lock = threading.Lock()
        self._model: HostedModel | None = None
        self._runner: ContainedRunner | None = None
        self._mirror: Mirror | None = None
        self._comparer: Comparer | None = None
        self._tolerance = 0.0
        self._stood_back: int | None = None
        self._window = Window(self._rules)
        self._counts = {"agree": 0, "disagree": 0, "failed": 0, "dropped": 0}
        self._worst = 0.0
        self._reason = ""

    def follow(self, model: HostedModel) -> None:
        """Compare this version; called again and again."""
        if model is not self._model:
            self.close()
            self._begin(model)
            self._model = model  # where it cannot begin for want of threads, it is tried again
        if self._runner is not None and (pid := self._runner.status.model.pid) != self._stood_back:
            stand_back(pid)
            self._stood_back = pid

    def close(self) -> None:
        """End the other worker."""
        if self._model is not None and self._mirror is not None:
            mirror = self._mirror
            self._model.mirrors = tuple(one for one in self._model.mirrors if one is not mirror)
        if self._runner is not None:
            self._runner.close()
        if self._mirror is not None:
            self._mirror.close()
        self._runner, self._mirror = None, None

    def describe(self) -> dict[str, Any]:
        """Figures for the page: JSON."""
        with self._lock:
            return {
                "precision": self._rules.precision,
                "share": self._rules.share,
                "tolerance": self._tolerance,
                **self._counts,
                "worst_error": self._worst,
                "window": [self._window.compared, self._window.size],
                "window_disagreed": self._window.disagreed,
                "alarm_from": self._window.limit,
                "false_alarm_rate": FALSE_ALARM,
                "reason": self._reason,
            }

    def _begin(self, model: HostedModel) -> None:
        bundle, rules = model.bundle, self._rules
        try:
            spec = BundleWorker(bundle.path, "onnxruntime", rules.precision, {"threads": 1})
            limits = Limits(hang_ns=_HANG_NS, load_ns=_HANG_NS, check_every_ns=self._golden.every_ns)
            comparer = Comparer(bundle)
            runner = ContainedRunner(spec, limits=limits)
            runner.begin()
        except EdgemedError as error:
            self._reason = error.what
            log.error("%s is not compared in another precision: %s", model.name, error)
            return
        self._runner, self._comparer, self._reason = runner, comparer, ""
        self._tolerance = rules.tolerance or tolerance_of(bundle)
        self._window = Window(rules)
        self._mirror = Mirror(
            f"shadow {model.name}",
            runner.submit,
            self._judge,
            share=rules.share,
            dropped=lambda: self._count("dropped"),
        )
        model.mirrors = (*model.mirrors, self._mirror)

    def _judge(self, ours: Reply, theirs: Reply | EdgemedError) -> None:
        assert self._comparer is not None, "made before the mirror"
        if isinstance(theirs, EdgemedError):
            self._count("failed")
            return
        difference = self._comparer.compare(ours.outputs, theirs.outputs)
        agrees = difference.decision and difference.error <= self._tolerance
        self._count("agree" if agrees else "disagree")
        with self._lock:
            self._worst = max(self._worst, difference.error)
            seen = (self._window.disagreed + (not agrees), self._window.compared + 1)
            verdict = self._window.add(agrees)
        name = self._section.name
        if verdict:
            what = f"{seen[0]} of {seen[1]} answers of {name} were others in {self._rules.precision}."
            self._alarms.raise_("shadow-disagrees", what, name)
        elif verdict is False:
            self._alarms.clear("shadow-disagrees", name)

    def _count(self, outcome: str) -> None:
        with self._lock:
            self._counts[outcome] += 1
        self._metrics.shadow.labels(self._section.name, outcome).inc()


def tolerance_of(bundle: Bundle) -> float:
    """Four times the greatest error that the build measured of the precision that runs, over the output's range."""
    fidelity: Fidelity = bundle.manifest.fidelity
    measured = [each.relative_error for each in (*fidelity.int8_vs_float, *fidelity.int8_fp16_vs_float)]
    return _TIMES_MEASURED * max(measured) if measured and max(measured) > 0 else _WITHOUT_FIGURES
