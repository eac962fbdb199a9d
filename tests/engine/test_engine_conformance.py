"""The engine room against the real bindings: no name it uses is missing where it uses it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgemed.engine.bridge import version_number
from edgemed.engine.names import NAMES
from tests.engine import fetch_bindings
from tests.engine.conftest import CACHE, ROWS, surveyed

ROOM = Path(__file__).resolve().parents[2] / "edgemed" / "engine"
BASICS = set(dir(object)) | set(dir(int)) | set(dir(str)) | set(dir(dict)) | set(dir(list))

# how the room calls objects of the bindings; test_no_object_goes_by_another_name keeps this complete
RECEIVERS = {
    "trt": "",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "tensor": "ITensor",
    "error": "ParserError",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
}
NO_BINDINGS = ("names", "onboard", "record", "plans", "calib_cache", "target", "trtexec")  # modules that see none


def exists(survey: dict[str, Any], name: str) -> bool:
    owner, dot, attribute = name.partition(".")
    return attribute in survey["classes"].get(owner, ()) if dot else owner in survey["names"]


@ROWS
def test_names_exist_where_the_table_says_and_nowhere_else(row: fetch_bindings.Bindings, surveys: Any) -> None:
    survey = surveyed(surveys, row)
    assert survey["version"] == row.version
    version = version_number(row.version)
    wrong = [name for name, span in NAMES.items() if exists(survey, name) != span.covers("tensorrt", version)]
    assert not wrong


@pytest.mark.rtx
def test_names_exist_in_tensorrt_rtx() -> None:
    survey = fetch_bindings.survey_rtx()
    assert not [name for name, span in NAMES.items() if exists(survey, name) != span.rtx]


def test_the_survey_tells_names_apart(surveys: Any) -> None:
    newest = surveys[fetch_bindings.ROWS[-1].version]
    assert exists(newest, "Builder.create_network")
    assert not exists(newest, "Builder.build_engine")
    assert not exists(newest, "UffParser")


# ---- the room's source against the table


def room_trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(ROOM.glob("*.py")):
        yield path, ast.parse(path.read_text())


def dotted(node: ast.expr) -> list[str] | None:
    """`a.b.c` as its parts, or None where it starts with anything but a name."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (head := dotted(node.value)) is not None:
        return [*head, node.attr]
    return None


def used_names(tree: ast.AST) -> set[str]:
    """Names of the bindings that a module uses, as the table writes them."""
    used = set()
    for node in ast.walk(tree):
        parts = dotted(node) if isinstance(node, ast.Attribute) else None
        if parts and "trt" in parts[:3]:  # `trt.X`, `bridge.trt.X` and `self._bridge.trt.X`
            parts = parts[parts.index("trt") :]
        elif parts and parts[0] in ("self", "natives"):  # `self._context.x` and `natives.engine.x`
            parts = [parts[1].lstrip("_"), *parts[2:]]
        if parts and len(parts) > 1 and parts[0] in RECEIVERS:
            owner = RECEIVERS[parts[0]]
            used.add(".".join([owner, parts[1]] if owner else parts[1:]))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("has", "find") and node.args:
            used |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return used


def owners_only(names: set[str]) -> set[str]:
    """Without the prefixes that walking `trt.A.B` yields for `trt.A`."""
    return {name for name in names if not any(other.startswith(f"{name}.") for other in names)}


def native_modules() -> list[tuple[str, ast.Module]]:
    return [
        (path.name, tree)
        for path, tree in room_trees()
        if path.stem
        not in ("names", "onboard", "record", "plans", "calib_cache", "target", "trtexec")  # they see no bindings
    ]


@pytest.mark.parametrize(("file", "tree"), native_modules(), ids=lambda part: part if isinstance(part, str) else "")
def test_the_room_uses_no_name_that_is_not_in_the_table(file: str, tree: ast.Module) -> None:
    classes = {name.partition(".")[0] for name in NAMES}
    strays = {name for name in owners_only(used_names(tree)) if name not in NAMES and name not in classes}
    assert not strays


def test_the_table_has_no_name_that_the_room_does_not_use() -> None:
    sources = "\n".join(path.read_text() for path in sorted(ROOM.glob("*.py")) if path.stem != "names")
    unused = [name for name in NAMES if not re.search(rf"\b{re.escape(name.split('.')[-1])}\b", sources)]
    assert not unused


@pytest.mark.parametrize(("file", "tree"), native_modules(), ids=lambda part: part if isinstance(part, str) else "")
def test_no_object_goes_by_another_name(file: str, tree: ast.Module, surveys: Any) -> None:
    """An attribute that only the bindings have, on whatever it is read, is in the table too."""
    theirs = {name for survey in surveys.values() for members in survey["classes"].values() for name in members}
    declared = {name.split(".")[-1] for name in NAMES}
    ours = {name for _, other in room_trees() for name in defined_names(other)}
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    read = {node.attr for node in attributes if (dotted(node) or [""])[0] not in modules}
    assert not (read & theirs) - declared - ours - BASICS


def defined_names(tree: ast.Module) -> set[str]:
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {n.target.id for n in ast.walk(tree) if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    stores = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    return names | {n.attr for n in stores if isinstance(n.value, ast.Name) and n.value.id == "self"}


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("bridge.trt.BuilderFlag.BF16", "BuilderFlag.BF16"),
        ("trt.Refitter(network, logger)", "Refitter"),
        ("builder.max_batch_size = 1", "Builder.max_batch_size"),
        ("bridge.find('BuilderFlag.FP8')", "BuilderFlag.FP8"),
        ("network.get_input(0).dynamic_range", "INetworkDefinition.get_input"),
        ("self._context.execute_async_v2([], 0)", "IExecutionContext.execute_async_v2"),
        ("natives.engine.num_bindings", "ICudaEngine.num_bindings"),
        ("self._bridge.trt.Refitter(network, logger)", "Refitter"),
    ],
)
def test_a_stray_name_is_seen(code: str, name: str) -> None:
    assert name in used_names(ast.parse(code))


# ---- our own classes over the real bases

BRIDGE = """
import json
from edgemed.base.errors import DeviceStateError
from edgemed.base.progress import SilentProgress
from edgemed.engine.bridge import Bridge, ErrorLog
from edgemed.engine.build import BuildRequest, build_plan
from edgemed.engine.monitor import PhaseTree, make_monitor
log = ErrorLog()
bridge = Bridge(trt, "tensorrt", log)
bridge.logger.log(trt.ILogger.Severity.ERROR, "first")
bridge.logger.log(trt.ILogger.Severity.VERBOSE, "second")
said = {"errors": list(log.errors), "strong": bridge.strongly_typed, "cancel": bridge.can_cancel}
with SilentProgress().stage("x") as stage:
    if bridge.can_cancel:
        phases = PhaseTree(stage)
        monitor = make_monitor(trt, phases)
        assert isinstance(monitor, trt.IProgressMonitor)
        monitor.phase_start("build", None, 2)
        before = monitor.step_complete("build", 0)
        phases.cancelled.set()
        said["steps"] = [before, monitor.step_complete("build", 1)]
        monitor.phase_finish("build")
    try:
        build_plan(bridge, BuildRequest(b"", "int8"), stage)
    except DeviceStateError as error:
        said["without a GPU"] = [error.exit_code, error.what]
print(json.dumps(said))
"""


@ROWS
def test_our_classes_work_over_the_real_bases(row: fetch_bindings.Bindings) -> None:
    if row.unsupported:
        pytest.skip(row.unsupported)
    done = fetch_bindings.run_over_stubs(row, fetch_bindings.fetch(row, CACHE), BRIDGE, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    number = version_number(row.version)
    assert said["errors"] == ["first"]
    assert said["strong"] == (number >= (10, 12))
    assert said["cancel"] == (number >= (9, 3))
    assert said.get("steps") == ([True, False] if number >= (9, 3) else None)
    code, what = said["without a GPU"]
    assert code == 4
    assert what.startswith(f"tensorrt {row.version} cannot start its builder")
