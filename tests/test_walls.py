"""The walls of the house: who imports whom, and that importing edgemed stays light."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgemed.base.toml import read_toml

REPO = Path(__file__).resolve().parent.parent
PACKAGE = REPO / "edgemed"
CONFIG = REPO / "importlinter.toml"
CONTRACTS = read_toml(CONFIG)["tool"]["importlinter"]["contracts"]
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))

# the room that owns a heavy package: no other may import it, nor hand its name to `require`
OWNERS = {
    "matplotlib": "report",
    "onnxruntime": "runners",
    "pycuda": "runtime",
    "av": "runtime",
    "gi": "runtime",
    "tensorflow": "convert",
    "keras": "convert",
    "tf2onnx": "convert",
    "tensorrt": "engine",
    "tensorrt_rtx": "engine",
    "pydicom": "imaging",
    "imagecodecs": "imaging",
    "nibabel": "imaging",
    "highdicom": "imaging",
}
# messages of the DICOM network are data sets
ALSO = {"pydicom": PACKAGE / "serve" / "dicom"}
# what a daemon imports when it starts to listen, and nothing before: pynetdicom wants pydicom
LISTENING = (
    "edgemed.serve.dicom",
    "edgemed.serve.http",
    "edgemed.serve.observed",
    "edgemed.serve.replay",
    "edgemed.cli.way",  # it sends and receives itself, and is imported by the command that asks for it
)
HEAVY = (*OWNERS, "PIL", "h5py", "onnx", "onnx_ir", "onnxslim", "scipy", "skimage")


def run_python(code: str, *arguments: str, cwd: Path = REPO) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "cli"])
def test_every_room_has_one_row_in_the_contracts(room: str) -> None:
    rows = [
        c for c in CONTRACTS if c.get("source_modules") == [f"edgemed.{room}"] and "edgemed.*" in c["forbidden_modules"]
    ]
    assert len(rows) == 1
    assert rows[0]["name"].startswith(f"{room} imports ")


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("base/spans.py", "import edgemed.device.hole", "base imports no room"),
        ("graph/hole.py", "def f():\n    from edgemed.quantize import hole", "graph imports base"),
        ("build/hole.py", "import edgemed.cli", "only __main__ imports cli"),
        ("device/hole.py", "import edgemed.build.hole", "the bedside reaches neither"),
        ("calibrate/hole.py", "def f():\n    import onnxruntime", "onnxruntime belongs to runners"),
        ("graph/hole.py", "import tensorflow.keras", "belong to convert"),
        ("runners/hole.py", "import tensorrt_rtx", "belong to engine"),
        ("evaluate/hole.py", "import matplotlib.pyplot", "matplotlib belongs to report"),
        ("engine/hole.py", "import pycuda.driver", "pycuda belongs to runtime.cuda"),
        ("runtime/hole.py", "import pycuda.driver", "pycuda belongs to runtime.cuda"),
        ("runtime/hole.py", "import edgemed.build.hole", "the bedside reaches neither"),
        ("profile/hole.py", "import edgemed.build.hole", "the bedside reaches neither"),
        ("profile/hole.py", "import edgemed.evaluate.hole", "profile imports base"),
    ],
)
def test_a_hole_in_a_wall_is_seen(tmp_path: Path, file: str, line: str, broken: str) -> None:
    package = tmp_path / "edgemed"
    for room in {c["source_modules"][0].partition(".")[2] for c in CONTRACTS if "source_modules" in c} - {"*"} | {
        "cli"
    }:
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").touch()
        (package / room / "hole.py").touch()
    for name in ("__init__.py", "__main__.py"):
        (package / name).touch()
    (package / "build/hole.py").write_text("import edgemed.convert.hole\n")
    (package / file).write_text(line + "\n")
    cli = "from importlinter.cli import lint_imports_command as main; main()"
    done = run_python(cli, "--config", str(CONFIG), "--no-cache", "--no-logo", cwd=tmp_path)
    verdicts = [row for row in done.stdout.splitlines() if row.endswith("BROKEN")]
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(broken in row for row in verdicts), done.stdout


def imported_names(path: Path) -> set[tuple[str, int]]:
    """Root packages that a file names: in imports, and as first argument of `require` and `import_module`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name.partition(".")[0], node.lineno) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add((node.module.partition(".")[0], node.lineno))
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("require", "import_module", "__import__") and isinstance(node.args[0].value, str):
                found.add((node.args[0].value.partition(".")[0], node.lineno))
    return found


def test_heavy_packages_are_named_by_their_owners_only() -> None:
    strays = [
        f"{path.relative_to(REPO)}:{line} names {package}, which belongs to {OWNERS[package]}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for package, line in sorted(imported_names(path))
        if package in OWNERS and path.relative_to(PACKAGE).parts[0] != OWNERS[package]
        if not path.is_relative_to(ALSO.get(package, PACKAGE / OWNERS[package]))
    ]
    assert not strays


def test_require_by_name_does_not_escape_the_reader(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(
        "from edgemed.base.lazy import require\ndef f():\n    require('onnxruntime.tools', extra='', purpose='')\n"
    )
    assert ("onnxruntime", 3) in imported_names(file)


BLOCKER = """
import importlib, sys
heavy = set(sys.argv[1].split(","))
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in heavy:
            raise ImportError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
failed = []
for module in sys.argv[2:]:
    try:
        importlib.import_module(module)
    except BaseException as error:
        failed.append(f"{module}: {error!r}")
sys.exit("\\n".join(failed) or 0)
"""


def test_every_module_imports_without_the_heavy_packages() -> None:
    # __main__ runs the command line when it is imported; the help tests below run it
    modules = [module_name(path) for path in sorted(PACKAGE.rglob("*.py")) if path.stem != "__main__"]
    modules = [module for module in modules if not module.startswith(LISTENING)]
    assert modules
    done = run_python(BLOCKER, ",".join(HEAVY), *modules)
    assert done.returncode == 0, done.stderr


def test_the_blocker_blocks() -> None:
    assert "json is blocked" in run_python(BLOCKER, "json", "json").stderr


HELP = """
import runpy, sys
sys.argv = ["edgemed", "--help"]
try:
    runpy.run_module("edgemed", run_name="__main__")
except SystemExit as stop:
    code = stop.code
print(code, *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
BASELINE = """
import sys, typer, rich.console, rich.progress, rich.table
app = typer.Typer()
@app.command()
def one() -> None: ...
@app.command()
def two() -> None: ...
sys.argv = ["x", "--help"]
try:
    app()
except SystemExit as stop:
    code = stop.code
print(code, *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def test_help_imports_only_stdlib_typer_and_rich() -> None:
    ours, baseline = (run_python(code).stderr.split() for code in (HELP, BASELINE))
    assert ours[0] == baseline[0] == "0"
    assert set(ours[1:]) - set(baseline[1:]) - sys.stdlib_module_names <= {"edgemed"}


def test_help_names_the_commands() -> None:
    done = run_python(HELP)
    for command in ("build", "run", "evaluate", "inspect", "verify", "devices"):
        assert command in done.stdout


RUFF_CASES = {
    "import tensorflow\n": "TID253",
    "import click\n": "TID251",
    "import time\n\nstart = time.time()\n": "TID251",
    "import os.path\n": "TID251",
}


@pytest.mark.parametrize(("code", "rule"), RUFF_CASES.items())
def test_ruff_refuses(code: str, rule: str) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    command = [str(ruff if ruff.exists() else shutil.which("ruff")), "check", "--output-format", "json", "-"]
    done = subprocess.run(
        [*command, "--stdin-filename", "edgemed/device/x.py"], cwd=REPO, input=code, capture_output=True, text=True
    )
    assert rule in {finding["code"] for finding in json.loads(done.stdout)}
