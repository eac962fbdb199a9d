"""Reads the stand-in camera in a process of its own: `v4l2_child.py ACTION JSON` prints one document."""

from __future__ import annotations

import json
import sys
import threading
import time
import zlib
from typing import Any

from edgemed.base.errors import EdgemedError
from edgemed.runtime.sources.base import finish
from edgemed.runtime.sources.v4l2 import V4l2Source


def seen(frame: Any) -> dict[str, Any]:
    pixels = frame.data["pixels"]
    return {
        "id": frame.id,
        "sequence": frame.sequence,
        "shape": list(pixels.shape),
        "dtype": str(pixels.dtype),
        "crc": zlib.crc32(pixels.tobytes()),
        "age_ns": time.monotonic_ns() - frame.captured_ns,
        "captured_ns": frame.captured_ns,
        "lent": frame.done is not None,
        "writable": bool(pixels.flags.writeable),
    }


def main() -> None:
    action, settings = sys.argv[1], json.loads(sys.argv[2])
    count = settings.pop("count", 8)
    found: dict[str, Any] = {"frames": []}
    if "size" in settings:
        settings["size"] = tuple(settings["size"])
    held = []
    try:
        source = V4l2Source("/dev/video77", **settings)
        with source:
            if action == "close":  # from another thread, while this one waits for a frame that never comes
                threading.Timer(0.3, source.close).start()
            for frame in source:
                found["frames"].append(seen(frame))
                if source.raw and source.raw_format is not None:
                    decoded = source.raw_format.image(frame.data["pixels"]).pixels
                    found["frames"][-1]["decoded"] = zlib.crc32(decoded.tobytes())
                if action == "hold":
                    held.append(frame)
                else:
                    finish(frame)
                    finish(frame)
                if len(found["frames"]) == count:
                    break
            found["lost"] = source.lost
            found["driver_clock"] = source.driver_clock
        if action == "hold":  # the pixels outlive the camera, and their return changes nothing
            found["after"] = [zlib.crc32(frame.data["pixels"].tobytes()) for frame in held]
            for frame in held:
                finish(frame)
        if action == "again":
            with V4l2Source("/dev/video77", **settings) as second:
                found["again"] = next(iter(second)).id
    except EdgemedError as error:
        found["error"] = [type(error).__name__, error.what, error.hint]
    sys.stdout.write(json.dumps(found))


main()
