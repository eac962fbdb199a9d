"""A new version beside the active one: both answer the same live inputs, and the report says how they compare."""

from __future__ import annotations

import threading
from statistics import median
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgemed.base.errors import EdgemedError
from edgemed.bundle.manifest import Digest
from edgemed.runtime.contained.requests import Reply
from edgemed.serve.clock import stamp
from edgemed.serve.config.models import Trial as Rules
from edgemed.serve.models.agreement import Comparer, upper_bound
from edgemed.serve.models.hosted import HostedModel
from edgemed.serve.models.mirror import Mirror, compute_ns

_NOISE_NS: Final = 500_000
"""Two medians that differ by less than a scheduling delay of the system are not told apart."""

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class TrialVersion(BaseModel):
    """One of the two versions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    digest: Digest
    backend: str
    precision: str
    median_ns: Count | None = None


class TrialReport(BaseModel):
    """How a new version compared with the active one on live inputs. No input is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["edgemed/trial/1"] = Field(alias="schema")
    created: str = Field(description="UTC, ISO 8601")
    model: str
    active: TrialVersion
    candidate: TrialVersion
    inputs: Count = Field(description="live inputs that both were asked")
    failed: Count = Field(description="of them, inputs that the candidate did not answer")
    disagreed: Count = Field(description="of them, inputs that were decided otherwise")
    upper_95: Share = Field(description="one-sided 95 % upper bound of the share decided otherwise")
    allowed: Share = Field(description="share that may be decided otherwise")
    error_median: Annotated[float, Field(ge=0)] | None = Field(description="of the output range")
    error_max: Annotated[float, Field(ge=0)] | None = Field(description="of the output range")
    passed: bool
    reasons: tuple[str, ...] = Field(description="why it did not pass")


class Trial:
    """Under way from its making to `close`.

    Args:
        active: the version that answers.
        candidate: the one that is tried; its golden vectors were answered rightly.
        rules: what is asked of it.
    """

    def __init__(self, active: HostedModel, candidate: HostedModel, rules: Rules) -> None:
        self._active, self._candidate, self._rules = active, candidate, rules
        self._comparer = Comparer(active.bundle)
        self._lock = threading.Lock()
        self._errors: list[float] = []
        self._times: tuple[list[int], list[int]] = ([], [])
        self._asked = self._failed = self._disagreed = 0
        self._mirror = Mirror(f"trial {active.name}", candidate.submit, self._judge)
        active.mirrors = (*active.mirrors, self._mirror)

    @property
    def inputs(self) -> int:
        """Those that were compared."""
        return self._asked

    @property
    def done(self) -> bool:
        return self._asked >= self._rules.inputs

    def close(self) -> None:
        """Compare nothing more."""
        self._active.mirrors = tuple(mirror for mirror in self._active.mirrors if mirror is not self._mirror)
        self._mirror.close()

    def report(self) -> TrialReport:
        """What has come out."""
        with self._lock:
            finite = [error for error in self._errors if error != float("inf")]
            ours, theirs = (int(median(times)) if times else None for times in self._times)
            return TrialReport(
                schema_="edgemed/trial/1",
                created=stamp(),
                model=self._active.name,
                active=_version(self._active, ours),
                candidate=_version(self._candidate, theirs),
                inputs=self._asked,
                failed=self._failed,
                disagreed=self._disagreed,
                upper_95=upper_bound(self._disagreed, self._asked) if self._asked else 1.0,
                allowed=self._rules.disagree,
                error_median=median(finite) if finite else None,
                error_max=max(finite, default=None),
                passed=not (reasons := self._reasons(ours, theirs)),
                reasons=tuple(reasons),
            )

    def _judge(self, ours: Reply, theirs: Reply | EdgemedError) -> None:
        with self._lock:
            self._asked += 1
            if isinstance(theirs, EdgemedError):
                self._failed += 1
                return
            difference = self._comparer.compare(ours.outputs, theirs.outputs)
            far = not self._comparer.decides and difference.error > self._rules.tolerance
            self._disagreed += far or not difference.decision
            self._errors.append(difference.error)
            self._times[0].append(compute_ns(ours))
            self._times[1].append(compute_ns(theirs))

    def _reasons(self, ours: int | None, theirs: int | None) -> list[str]:
        rules, found = self._rules, []
        if self._failed:
            found.append(f"It did not answer {self._failed} of {self._asked} live inputs.")
        if self._disagreed > rules.disagree * self._asked:
            found.append(
                f"It decided {self._disagreed} of {self._asked} live inputs otherwise than the active version."
            )
        if ours is not None and theirs is not None and slower(theirs, ours, rules.slower):
            found.append(f"It takes {theirs / 1e6:.1f} ms where the active version takes {ours / 1e6:.1f} ms.")
        return found


def slower(theirs_ns: int, ours_ns: int, factor: float) -> bool:
    """Whether one median is too much above the other."""
    return theirs_ns > factor * ours_ns and theirs_ns - ours_ns > _NOISE_NS


def _version(model: HostedModel, median_ns: int | None) -> TrialVersion:
    info = model.info
    return TrialVersion(
        version=model.version,
        digest=model.bundle.digest,
        backend=info.backend,
        precision=info.precision,
        median_ns=median_ns,
    )
