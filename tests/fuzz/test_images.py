"""A short run of the fuzzer with every test run; `make fuzz` runs it for minutes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.build.conftest import REPO

_SECONDS = 15


def test_no_damaged_file_gets_past_the_readers(tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.images",
        f"-max_total_time={_SECONDS}",
        f"-artifact_prefix={tmp_path}/",
    ]
    done = subprocess.run(
        command,
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "seeds" in done.stdout
