"""Which caches an INT8 build writes, and that they hold the scale table."""

from __future__ import annotations

import logging

import pytest

from edgemed.base.errors import InputError
from edgemed.build.caches import calibration_caches
from edgemed.device.profile import shipped_profiles
from edgemed.engine.calib_cache import read_calib_cache
from tests.engine.test_calib_cache import table


@pytest.mark.parametrize(
    ("devices", "files"),
    [
        (["xavier-nx@5.1.3"], ["8.5.2"]),
        (["xavier-nx@5.1.3", "agx-xavier@5.1.7"], ["8.5.2"]),  # the same TensorRT
        (["xavier-nx@4.6", "orin-nano-8gb@6.2"], ["10.3.0", "8.0.1"]),
        (["thor-t5000@7.2.2"], []),  # TensorRT 11 reads none
        (["nano"], []),  # no INT8
        (["rtx-ada"], []),  # no software rows
    ],
)
def test_one_cache_for_each_tensorrt_of_the_named_boards(devices, files):
    assert sorted(calibration_caches(table({"x": 1.0}), devices)) == [f"calib/{name}.cache" for name in files]


def test_without_a_board_all_that_run_int8_get_theirs():
    written = set(calibration_caches(table({"x": 1.0}), []))
    versions = {row.tensorrt for profile in shipped_profiles() if profile.int8 for row in profile.software}
    wanted = {f"calib/{'.'.join(v.split('.')[:3])}.cache" for v in versions if int(v.split(".")[0]) <= 10}
    assert written == wanted
    assert "calib/8.5.2.cache" in written


def test_each_names_its_own_version_and_holds_all_scales():
    caches = calibration_caches(table({"image": 1.0, "m/conv:0": 2.54}), ["xavier-nx@4.6", "agx-orin-64gb@6.2"])
    heads = {path: cache.partition(b"\n")[0] for path, cache in caches.items()}
    assert heads == {
        "calib/8.0.1.cache": b"TRT-8001-EntropyCalibration2",
        "calib/10.3.0.cache": b"TRT-100300-EntropyCalibration2",
    }
    for cache in caches.values():
        assert set(read_calib_cache(cache)) == {"image", "m/conv:0"}


def test_a_name_that_cannot_stand_there_costs_the_caches_not_the_build(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        assert calibration_caches(table({"a: b": 1.0}), []) == {}
    assert "No calibration caches" in caplog.text


def test_an_unknown_board_is_named():
    with pytest.raises(InputError, match="orin-mini"):
        calibration_caches(table({"x": 1.0}), ["orin-mini"])
