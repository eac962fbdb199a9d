"""A short run of the fuzzer with every test run; `make fuzz` runs it for minutes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from tests.build.conftest import REPO

_SECONDS = 15
_MOST_MB = 3000


def test_no_damaged_file_gets_past_the_readers(tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.images",
        f"-max_total_time={_SECONDS}",
        # libFuzzer asks for the peak of its process, which begins at that of the process that made it: this one
        f"-rss_limit_mb={_MOST_MB + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}",
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
