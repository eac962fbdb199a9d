"""Whether a board will take a model, asked of its profile and of the operator table; TensorRT need not be here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from edgemed.base.errors import InputError, UsageError
from edgemed.base.runner import TensorSpec
from edgemed.device.profile import DeviceProfile, SoftwareRow, load_profile
from edgemed.engine import trtexec
from edgemed.engine.build import Precision
from edgemed.engine.eras import Release
from edgemed.engine.onboard import choose_graph
from edgemed.graph.lint import Finding, lint
from edgemed.graph.target import lint_target
from edgemed.graph.tensorrt import Parser, parser_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Command", "Subject", "Verdict", "judge"]

_ROLES: Final = {
    "float": "FP32",
    "fp16": "types in the graph, FP16 where it holds",
    "int8": "FP32 with Q/DQ",
    "int8_fp16": "types in the graph: INT8, and FP16 where it holds",
}


@dataclass(frozen=True)
class Subject:
    """What is judged.

    Args:
        name: path of the bundle, as commands are to name it; of a bundle still to be built, where it will lie.
        precision: what is asked for.
        graphs: by name, path inside the bundle and how to get it.
        inputs: shapes.
        profiles: least, usual and greatest shape of inputs whose batch varies, by name.
        layers: names of Keras layers.
        caches: paths of calibration caches in the bundle; None where it is not built yet.
        lone: the one graph there is, for an ONNX file that is no bundle.
        own: the bundle's own precision, where another is asked for.
    """

    name: str
    precision: Precision
    graphs: Mapping[str, tuple[str, Callable[[], ir.Model]]]
    inputs: Sequence[TensorSpec] = ()
    profiles: Mapping[str, Sequence[tuple[int, ...]]] = field(default_factory=dict)
    layers: Sequence[str] = ()
    caches: Collection[str] | None = None
    lone: str | None = None
    own: Precision | None = None

    @property
    def own_precision(self) -> Precision:
        """What the bundle is built for when nothing is asked for."""
        return self.own or self.precision


@dataclass(frozen=True)
class Command:
    """A line to type on the board, and what it is for."""

    purpose: str
    line: str


@dataclass(frozen=True)
class Verdict:
    """What a board says to a model.

    `others` says of each other graph of a bundle what it is, or why it is refused; `dla` why the board's DLA cannot run
    it in INT8, empty where it can or there is none; `unverified` names the profile's fields that
    this rests on and no primary source confirms.
    """

    device: str
    name: str
    jetpack: str
    compute_capability: str
    tensorrt: str
    opset: int
    precision: Precision
    takes: bool
    graph: str | None
    why: str
    others: Mapping[str, str]
    dla: str
    findings: tuple[Finding, ...]
    commands: tuple[Command, ...]
    unverified: tuple[str, ...]
    table: str
    table_is_own: bool

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """The findings for which the board refuses."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def judge(device: str, subject: Subject) -> Verdict:
    """Hold a model against a board.

    Args:
        device: `NAME[@JETPACK]`, or the path of a profile.
        subject: the model.

    Raises:
        InputError: no such device or JetPack.
        UsageError: its profile names no TensorRT.
    """
    profile, row = load_profile(device)
    if row is None:
        raise UsageError(
            f"The profile of {profile.id} names no TensorRT to check against.",
            "Name a Jetson module; for an RTX GPU `edgemed build` compiles the graph where tensorrt_rtx is installed.",
        )
    return _Case(device, profile, row, subject).verdict()


class _Case:
    """One board and one model."""

    def __init__(self, device: str, profile: DeviceProfile, row: SoftwareRow, subject: Subject) -> None:
        self.device, self.profile, self.row, self.subject = device, profile, row, subject
        self.release = Release(row.tensorrt)
        self.has_int8 = profile.int8 or subject.precision != "int8"
        self.precision: Precision = subject.precision if self.has_int8 else "fp16"

    def verdict(self) -> Verdict:
        findings = [] if self.has_int8 else [self._no_int8()]
        graph, why, refusal = self._choose()
        if refusal is not None:
            findings.append(refusal)
        if graph is not None:
            findings += self._lint(graph)
        findings.sort(key=lambda finding: finding.severity != "error")
        takes = all(finding.severity != "error" for finding in findings)
        parser = parser_of(self.row.tensorrt)
        parsed = all(finding.severity != "error" or finding.rule.startswith("device") for finding in findings)
        return Verdict(
            device=self.device,
            name=self.profile.name,
            jetpack=self.device.partition("@")[2] or self.row.jetpack[-1],
            compute_capability=self.profile.compute_capability,
            tensorrt=self.row.tensorrt,
            opset=self.row.opset,
            precision=self.subject.precision,
            takes=takes,
            graph=graph if takes else None,
            why=why if takes else "",
            others=self._others(graph) if takes else {},
            dla=self._no_dla(),
            findings=tuple(findings),
            commands=tuple(self._commands(graph)) if graph is not None and parsed else (),
            unverified=tuple(self._unverified()),
            table=_table(parser),
            table_is_own=parser.own_list,
        )

    def _no_int8(self) -> Finding:
        what = (
            f"TensorRT has no INT8 kernels for its GPU (compute capability {self.profile.compute_capability}): "
            f"INT8 is impossible on {self.profile.name}."
        )
        return Finding("device-int8", None, what, "error", remedy="Build it with --fp16.")

    def _choose(self) -> tuple[str | None, str, Finding | None]:
        """The graph to build from, why that one, and the refusal where there is none."""
        if self.subject.lone is not None:
            return self.subject.lone, "the file itself", None
        try:
            name, strong = choose_graph(list(self.subject.graphs), self.precision, self.release)
        except InputError as error:
            return None, "", Finding("device-graph", None, error.what, "error", remedy=error.hint)
        how = "takes types from the graph" if strong else "is told precision by flags"
        return name, f"{_ROLES.get(name, name)}; TensorRT {self.row.tensorrt} {how}", None

    def _lint(self, graph: str) -> list[Finding]:
        model = self.subject.graphs[graph][1]()
        own = self.row.opset if self.row.opset != parser_of(self.row.tensorrt).opset else None
        found = lint_target(model, self.row.tensorrt, layers=self.subject.layers, opset=own)
        if self.subject.profiles:  # the range that an engine needs is there
            found = [finding for finding in found if finding.rule != "target-dynamic"]
        if self.subject.lone is not None:  # our own graphs were held to these rules when they were written
            found += [finding for finding in lint(model) if finding.severity == "error"]
        return found

    def _others(self, chosen: str | None) -> dict[str, str]:
        if self.subject.caches is None:
            return {}  # not built: its graphs are not written yet
        return {name: self._other(name) for name in self.subject.graphs if name != chosen}

    def _other(self, name: str) -> str:
        refused = next((finding for finding in self._lint(name) if finding.severity == "error"), None)
        if refused is not None:
            return f"refused: {refused.message}"
        if name.endswith("fp16") and not self.release.strongly_typed:
            return "types in the graph, which are the way from TensorRT 10.12 on"
        return _ROLES.get(name, name)

    def _commands(self, graph: str) -> list[Command]:
        name, subject = self.subject.name, self.subject
        path = subject.graphs[graph][0]
        onnx = path if subject.lone is not None else f"{name}/{path}"
        stem = name.rpartition("/")[2].removesuffix(".edgemed").removesuffix(".onnx")
        plan = f"{stem}-{self.precision}.plan"
        commands = []
        instead = "" if self.has_int8 else " (FP16 in place of INT8)"
        if self.release.builds_here and subject.lone is None:
            flag = f" --{self.precision}" if self.precision != subject.own_precision else ""
            commands.append(Command(f"on the board{instead}", f"edgemed build {trtexec.quoted(name)}{flag}"))
        elif not self.release.strongly_typed:
            why = "" if self.release.builds_here else ", where edgemed itself does not run"
            line = trtexec.line(onnx, plan, self.precision, inputs=subject.inputs, profiles=subject.profiles)
            commands.append(Command(f"on the board{why}{instead}", line))
        return commands + self._dla(stem)

    def _dla(self, stem: str) -> list[Command]:
        if not self._asks_dla() or self._no_dla():
            return []
        name = self.subject.name
        plain, cache = f"{name}/{self.subject.graphs['float'][0]}", f"{name}/{self.release.cache_path}"
        line = trtexec.line(plain, f"{stem}-int8-dla0.plan", "int8", calibration=cache)
        return [Command("on its DLA, from the plain graph and the calibration cache", line)]

    def _asks_dla(self) -> bool:
        return self.profile.dla_cores > 0 and self.subject.precision == "int8" and self.subject.lone is None

    def _no_dla(self) -> str:
        """Why the DLA cannot run it in INT8, which it takes from a cache only, and with fixed shapes."""
        subject = self.subject
        if not self._asks_dla():
            return ""
        if not self.row.dla:
            return f"TensorRT {self.row.tensorrt} does not drive its DLA"
        if not self.release.reads_cache:
            return f"TensorRT {self.row.tensorrt} reads no calibration cache, the DLA's way to INT8"
        if any(None in spec.shape for spec in subject.inputs):
            return "the DLA takes no open sizes"
        if subject.caches is not None and self.release.cache_path not in subject.caches:
            return f"the bundle has no {self.release.cache_path}; build it with --device {self.device}"
        return ""

    def _unverified(self) -> list[str]:
        """Fields that no primary source confirms, of those that the verdict rests on."""
        row = [field for field in ("tensorrt", "opset") if not self.row.is_verified(field)]
        if self._asks_dla() and not self.row.is_verified("dla"):
            row.append("dla")
        asked = self.subject.precision == "int8" and not self.profile.is_verified("int8")
        return [*row, "int8"] if asked else row


def _table(parser: Parser) -> str:
    """Where the operator list comes from, in words."""
    if parser.own_list:
        return parser.source
    return f"{parser.source}, {parser.how or 'the nearest earlier one that is known'}"
