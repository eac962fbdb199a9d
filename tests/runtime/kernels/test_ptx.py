"""The shipped PTX is what the pinned compiler makes of the source, and every board's assembler takes it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from edgemed.runtime.kernels import block, points
from edgemed.runtime.kernels.device import PTX, SOURCE
from scripts import make_kernels
from scripts.wheels import cache_dir

CACHE = cache_dir()  # now: fixtures move XDG_CACHE_HOME to a private place later
TEXT = PTX.read_text(encoding="utf-8")
BOARDS = [  # A100, desktop Ampere, Orin, Ada, Hopper by the compiler's own assembler; Thor by a newer one
    *((f"sm_{number}", make_kernels.ASSEMBLER) for number in (80, 86, 87, 89, 90)),
    ("sm_110", make_kernels.NEW_ASSEMBLER),
]

needs_wheels = pytest.mark.skipif(make_kernels.unsupported() is not None, reason=str(make_kernels.unsupported()))


@needs_wheels
def test_the_ptx_is_what_the_source_gives_byte_for_byte():
    assert make_kernels.compile_ptx(SOURCE.read_bytes(), CACHE) == TEXT, "run `make kernels`"


def test_drivers_of_jetpack_6_know_its_instruction_set():
    found = re.search(r"^\.version (\d+)\.(\d+)$", TEXT, re.MULTILINE)
    assert found
    assert (int(found[1]), int(found[2])) <= (8, 2)  # CUDA 12.2, of JetPack 6.0
    assert re.search(r"^\.target sm_80$", TEXT, re.MULTILINE)


@needs_wheels
def test_nothing_is_contracted():
    """A fused product would round once where the recipe rounds twice; exponential and power bring their own."""
    body = SOURCE.read_text(encoding="utf-8")
    plain = re.sub(r"powf\(value, a\)|expf\(\(value - a\) \* b\)", "value", body)
    assert plain != body
    ptx = make_kernels.compile_ptx(plain.encode(), CACHE)
    assert "fma.rn" not in ptx
    assert "div.rn.f32" in ptx
    assert ".ftz" not in ptx
    assert "div.approx" not in ptx


@needs_wheels
@pytest.mark.parametrize(("board", "assembler"), BOARDS, ids=[board for board, _ in BOARDS])
def test_every_board_can_be_assembled_for(board: str, assembler: tuple[str, str], tmp_path: Path):
    ptxas = make_kernels.find(make_kernels.fetch(*assembler, CACHE), "ptxas")
    ptxas.chmod(0o755)
    command = [str(ptxas), "-v", f"-arch={board}", str(PTX), "-o", str(tmp_path / "kernels.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", done.stderr)]
    spilled = [int(count) for count in re.findall(r"(\d+) bytes spill stores", done.stderr)]
    assert len(registers) == len(spilled) == 2
    assert max(registers) <= 64  # 1,024 threads of a multiprocessor have 64 each
    assert max(spilled) == 0
    assert (tmp_path / "kernels.cubin").read_bytes()[:4] == b"\x7fELF"


def test_python_and_c_agree_on_the_words():
    source = re.sub(r"/\*.*?\*/", "", SOURCE.read_text(encoding="utf-8"), flags=re.DOTALL)
    head, codes = (re.findall(r"[A-Z_]+", listed) for listed in re.findall(r"enum \{([A-Z_,\s]+)\}", source)[:2])
    assert tuple(head) == (*block.HEAD, "HEAD")
    assert codes == [code.name for code in points.Code]
    assert [code.value for code in points.Code] == list(range(len(codes)))
