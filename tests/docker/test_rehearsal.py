"""The images' own scripts, run for the CPU part in a root of Debian's packages, in namespaces, without a network.

What it shows: the install lines work from wheels alone, held to their hashes; the image's user, with a read-only root
and no capability, gets answers from edgemed; nothing is written outside the state volume and /tmp; no compiler and no
TensorFlow are there. What it does not show: anything of CUDA, TensorRT, pycuda or aarch64.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from evaluate.bundles import write_bundle, write_images
from evaluate.hostile import with_golden

from tests.docker.fetch import REPO, SCRIPTS, other_python, packages, unsupported, wheels
from tests.runtime.fakecuda import fetch as fakecuda

UNSHARE = [
    "unshare",
    *["--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts", "--propagation", "private"],
]
REHEARSE = str(REPO / "tests" / "docker" / "rehearse.sh")
FOLDERS = ("proc", "dev", "sys", "tmp", "run", "root", "opt", "var/lib", "etc", "src")


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """`(word, rest)` of each instruction, its continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def environment(dockerfile: Path) -> dict[str, str]:
    """What the final stage's ENV sets."""
    (rest,) = (rest for word, rest in instructions(dockerfile) if word == "ENV")
    return dict(re.findall(r"(\w+)=(\S+)", rest))


@dataclass(frozen=True)
class Image:
    """A rehearsed image: its root, its state volume, and a folder of bundles."""

    root: Path
    state: Path
    bundles: Path

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the image would: its user, its ENV, read-only."""
        env = {**environment(SCRIPTS / "jetpack6.Dockerfile"), **variables}
        pairs = [f"{name}={value}" for name, value in env.items()]
        inside = [REHEARSE, "run", str(self.root), str(self.state), str(self.bundles), *pairs, *command]
        return subprocess.run([*UNSHARE, *inside], capture_output=True, text=True, timeout=120)


def assemble(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a RUN line of a build would."""
    return subprocess.run(
        [*UNSHARE, REHEARSE, "assemble", str(root), *command], capture_output=True, text=True, timeout=300
    )


def make_root(root: Path, debs: Path) -> Path:
    """Unpack packages without their scripts; what those would have made of /etc is made here."""
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for deb in sorted(debs.glob("*.deb")):  # `dpkg-deb --extract` would put folders in the place of those links
        unpack = 'dpkg-deb --fsys-tarfile "$0" | tar --extract --keep-directory-symlink --directory "$1"'
        subprocess.run(["sh", "-c", unpack, str(deb), str(root)], check=True)
    for name in ("passwd", "group"):
        shutil.copy(root / "usr/share/base-passwd" / f"{name}.master", root / "etc" / name)
    if not (root / "usr/bin/sh").exists():
        (root / "usr/bin/sh").symlink_to("dash")
    return root


def must(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done


def refuse(reason: str) -> None:
    """In CI everything is there that this needs: then it is a failure, not a skip."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"The images of docker/jetson cannot be rehearsed: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The stages `assembled` and the last one, as both Dockerfiles run them."""
    if reason := other_python():
        pytest.skip(reason)  # as TensorRT's bindings, which have no wheels for some Pythons
    if reason := unsupported():
        refuse(reason)
    if os.geteuid() != 0:
        refuse("it takes root to make a root with the image's own user in it")
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        refuse(f"namespaces are not permitted here ({tried.stderr.strip()})")
    folder = tmp_path_factory.mktemp("image")
    assembled = make_root(folder / "assembled", packages() / "assembly")
    _bring_wheels(assembled)
    must(assemble(assembled, "/src/install.sh", "/src/wheels", "/src/constraints-py311.txt", "/opt/edgemed"))
    root = make_root(folder / "root", packages() / "runtime")
    shutil.move(assembled / "opt/edgemed", root / "opt/edgemed")
    (root / "opt/edgemed/libexec").mkdir()
    for script in ("prepare.sh", "check.sh", "health.sh"):
        shutil.copy(SCRIPTS / script, root / "opt/edgemed/libexec")
    must(assemble(root, "/opt/edgemed/libexec/prepare.sh"))
    must(assemble(root, "/opt/edgemed/libexec/check.sh"))
    state, bundles = folder / "state", folder / "bundles"
    state.mkdir()
    os.chown(state, 10001, 10001)
    bundles.mkdir()
    with_golden(write_bundle(bundles / "little.edgemed", boundaries={"float": 0.5}))
    shutil.copy(next(write_images(folder / "data", {"a": [100]}).rglob("*.png")), bundles / "image.png")
    for path in (folder, bundles, *bundles.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return Image(root, state, bundles)


def _bring_wheels(root: Path) -> None:
    """What COPY brings: the wheels that are fetched, edgemed's own, and the script."""
    fetched = wheels()
    shutil.copytree(fetched / "wheels", root / "src/wheels", copy_function=_link)
    source = root / "src/source"
    for name in ("edgemed", "profiles", "calibration"):
        shutil.copytree(REPO / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, source)
    build = [str(SCRIPTS / "build-edgemed.sh"), str(source), str(fetched / "tools"), str(root / "src/wheels")]
    must(subprocess.run(build, capture_output=True, text=True))
    shutil.copy(SCRIPTS / "install.sh", root / "src")
    shutil.copy(REPO / "tests/docker/constraints-py311.txt", root / "src")


def _link(source: str, target: str) -> None:
    """A hard link where the file system allows it: the wheels are 240 MB."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def snapshot(root: Path) -> Mapping[str, tuple[int, int, int]]:
    """Kind, size and time of change of everything in a root."""
    found = ((str(path.relative_to(root)), path.lstat()) for path in root.rglob("*"))
    return {name: (status.st_mode, status.st_size, status.st_mtime_ns) for name, status in found}


def test_edgemed_starts_and_says_what_it_is(image: Image) -> None:
    assert must(image.run("edgemed", "--version")).stdout.startswith("edgemed 0.")


def test_it_runs_as_the_images_user_without_any_capability(image: Image) -> None:
    status = must(image.run("/bin/sh", "-c", "id -u; cat /proc/self/status")).stdout
    assert status.startswith("10001\n")
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    for kind in ("Eff", "Prm", "Bnd", "Inh", "Amb"):
        assert re.search(rf"^Cap{kind}:\s+0+$", status, re.MULTILINE), kind


def test_the_doctor_finds_nothing_wrong_and_says_what_is_missing(image: Image) -> None:
    document = json.loads(must(image.run("edgemed", "doctor", "--json")).stdout)
    lines = {line["check"]: line for line in document["lines"]}
    assert [lines[name]["status"] for name in ("onnxruntime", "disk", "memory")] == ["ok"] * 3
    assert lines["disk"]["facts"]["state_dir"] == "/var/lib/edgemed"
    assert {lines[name]["status"] for name in ("cuda", "tensorrt", "pycuda")} == {"unknown"}


def test_a_bundle_is_verified_and_run(image: Image) -> None:
    assert "is whole" in must(image.run("edgemed", "verify", "/bundles/little.edgemed")).stdout
    done = must(image.run("edgemed", "run", "/bundles/little.edgemed", "/bundles/image.png", "--json"))
    (result,) = json.loads(done.stdout)["results"]
    assert result["file"] == "/bundles/image.png"


def test_health_is_the_doctors_and_the_bundles(image: Image, tmp_path: Path) -> None:
    health = re.search(r'CMD \["(\S+)"\]', (SCRIPTS / "jetpack6.Dockerfile").read_text(encoding="utf-8"))
    assert health is not None
    must(image.run(health[1]))
    must(image.run(health[1], EDGEMED_BUNDLE="/bundles/little.edgemed"))
    broken = shutil.copytree(image.bundles / "little.edgemed", image.bundles / "broken.edgemed")
    try:
        (broken / "graphs/float.onnx").write_bytes(b"changed")
        assert image.run(health[1], EDGEMED_BUNDLE="/bundles/broken.edgemed").returncode == 5
    finally:
        shutil.rmtree(broken)
    assert image.run(health[1], EDGEMED_STATE="/opt/edgemed").returncode == 4  # a state that cannot be written


def test_only_state_and_tmp_can_be_written(image: Image) -> None:
    for folder in ("/", "/etc", "/opt/edgemed", "/bundles", "/run", "/usr/bin"):
        done = image.run("/bin/sh", "-c", f": > {folder}/x")
        assert done.returncode != 0, folder
    must(image.run("/bin/sh", "-c", ": > /tmp/x && : > /var/lib/edgemed/x && rm /var/lib/edgemed/x"))


def test_nothing_else_is_written(image: Image) -> None:
    before, state = snapshot(image.root), snapshot(image.state)
    for command in (
        ["edgemed", "--version"],
        ["edgemed", "doctor"],
        ["edgemed", "devices"],
        ["edgemed", "verify", "/bundles/little.edgemed"],
        ["edgemed", "run", "/bundles/little.edgemed", "/bundles/image.png"],
    ):
        must(image.run(*command))
    assert snapshot(image.root).items() ^ before.items() == set()
    assert snapshot(image.state).items() ^ state.items() == set()


def test_there_is_no_network_so_nothing_is_fetched(image: Image) -> None:
    code = "import socket; print([name for _, name in socket.if_nameindex()])"
    assert must(image.run("python", "-c", code)).stdout == "['lo']\n"


def test_no_compiler_no_tensorflow_no_pip_can_be_reached(image: Image) -> None:
    must(image.run("/opt/edgemed/libexec/check.sh"))
    tools = "cc gcc g++ c++ clang ld as make nvcc pip pip3"
    found = image.run("/bin/sh", "-c", f"for t in {tools}; do command -v $t; done; true").stdout
    assert found == ""
    for module in ("tensorflow", "keras", "pip", "setuptools", "distutils.command.build_ext", "pytest"):
        assert image.run("python", "-c", f"import {module}").returncode != 0, module
    compiler = re.compile(r"(cc1|collect2|lto1|libtensorflow)")
    libraries = {path.name for path in image.root.rglob("*") if compiler.match(path.name)}
    assert libraries == set()
    assert not (image.root / "root/.cache").exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("usr/bin/g++", "it holds a compiler, /usr/bin/g++"),
        ("opt/edgemed/lib/python3.11/site-packages/tensorflow/__init__.py", "found ['tensorflow']"),
        ("usr/local/cuda/lib64/stubs/libcuda.so", "it holds /usr/local/cuda/lib64/stubs"),
        ("root/.cache/pip/x", "it holds /root/.cache/pip"),
    ],
)
def test_the_check_of_the_build_refuses_such_an_image(image: Image, path: str, said: str) -> None:
    planted = image.root / path
    top = next(folder for folder in (planted, *planted.parents) if folder.parent.exists())
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text("#!/bin/sh\n")
    planted.chmod(0o755)
    try:
        done = assemble(image.root, "/opt/edgemed/libexec/check.sh")
        assert done.returncode == 1
        assert said in done.stderr
    finally:
        shutil.rmtree(top) if top.is_dir() else top.unlink()
    must(assemble(image.root, "/opt/edgemed/libexec/check.sh"))


def test_a_wheel_that_was_changed_is_refused(image: Image, tmp_path: Path) -> None:
    """`image` made sure of namespaces; the root of its first stage is still there."""
    assembled = image.root.parent / "assembled"
    (wheel,) = (assembled / "src/wheels").glob("typer-*.whl")
    whole = wheel.read_bytes()
    wheel.unlink()  # a link to the cache: it is not written through
    wheel.write_bytes(whole + b"\0")
    try:
        done = assemble(assembled, "/src/install.sh", "/src/wheels", "/src/constraints-py311.txt", "/opt/again")
        assert done.returncode != 0
        assert "DO NOT MATCH THE HASHES" in done.stderr
    finally:
        wheel.write_bytes(whole)
        shutil.rmtree(assembled / "opt/again", ignore_errors=True)


@pytest.mark.slow
def test_pycuda_is_built_against_a_stub_and_runs_on_a_driver(tmp_path: Path) -> None:
    """`build-pycuda.sh` with NVIDIA's headers; the driver is the host-only one that the runtime is tested on."""
    if reason := other_python():
        pytest.skip(reason)
    if reason := fakecuda.unsupported():
        refuse(reason)
    fake = fakecuda.ensure()
    (headers,) = fake.library.parent.parent.glob(f"headers-{fakecuda.digest(*fakecuda.HEADERS)}")
    root, out = tmp_path / "cuda", tmp_path / "wheels"
    (root / "lib64/stubs").mkdir(parents=True)
    out.mkdir()
    build = [str(SCRIPTS / "build-pycuda.sh"), str(SCRIPTS / "pycuda.txt"), str(wheels() / "tools"), str(out)]
    env = {**os.environ, "CUDA_ROOT": str(root)}
    without = subprocess.run(build, capture_output=True, text=True, env=env)
    assert (without.returncode, "no stub of libcuda.so" in without.stderr) == (4, True)
    (root / "include").symlink_to(headers)
    shutil.copy(fake.library, root / "lib64/stubs/libcuda.so")
    assert "linked to libcuda.so.1" in must(subprocess.run(build, capture_output=True, text=True, env=env)).stdout
    (wheel,) = out.glob("pycuda-*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    code = "import pycuda.driver as d; d.init(); print(d.get_version(), d.Device.count())"
    env |= {"LD_LIBRARY_PATH": str(fake.library.parent), "PYTHONPATH": str(tmp_path / "site")}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert must(run).stdout == "(12, 0, 0) 1\n"
