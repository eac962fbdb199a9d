"""`edgemed run` on streams: a line for each answer as it comes, at the end an account of every frame."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgemed.base.errors import EdgemedError, InputError, Terminated, UsageError
from edgemed.cli.console import err, say
from edgemed.cli.runner import Chosen, choose_lane

if TYPE_CHECKING:
    from edgemed.bundle.read import Bundle
    from edgemed.evaluate.execute import Answer, OutputReader
    from edgemed.runtime.frames import Outcome, Source
    from edgemed.runtime.preprocessing import Preprocessing, Wanted
    from edgemed.runtime.recipe_fill import RecipeFill
    from edgemed.runtime.source_run import Account, SourceRun, Trace
    from edgemed.runtime.sources.open import Address


@dataclass(frozen=True)
class StreamOptions:
    """What the command line says of a stream.

    Attributes:
        policy: text form; `None`: `latest` of what comes by itself, `lossless` of files.
        live: play files in their own time.
    """

    policy: str | None = None
    frames: int | None = None
    seconds: float | None = None
    slots: int | None = None
    live: bool = False
    fps: float | None = None
    preprocess: Wanted = "auto"
    trace: Path | None = None

    def wanted(self) -> bool:
        """Whether any of them asks for a stream."""
        return self != StreamOptions()


def addresses_of(inputs: Sequence[str], options: StreamOptions) -> list[Address] | None:
    """The addresses of a stream, or `None` where these are files to be run one after the other."""
    from edgemed.runtime.sources.open import parse_address

    addresses = [parse_address(text) for text in inputs]
    if options.wanted() or any(address.live or address.kind == "video" for address in addresses):
        return addresses
    return None


def run_stream(
    bundle: Bundle,
    addresses: Sequence[Address],
    options: StreamOptions,
    chosen: Chosen,
    *,
    as_json: bool,
) -> None:
    """Run a bundle on a stream and print what comes of it.

    Raises:
        EdgemedError: the source or the device failed; frames failed, once the stream has ended.
        KeyboardInterrupt, Terminated: after the account was printed.
    """
    from edgemed.evaluate.execute import OutputReader
    from edgemed.runtime.recipe_fill import RecipeFill
    from edgemed.runtime.source_run import Trace

    cpu = RecipeFill.of(bundle)
    trace = None if options.trace is None else Trace()
    name = ", ".join(address.shown for address in addresses)
    stream, fill, policy = _prepare(bundle, addresses, options, chosen, cpu, trace)
    out: _Output = _Document(str(bundle.path), name, policy) if as_json else _Lines()
    ended, failures = _follow(stream, fill, OutputReader.of(bundle), name, out)
    if ended is None or isinstance(ended, KeyboardInterrupt | Terminated) or stream.account.counts.submitted:
        out.account(stream.account, fill)
    if trace is not None and options.trace is not None:
        trace.write(options.trace)
        more = f" ({trace.left_out} later spans left out)" if trace.left_out else ""
        say(("trace", "dim"), f"  {options.trace}{more}", console=err)
    if ended is not None:
        raise ended
    if failures.first is not None:
        what = f"{failures.count} of {stream.account.counts.submitted} frames failed; the first: {failures.first.what}"
        raise type(failures.first)(what, failures.first.hint)


def _prepare(
    bundle: Bundle,
    addresses: Sequence[Address],
    options: StreamOptions,
    chosen: Chosen,
    cpu: RecipeFill,
    trace: Trace | None,
) -> tuple[SourceRun, Preprocessing, str]:
    from edgemed.imaging.open import open_image
    from edgemed.runtime.lane import SLOTS
    from edgemed.runtime.policy import LATEST, LOSSLESS, Policy
    from edgemed.runtime.preprocessing import Preprocessing
    from edgemed.runtime.source_run import SourceRun
    from edgemed.runtime.sources.clips import ClipSource
    from edgemed.runtime.sources.limit import LimitedSource
    from edgemed.runtime.sources.open import open_source
    from edgemed.runtime.sources.peek import PeekedSource

    again = None if any(address.live for address in addresses) else partial(open_source, addresses, reader=open_image)
    opened = PeekedSource(open_source(addresses, reader=open_image, live=options.live, fps=options.fps), again)
    fill = Preprocessing(cpu, opened, options.preprocess, mixed=len(addresses) > 1)
    source: Source = LimitedSource(opened, frames=options.frames, seconds=options.seconds)
    if fill.time is not None:
        source = ClipSource(source, fill.time)
    if options.policy is not None:
        policy = Policy.parse(options.policy)
    else:
        policy = LATEST if options.live or any(address.live for address in addresses) else LOSSLESS
    slots = SLOTS if options.slots is None else options.slots
    if slots < 1:
        raise UsageError(f"{slots} slots hold nothing.", f"Give 1 or more; {SLOTS} is usual.")
    lane = choose_lane(bundle, chosen, slots, fill.kernels)
    if options.preprocess == "gpu" and not lane.on_gpu:
        raise UsageError(
            "ONNX Runtime runs no preprocessing kernels.", "Leave out --preprocess gpu, or take --runner tensorrt."
        )
    return SourceRun(lane.lane, source, fill, policy, on_drop=fill.dropped, trace=trace), fill, str(policy)


def _follow(
    stream: SourceRun, fill: Preprocessing, read: OutputReader, name: str, out: _Output
) -> tuple[KeyboardInterrupt | Terminated | EdgemedError | None, _Failures]:
    """Print outcomes until the stream ends; what ended it, if it was not its own end."""
    failures = _Failures()
    try:
        with closing(iter(stream)) as outcomes:  # type: ignore[type-var]
            for outcome in outcomes:
                error = _show(outcome, fill, read, name, out)
                if error is not None:  # of this frame; the next may be fine
                    failures.add(error)
                    out.failure(name, outcome.frame, error)
    except (KeyboardInterrupt, Terminated, EdgemedError) as end:
        return end, failures
    return None, failures


def _show(outcome: Outcome, fill: Preprocessing, read: OutputReader, name: str, out: _Output) -> EdgemedError | None:
    """Print an answer; or why there is none."""
    try:
        out.answer(_answer(outcome, fill, read, name))
    except EdgemedError as error:
        return error
    return None


def _answer(outcome: Outcome, fill: Preprocessing, read: OutputReader, name: str) -> Answer:
    """How a frame's answer reads.

    Raises:
        EdgemedError: why there is none.
    """
    from edgemed.evaluate.execute import Answer
    from edgemed.runtime.frames import Failure

    prepared = fill.prepared(outcome.frame)
    if isinstance(outcome, Failure):
        raise outcome.error
    outputs = read.on_source(outcome.outputs, prepared)
    return Answer(
        name,
        outputs,
        outcome.info,
        sum(span.duration_ns for span in outcome.spans if span.name == "compute"),
        read.reading(outputs),
        index=outcome.frame,
        age_ns=outcome.answered_ns - outcome.captured_ns,
    )


class _Failures:
    """How many, and the first: there may be many."""

    def __init__(self) -> None:
        self.first: EdgemedError | None = None
        self.count = 0

    def add(self, error: EdgemedError) -> None:
        self.first = self.first or error
        self.count += 1


class _Output(Protocol):
    def answer(self, answer: Answer) -> None: ...

    def failure(self, name: str, frame: int, error: EdgemedError) -> None: ...

    def account(self, account: Account, fill: Preprocessing) -> None: ...


class _Lines:
    """For people."""

    def answer(self, answer: Answer) -> None:
        say(answer.line())

    def failure(self, name: str, frame: int, error: EdgemedError) -> None:
        say(f"{name} #{frame}  ", ("failed", "red"), f": {error.what}")

    def account(self, account: Account, fill: Preprocessing) -> None:
        for line in account.lines():
            say(line)
        if fill.way.gpu or fill.way.why is not None:  # else there was no choice
            say(f"preprocessing: {fill.way}")


class _Document:
    """One JSON document, written as it comes: a stream may be longer than memory."""

    def __init__(self, bundle: str, name: str, policy: str) -> None:
        self._head = {"bundle": bundle, "input": name, "policy": policy}
        self._begun = False

    def answer(self, answer: Answer) -> None:
        import numpy as np

        if not all(np.isfinite(value).all() for value in answer.outputs.values()):  # JSON has no word for it
            raise InputError("The model answered NaN or infinity.", "Check the model and its recipe.")
        self._add(answer.to_json())

    def failure(self, name: str, frame: int, error: EdgemedError) -> None:
        self._add({"file": name, "index": frame, "error": error.what})

    def account(self, account: Account, fill: Preprocessing) -> None:
        self._begin()
        way = {"on": "gpu" if fill.way.gpu else "cpu", "why": fill.way.why}
        ends = f'"preprocessing": {json.dumps(way)},\n"account": {json.dumps(account.to_json(), indent=2)}'
        sys.stdout.write(f"\n],\n{ends}}}\n")

    def _add(self, result: dict[str, Any]) -> None:
        comma = "," if self._begun else ""
        self._begin()
        sys.stdout.write(f"{comma}\n{json.dumps(result, allow_nan=False)}")

    def _begin(self) -> None:
        if not self._begun:
            sys.stdout.write(f'{json.dumps(self._head)[:-1]}, "results": [')
            self._begun = True
