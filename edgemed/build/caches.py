"""Calibration caches of a bundle: the scale table in the form that the DLA and old TensorRTs read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from edgemed.base.errors import InputError
from edgemed.device.profile import load_profile, shipped_profiles
from edgemed.engine.bridge import version_number
from edgemed.engine.calib_cache import calib_cache
from edgemed.engine.eras import Release
from edgemed.graph.scales import ScaleTable

_log = logging.getLogger(__name__)


def calibration_caches(table: ScaleTable, devices: Sequence[str]) -> dict[str, bytes]:
    """One cache for each TensorRT up to 10 that runs INT8 on a device, by its path in the bundle.

    Args:
        table: scales of every float tensor, graph inputs and outputs among them.
        devices: `NAME[@JETPACK]`; none means every software row of the shipped profiles.

    Returns:
        `calib/<tensorrt>.cache` and its bytes; nothing where a tensor's name cannot stand in such a file, which a
        warning says: the Q/DQ graph does not need it.
    """
    versions = {release.cache_path: release.version for release in _releases(devices) if release.reads_cache}
    try:
        ordered = sorted(versions.items(), key=lambda item: version_number(item[1]))
        return {path: calib_cache(table, version) for path, version in ordered}
    except InputError as error:
        _log.warning("No calibration caches were written: %s", error.what)
        return {}


def _releases(devices: Sequence[str]) -> Iterator[Release]:
    if devices:
        named = [load_profile(device) for device in devices]
        yield from (Release(row.tensorrt) for profile, row in named if profile.int8 and row is not None)
        return
    for profile in shipped_profiles():
        if profile.int8:
            yield from (Release(row.tensorrt) for row in profile.software)
