"""Signatures: the fakes have none that the real bindings lack, and the room calls none that they do not take."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from edgemed.engine.bridge import version_number
from edgemed.engine.names import NAMES
from tests.engine import fetch_bindings
from tests.engine.conftest import ROWS, surveyed
from tests.engine.fake_runtime import EngineScript
from tests.engine.fake_tensorrt import Script, make_fake
from tests.engine.test_engine_conformance import RECEIVERS, dotted, native_modules

# the same type in the words of 8.6, 10 and 11
WORDS = (
    (r"typing\.SupportsInt", "int"),
    (r"typing_extensions\.Buffer|collections\.abc\.Buffer", "buffer"),
    (r"typing_extensions\.CapsuleType", "capsule"),
    (r"collections\.abc\.Sequence\[|List\[", "list["),
    (r"nvinfer1::|nvonnxparser::|\w+_bindings\.\w+\.|ILogger\.(?=Severity)", ""),
)


@dataclass(frozen=True)
class Signature:
    """Parameters without `self`, as (name, type, has a default), and what comes back."""

    parameters: tuple[tuple[str, str, bool], ...]
    result: str

    def takes(self, positional: int, keywords: set[str]) -> bool:
        names = [name for name, _, _ in self.parameters]
        given = set(names[:positional]) | keywords
        wanted = {name for name, _, default in self.parameters if not default}
        return positional <= len(names) and keywords <= set(names[positional:]) and wanted <= given


def signatures(doc: list[str]) -> list[Signature]:
    """Every overload in a pybind11 docstring."""
    lines = [line for line in doc if re.match(r"(\d+\. )?\w+\(self: ", line)]
    return [_signature(line) for line in lines]


def _signature(line: str) -> Signature:
    for pattern, word in WORDS:
        line = re.sub(pattern, word, line)
    inside, _, result = line.partition("(")[2].rpartition(") -> ")
    rows = []
    for part in _split(inside)[1:]:  # the first is self
        name, _, rest = part.partition(": ")
        kind, _, default = rest.partition(" = ")
        rows.append((name, kind, bool(default)))
    return Signature(tuple(rows), result)


def _split(text: str) -> list[str]:
    """At the commas outside brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "[(<") - (char in "])>")
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def test_docstrings_are_read() -> None:
    doc = [
        "set_input_shape(*args, **kwargs)",
        "1. set_input_shape(self: tensorrt_bindings.tensorrt.IExecutionContext, name: str, shape: tuple) -> bool",
        "2. f(self: a_bindings.a.B, x: typing.SupportsInt, y: List[int] = [1, 2]) -> List[nvinfer1::Dims]",
    ]
    assert signatures(doc) == [
        Signature((("name", "str", False), ("shape", "tuple", False)), "bool"),
        Signature((("x", "int", False), ("y", "list[int]", True)), "list[Dims]"),
    ]
    plain, defaulted = signatures(doc)
    assert plain.takes(2, set())
    assert plain.takes(1, {"shape"})
    assert not plain.takes(1, set())
    assert not plain.takes(3, set())
    assert defaulted.takes(1, set())
    assert not defaulted.takes(1, {"z"})


# ---- the fakes


def faults(fake: Any, survey: dict[str, Any]) -> Iterator[str]:
    """Everything that a fake module has and the surveyed one lacks, or has otherwise."""
    for name, cls in vars(fake).items():
        if not inspect.isclass(cls):
            continue
        if name not in survey["classes"]:
            yield name
        elif "__members__" in dir(cls):
            yield from (f"{name}.{member}" for member in cls.__members__ if member not in survey["enums"][name])
        else:
            public = [attribute for attribute in vars(cls) if not attribute.startswith("_")]
            yield from (
                f"{name}.{a}"
                for a in public
                if not _is_real(cls, a, survey["classes"][name], survey["properties"][name])
            )


def _is_real(cls: type, attribute: str, members: dict[str, list[str]], properties: list[str]) -> bool:
    if attribute not in members:
        return False
    value = inspect.getattr_static(cls, attribute)
    if not inspect.isfunction(value):  # a nested enum, a property, or a plain value in its place
        return attribute in properties or inspect.isclass(value)
    return attribute not in properties and any(_same(value, real) for real in signatures(members[attribute]))


def _same(method: Any, real: Signature) -> bool:
    """Whether a fake's method is one overload, its defaulted last parameters possibly left out."""
    ours = [p for p in inspect.signature(method).parameters.values() if p.name != "self"]
    theirs, rest = real.parameters[: len(ours)], real.parameters[len(ours) :]
    named = [p.name for p in ours] == [name for name, _, _ in theirs] and all(default for _, _, default in rest)
    returned = inspect.signature(method).return_annotation
    return (
        named
        and all(_agrees(p.annotation, kind) for p, (_, kind, _) in zip(ours, theirs, strict=True))
        and _agrees(returned, real.result)
    )


def _agrees(annotation: Any, kind: str) -> bool:
    text = "Any" if annotation is inspect.Parameter.empty else str(annotation)
    return text == "Any" or text.removesuffix(" | None") == kind


@ROWS
def test_the_fake_has_nothing_that_the_real_bindings_lack(row: fetch_bindings.Bindings, surveys: Any) -> None:
    assert not list(faults(make_fake(row.version, Script(), EngineScript()), surveyed(surveys, row)))


@pytest.mark.rtx
def test_the_running_half_has_nothing_that_tensorrt_rtx_lacks() -> None:
    survey = fetch_bindings.survey_rtx()
    fake = make_fake("11.4.0", Script(), EngineScript(), "tensorrt_rtx")
    running = ("Runtime", "ICudaEngine", "IExecutionContext", "IErrorRecorder", "IOutputAllocator", "ErrorCodeTRT")
    assert not [fault for fault in faults(fake, survey) if fault.partition(".")[0] in running]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda trt: setattr(trt.Runtime, "load", lambda self: None), "Runtime.load"),
        (lambda trt: setattr(trt.ICudaEngine, "num_layers", lambda self: 3), "ICudaEngine.num_layers"),
        (lambda trt: setattr(trt.ICudaEngine, "is_debug_tensor", property(len)), "ICudaEngine.is_debug_tensor"),
        (lambda trt: setattr(trt, "Engine", type("Engine", (), {})), "Engine"),
        (
            lambda trt: setattr(trt.IExecutionContext, "execute_async_v3", _wrong_type),
            "IExecutionContext.execute_async_v3",
        ),
        (lambda trt: setattr(trt.IExecutionContext, "infer_shapes", _wrong_result), "IExecutionContext.infer_shapes"),
        (
            lambda trt: setattr(trt.IExecutionContext, "set_tensor_address", _short),
            "IExecutionContext.set_tensor_address",
        ),
    ],
)
def test_a_fault_of_the_fake_is_seen(change: Any, fault: str, surveys: Any) -> None:
    fake = make_fake("11.4.0", Script(), EngineScript())
    change(fake)
    assert list(faults(fake, surveys[fetch_bindings.ROWS[-1].version])) == [fault]


def _wrong_type(self: Any, stream_handle: str) -> bool: ...


def _wrong_result(self: Any) -> bool: ...


def _short(self: Any, name: str) -> bool: ...


# ---- the room's calls


@dataclass(frozen=True)
class Use:
    """One attribute of a native object in the room's source: read, or called with so many arguments."""

    name: str
    line: int
    called: bool
    positional: int = 0
    keywords: frozenset[str] = frozenset()
    starred: bool = False


def uses(tree: ast.Module) -> Iterator[Use]:
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    handed_on = {id(arg) for call in calls.values() for arg in call.args}  # a method may be called by who gets it
    for node in ast.walk(tree):
        name = _native_name(node) if isinstance(node, ast.Attribute) else None
        if name is None or name not in NAMES or id(node) in handed_on:
            continue
        call = calls.get(id(node))
        if call is None:
            yield Use(name, node.lineno, called=False)
        else:
            starred = any(isinstance(arg, ast.Starred) for arg in call.args)
            keywords = frozenset(word.arg for word in call.keywords if word.arg)
            yield Use(name, node.lineno, True, len(call.args), keywords, starred)


def _native_name(node: ast.Attribute) -> str | None:
    """`Class.attribute` of a chain of names, as the table writes it."""
    parts = dotted(node)
    if parts is None:
        return None
    if "trt" in parts:
        return ".".join(parts[parts.index("trt") + 1 :])
    if parts[0] in ("self", "natives"):
        parts = [parts[1].lstrip("_"), *parts[2:]]
    owner = RECEIVERS.get(parts[0])
    return f"{owner}.{parts[1]}" if owner and len(parts) == 2 else None


def misused(use: Use, survey: dict[str, Any]) -> bool:
    owner, _, attribute = use.name.partition(".")
    doc = survey["classes"].get(owner, {}).get(attribute or "__init__")
    if doc is None:
        return False  # whether it exists is the table's question
    is_method = bool(attribute) and attribute not in survey["properties"][owner] and bool(signatures(doc))
    if not use.called:
        return is_method
    if attribute in survey["properties"].get(owner, ()):
        return True
    own = 1 if attribute == "__init__" else 0  # `Base.__init__(self)` names itself
    fits = any(real.takes(use.positional - own, set(use.keywords)) for real in signatures(doc))
    return not use.starred and bool(signatures(doc)) and not fits


@ROWS
def test_the_room_calls_what_the_bindings_take(row: fetch_bindings.Bindings, surveys: Any) -> None:
    survey, version = surveyed(surveys, row), version_number(row.version)
    all_uses = [(file, use) for file, tree in native_modules() for use in uses(tree)]
    assert {"Builder.create_network", "Runtime.deserialize_cuda_engine", "IExecutionContext.execute_async_v3"} <= {
        use.name for _, use in all_uses if use.called
    }
    wrong = [
        f"{file}:{use.line} {use.name}"
        for file, use in all_uses
        if NAMES[use.name].covers("tensorrt", version) and misused(use, survey)
    ]
    assert not wrong


@pytest.mark.parametrize(
    "code",
    [
        "context.set_tensor_address('x')",
        "self._context.execute_async_v3(stream, event)",
        "engine.num_io_tensors()",
        "n = engine.get_tensor_name",
        "trt.Runtime()",
        "context.set_input_shape(tensor='x', shape=(1,))",
    ],
)
def test_a_wrong_call_is_seen(code: str, surveys: Any) -> None:
    (use,) = uses(ast.parse(code))
    assert misused(use, surveys[fetch_bindings.ROWS[-1].version])
