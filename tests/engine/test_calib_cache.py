"""The cache against the form that NVIDIA shows, and against the table it came from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import InputError, UsageError
from edgemed.engine.calib_cache import calib_cache, header_number, read_calib_cache
from edgemed.graph.scales import ScaleTable, TensorScale, scale_of

DIGEST = "0" * 64


def table(amax: dict[str, float]) -> ScaleTable:
    return ScaleTable(
        schema="edgemed/scales/1",
        method="entropy",
        images=8,
        data_digest=DIGEST,
        recipe_digest=DIGEST,
        graph_digest=DIGEST,
        tensors={name: TensorScale(amax=a, scale=scale_of(a), seen=a) for name, a in amax.items()},
    )


def test_the_form_is_tensorrts():
    # 0x3c010204 is the FP32 nearest to 1 / 127; 0x3f800000 is 1.0
    cache = calib_cache(table({"input": 1.0, "conv1/Relu:0": 127.0}), "8.6.2.3")
    assert cache == b"TRT-8602-EntropyCalibration2\ninput: 3c010204\nconv1/Relu:0: 3f800000\n"


@pytest.mark.parametrize(
    ("version", "number"), [("8.0.1", 8001), ("8.2.1", 8201), ("8.6", 8600), ("10.3.0.30", 100300), ("10.16.2", 101602)]
)
def test_versions_are_numbered_as_tensorrt_does(version, number):
    assert header_number(version) == number


def test_tensorrt_eleven_has_no_calibrators():
    with pytest.raises(UsageError, match="reads no calibration cache"):
        calib_cache(table({"x": 1.0}), "11.4.1")


names = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1).filter(lambda n: ": " not in n)


@given(st.dictionaries(names, st.floats(0, 1e30, allow_subnormal=False), max_size=8))
def test_every_scale_reads_back_as_the_fp32_that_the_graph_holds(amax):
    scales = read_calib_cache(calib_cache(table(amax), "8.6.1"))
    assert scales == {name: float(np.float32(scale_of(a))) for name, a in amax.items()}


@pytest.mark.parametrize("name", ["a\nb", "a: b", "a\rb"])
def test_a_name_that_would_break_the_file_is_refused(name):
    with pytest.raises(InputError, match="cannot stand in"):
        calib_cache(table({name: 1.0}), "8.6.1")


@pytest.mark.parametrize("data", [b"", b"hello\n", b"TRT-8600-EntropyCalibration2\nx: zz\n", b"\xff\xfe"])
def test_other_files_are_refused(data):
    with pytest.raises(InputError, match="not a calibration cache"):
        read_calib_cache(data)
