"""The files of `docker/jetson`, held to their rules without a container engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgemed.base.toml import read_toml
from edgemed.device.profile import shipped_profiles
from tests.docker import fetch
from tests.docker.fetch import BOARDS, HERE, REPO, SCRIPTS, Board, resolution
from tests.docker.test_rehearsal import environment, instructions

DOCKERFILES = sorted(SCRIPTS.glob("*.Dockerfile"))
SHELL = sorted([*SCRIPTS.glob("*.sh"), *HERE.glob("*.sh")])
PROJECT = read_toml(REPO / "pyproject.toml")["project"]
COMPOSE: dict[str, Any] = yaml.safe_load((SCRIPTS / "compose.yaml").read_text(encoding="utf-8"))
SERVICE: dict[str, Any] = COMPOSE["services"]["edgemed"]
NAMES = [path.stem for path in DOCKERFILES]

pytestmark = pytest.mark.filterwarnings("error")


def tool(name: str) -> str:
    """A linter of the `dev` extra; on x86-64 its wheel brings the program itself."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"could not import {name}: its wheels are for other machines")
    return found


def stages(dockerfile: Path) -> list[list[tuple[str, str]]]:
    """Instructions of each stage; what stands before the first FROM is left out."""
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions(dockerfile):
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest))
    return found


def ignores(dockerfile: Path) -> list[tuple[str, str]]:
    """Each ignore of a rule, and the line above it."""
    lines = dockerfile.read_text(encoding="utf-8").splitlines()
    return [(line, lines[number - 1]) for number, line in enumerate(lines) if line.startswith("# hadolint ignore=")]


def pins(path: Path) -> dict[str, str]:
    """Version of each pinned distribution."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


# ── linters ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=NAMES)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    command = [tool("hadolint"), "--no-color", "--config", str(SCRIPTS / ".hadolint.yaml"), str(dockerfile)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM ubuntu\nRUN cd /x && apt-get install g++\n")
    command = [tool("hadolint"), "--config", str(SCRIPTS / ".hadolint.yaml"), str(tmp_path / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert {"DL3006", "DL3003", "DL3008"} <= set(re.findall(r"DL\d{4}", done.stdout))


def test_only_one_rule_is_ignored_and_its_reason_is_given() -> None:
    for dockerfile in DOCKERFILES:
        rules = {line for line, _ in ignores(dockerfile)}
        assert rules == {"# hadolint ignore=DL3008"}
        assert any("versions of Ubuntu's own packages" in above for _, above in ignores(dockerfile))


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.stem)
def test_shellcheck_finds_nothing(script: Path) -> None:
    command = [tool("shellcheck"), "--severity", "style", "--shell", "sh", str(script)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert script.stat().st_mode & 0o111 == 0o111


# ── Dockerfiles ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=NAMES)
def test_bases_are_nvidias_and_pinned(dockerfile: Path) -> None:
    names: set[str] = set()
    for stage in stages(dockerfile):
        base, _, name = stage[0][1].partition(" AS ")
        assert base in names or re.fullmatch(r"nvcr\.io/nvidia/[a-z0-9-]+:(?!latest)[\w.${}-]+", base), base
        names.add(name)
    assert "latest" not in " ".join(rest for _, rest in instructions(dockerfile))


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=NAMES)
def test_nothing_is_fetched_past_the_pins(dockerfile: Path) -> None:
    words = {word for word, _ in instructions(dockerfile)}
    assert "ADD" not in words
    text = " ".join(rest for word, rest in instructions(dockerfile) if word in ("RUN", "COPY"))
    assert not re.search(r"https?://|curl|wget|pip3? install|tensorflow", text)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=NAMES)
def test_the_last_stage_installs_nothing_and_runs_as_nobody_special(dockerfile: Path) -> None:
    last = stages(dockerfile)[-1]
    runs = [rest for word, rest in last if word == "RUN"]
    assert runs == ["/opt/edgemed/libexec/prepare.sh && /opt/edgemed/libexec/check.sh"]
    (user,) = (rest for word, rest in last if word == "USER")
    assert user == "10001"
    prepare = (SCRIPTS / "prepare.sh").read_text(encoding="utf-8")
    assert f"uid={user} state=/var/lib/edgemed" in prepare
    after = [word for word, _ in last[[word for word, _ in last].index("USER") :]]
    assert "RUN" not in after
    assert "COPY" not in after
    kinds = [word for word, _ in last]
    assert {"HEALTHCHECK", "ENTRYPOINT", "VOLUME", "LABEL"} <= set(kinds)
    assert [rest for word, rest in last if word == "VOLUME"] == ["/var/lib/edgemed"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=NAMES)
def test_compilers_stay_in_the_stage_that_compiles(dockerfile: Path) -> None:
    first, *others = stages(dockerfile)
    assert any("g++" in rest for _, rest in first)
    assert not [rest for stage in others for _, rest in stage if re.search(r"g\+\+|gcc|make|-devel", rest)]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=NAMES)
def test_what_is_copied_exists_and_is_sent(dockerfile: Path) -> None:
    allowed = (SCRIPTS / f"{dockerfile.name}.dockerignore").read_text(encoding="utf-8").splitlines()
    for word, rest in instructions(dockerfile):
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (REPO / source).exists(), source
                assert any(
                    source == entry[1:] or source.startswith(f"{entry[1:]}/") for entry in allowed if entry[0] == "!"
                )


def test_both_images_behave_alike() -> None:
    six, seven = (environment(path) for path in DOCKERFILES)
    assert six == seven
    assert six["EDGEMED_STATE"] == "/var/lib/edgemed"
    assert "stubs" not in " ".join(six.values())
    last = [[entry for entry in stages(path)[-1] if entry[0] not in ("FROM", "LABEL")] for path in DOCKERFILES]
    assert last[0] == last[1]


def test_the_images_are_for_the_stacks_that_the_profiles_know() -> None:
    rows = [row for profile in shipped_profiles() for row in profile.software if row.bundled]
    six = {row.tensorrt for row in rows if row.jetpack[0].startswith("6")}
    seven = {row.tensorrt for row in rows if row.jetpack[0].startswith(("7.0", "7.1"))}
    texts = [path.read_text(encoding="utf-8") for path in DOCKERFILES]
    assert {".".join(version.split(".")[:3]) for version in six} == set(re.findall(r"TENSORRT=r([\d.]+)", texts[0]))
    assert set(re.findall(r"^ARG TENSORRT=([\d.]+)-1", texts[1], re.MULTILINE)) == seven
    for row in rows:
        if row.jetpack[0][0] in "67":
            tag = f"py{row.python.replace('.', '')}"
            assert f"constraints-{tag}.txt" in texts[0 if row.jetpack[0][0] == "6" else 1]


# ── compose.yaml ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_compose_takes_every_right_that_is_not_needed() -> None:
    wanted = {
        "runtime": "nvidia",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "user": "10001",
        "command": ["serve", "/etc/edgemed/bedside.toml"],
        "restart": "unless-stopped",
    }
    assert {key: SERVICE.get(key) for key in wanted} == wanted
    assert not SERVICE.keys() & {"privileged", "cap_add", "devices", "pid", "network_mode", "userns_mode"}
    assert SERVICE["ports"] == ["${EDGEMED_DICOM_PORT:-11112}:11112"]
    assert SERVICE["mem_limit"] == SERVICE["memswap_limit"]
    assert isinstance(SERVICE["pids_limit"], int)


def test_compose_gives_one_place_to_write() -> None:
    state, bundles, config, *facts = SERVICE["volumes"]
    assert state == "state:/var/lib/edgemed"
    assert COMPOSE["volumes"] == {"state": {}}
    assert bundles.endswith(":/bundles:ro")
    assert config.endswith(":/etc/edgemed:ro")
    assert [fact["target"] for fact in facts] == [
        "/etc/nv_tegra_release",
        "/run/edgemed/device-tree",
        "/etc/nvpmodel.conf",
        "/var/lib/nvpmodel",
    ]
    assert all(fact["read_only"] is True and fact["bind"] == {"create_host_path": False} for fact in facts)
    assert all(entry.split(":")[0] == "/tmp" and "nosuid,nodev" in entry for entry in SERVICE["tmpfs"])


def test_compose_builds_what_is_there() -> None:
    template = SERVICE["build"]["dockerfile"]
    variable = "${EDGEMED_JETPACK:-jetpack6}"
    assert variable in template
    built = {template.replace(variable, name) for name in ("jetpack6", "jetpack7")}
    assert built == {path.relative_to(REPO).as_posix() for path in DOCKERFILES}
    assert (SCRIPTS / SERVICE["build"]["context"]).resolve() == REPO


# ── pinned wheels ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: Path(board.pins).stem)
def test_every_pin_has_a_wheel_for_the_board(board: Board) -> None:
    """Asked of the index, metadata only; pycuda and tensorrt are not among the pins."""
    found = dict(re.findall(r"^ \+ (\S+)==(\S+)$", resolution(board), re.MULTILINE))
    assert {canonicalize_name(name): version for name, version in found.items()} == pins(REPO / board.pins)


def test_a_pin_without_a_wheel_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "CACHE", tmp_path)
    text = (SCRIPTS / "pycuda.txt").read_text(encoding="utf-8")
    (tmp_path / "pins.txt").write_text(text)  # pycuda comes as source alone
    with pytest.raises(subprocess.CalledProcessError) as caught:
        resolution(Board(str(tmp_path / "pins.txt"), "3.10", "aarch64-manylinux_2_35"))
    assert "pycuda" in caught.value.stderr


@pytest.mark.parametrize("path", [*SCRIPTS.glob("*-py*.txt"), *HERE.glob("*-py*.txt")], ids=lambda path: path.name)
def test_pins_are_hashed_and_name_no_host(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for line in text.splitlines():
        assert re.fullmatch(r"[a-z0-9._-]+==[\w.!+]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line), line


@pytest.mark.parametrize(
    "path", [*SCRIPTS.glob("constraints-*.txt"), *HERE.glob("constraints-*.txt")], ids=lambda p: p.stem
)
def test_pins_hold_all_that_the_board_needs(path: Path) -> None:
    python = f"3.{path.stem.rpartition('-py3')[2]}"
    machine = "x86_64" if path.parent == HERE else "aarch64"
    env = {"python_version": python, "platform_machine": machine, "sys_platform": "linux"}
    there = pins(path)
    extras = PROJECT["optional-dependencies"]
    for need in map(Requirement, [*PROJECT["dependencies"], *extras["imaging"], *extras["serve"]]):
        if need.name != "edgemed" and (need.marker is None or need.marker.evaluate(env)):
            assert need.specifier.contains(there[canonicalize_name(need.name)]), need
    assert not there.keys() & {"tensorflow", "tf2onnx", "keras", "tensorrt", "pycuda", "matplotlib"}


def test_pycuda_is_the_one_that_the_extra_asks_for() -> None:
    needs = map(Requirement, PROJECT["optional-dependencies"]["gpu"])
    (need,) = (need for need in needs if need.name == "pycuda")
    assert need.specifier.contains(pins(SCRIPTS / "pycuda.txt")["pycuda"])
