"""The table of errors after which nothing more can be asked of CUDA, against NVIDIA's own header."""

from __future__ import annotations

import re

import pytest

from edgemed.engine.failure import STICKY
from tests.runtime.fakecuda import fetch


def test_every_error_that_the_header_calls_fatal_is_in_the_table() -> None:
    if reason := fetch.unsupported():
        pytest.skip(reason)
    header = fetch.headers() / "driver_types.h"
    enum = header.read_text().partition("enum __device_builtin__ cudaError\n")[2].partition("};")[0]
    rows = re.findall(r"/\*\*(.*?)\*/\s*(cudaError\w+)\s*=\s*\d+", enum, re.DOTALL)
    fatal = {name for comment, name in rows if "must be terminated" in " ".join(comment.replace("*", " ").split())}
    assert {"cudaErrorIllegalAddress", "cudaErrorLaunchFailure"} <= fatal
    assert fatal <= STICKY.keys()
    ordinary = {"cudaErrorInvalidValue", "cudaErrorMemoryAllocation", "cudaErrorStreamCaptureUnsupported"}
    assert ordinary <= {name for _, name in rows}
    assert not ordinary & STICKY.keys()
