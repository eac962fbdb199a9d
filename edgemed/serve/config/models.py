"""The models of a site: what each is for, when it runs, and how it is watched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgemed.base.quantity import SECOND
from edgemed.bundle.model import RunPrecision
from edgemed.serve.config.destinations import ResultKind
from edgemed.serve.config.network import AeTitle
from edgemed.serve.config.section import MINUTE, Name, Nanoseconds, Section, Text

Level = Literal["instance", "series", "study"]


class Match(Section):
    """Which inputs a model is for. An absent line matches everything; texts are compared without regard to case."""

    called: tuple[AeTitle, ...] = ()
    calling: tuple[AeTitle, ...] = ()
    inlets: tuple[Name, ...] = Field((), description="'dicom', 'stow', or the name of a folder")
    modalities: tuple[Text, ...] = ()
    sop_classes: tuple[Text, ...] = ()
    body_parts: tuple[Text, ...] = ()
    series_description: Text | None = Field(None, description="a pattern with * and ?")


class Completeness(Section):
    """When a series or study is taken to be complete. The reason that applied stands in the journal and the result."""

    mpps: bool = Field(True, description="the images that ended procedure steps name, where peers tell of any")
    expected: bool = Field(True, description="as many images as the file's own counts say, where it says any")
    association: bool = Field(True, description="the association that brought it was released, and `after` has passed")
    after_ns: Nanoseconds = Field(2 * SECOND, description="quiet time after the association's end")
    quiet_ns: Nanoseconds = Field(60 * SECOND, description="quiet time where nothing else tells")
    reopen: bool = Field(True, description="a late image makes a new revision of the result")


class Shadow(Section):
    """A share of the traffic is run in another precision too, and the answers are compared."""

    precision: RunPrecision = "fp32"
    share: Annotated[float, Field(gt=0, le=1)] = 0.05
    tolerance: Annotated[float, Field(gt=0)] | None = Field(
        None, description="of the output range; None: 4 times what the build measured"
    )
    window: Annotated[int, Field(ge=10)] = Field(200, description="of comparisons over which an alarm is decided")
    disagree: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="share of disagreeing answers that is put up with; more, beyond chance, raises the alarm"
    )


class Trial(Section):
    """What a new version of a model goes through before it answers, and for a while after."""

    inputs: Annotated[int, Field(ge=0, le=100_000)] = Field(
        50, description="live inputs on which it is compared with the active version; 0: golden vectors alone decide"
    )
    disagree: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share of them that may be decided otherwise"
    )
    tolerance: Annotated[float, Field(gt=0)] = Field(
        0.1, description="of the output range: how far outputs that decide nothing (a regression) may differ"
    )
    slower: Annotated[float, Field(ge=1)] = Field(1.5, description="times the active version's median time")
    watch_ns: Nanoseconds = Field(10 * MINUTE, description="after the switch; meanwhile the old version is kept loaded")
    failures: Annotated[int, Field(ge=1)] = Field(
        3, description="requests that the worker failed, and lost workers, in that time that bring the old version back"
    )


class ModelSection(Section):
    """One model at the bedside."""

    name: Name
    bundle: Path
    runner: Literal["auto", "tensorrt", "onnxruntime"] = "auto"
    precision: RunPrecision | None = None
    when_lost: Literal["refuse", "onnxruntime", "queue"] = Field(
        "queue", description="while its worker does not answer: refuse, answer on the CPU, or wait"
    )
    hang_ns: Nanoseconds | None = Field(
        None, description="without a step its worker hangs and is killed; None: 5 s on TensorRT, 60 s on a CPU"
    )
    level: Level = "instance"
    match: Match = Match()
    deadline_ns: Nanoseconds = Field(30 * SECOND, description="from the last image to the result")
    late: Literal["deliver", "drop"] = Field("deliver", description="a result after its deadline: marked late, or none")
    batch: Annotated[int, Field(ge=1, le=1024)] | None = Field(None, description="None: what the bundle allows")
    results: Annotated[tuple[ResultKind, ...], Field(min_length=1)] = ("sr",)
    send_to: tuple[Name, ...] = ()
    notify_refusals: bool = Field(True, description="an image that is not analysed is answered by an SR that says why")
    completeness: Completeness = Completeness()
    shadow: Shadow | None = None
    trial: Trial = Trial()
    max_ood: Annotated[float, Field(gt=0)] | None = Field(
        None, description="out-of-distribution score above which an input is not analysed"
    )
    hot: Path | None = Field(None, description="a smaller bundle that takes over while the device throttles")
