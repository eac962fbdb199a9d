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


GIVEN_IN_2036 = b"""TRT-8203-EntropyCalibration2
167: 3c009976
168: 3e5d05cc
169: 3c00f9f4
170: 3d925bb9
171: 3eb0e47d
172: 3c00f9f4
173: 3e297d3a
174: 3e05400d
175: 3c00f9f4
176: 3d43b9a8
177: 3e0bf43e
178: 3c00f9f4
179: 3d6b8351
180: 3def4d0e
"""
"""First lines of the cache in NVIDIA/TensorRT issue 2036, made by hand and read by TensorRT 8.2.3."""
WRITTEN_BY_TENSORRT = b"""TRT-8601-EntropyCalibration2
images: 3b66eddc
168: 3dc6cf6e
169: 3c010a14
170: 3dbcb6fb
171: 3e890b78
172: 3c010a14
173: 3df09dcc
174: 3e085975
175: 3c003871
176: 3d237c3a
177: 3d237c3a
178: 3c99b161
179: 3d05a915
180: 3c00f9f4
"""
"""First lines of a cache that TensorRT 8.6.1 wrote, graph input included (ultralytics/ultralytics issue 14121)."""


@pytest.mark.parametrize(("golden", "version"), [(GIVEN_IN_2036, "8.2.3"), (WRITTEN_BY_TENSORRT, "8.6.1.6")])
def test_caches_that_tensorrt_read_and_wrote_are_written_again_byte_by_byte(golden, version):
    scales = read_calib_cache(golden)
    assert len(scales) == golden.count(b"\n") - 1
    assert calib_cache(table({name: scale * 127 for name, scale in scales.items()}), version) == golden


def test_the_samples_make_sense_read_this_way():
    # 169 and 172 are sigmoids of a YOLO: their range ends just below 1, which no other byte order gives
    scales = read_calib_cache(GIVEN_IN_2036)
    assert scales["169"] == scales["172"] == pytest.approx(1 / 127, rel=1e-3)


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
