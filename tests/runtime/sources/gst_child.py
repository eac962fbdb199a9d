"""Reads a pipeline with the system's Python, for test_gstreamer: `gst_child.py ACTION JSON` prints one document."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from edgemed.base.errors import EdgemedError
from edgemed.runtime.sources.gstreamer import GstSource


def main() -> None:
    action, settings = sys.argv[1], json.loads(sys.argv[2])
    count, nap = settings.pop("count", 1000), settings.pop("nap", 0)
    found: dict[str, Any] = {"frames": []}
    try:
        with GstSource(**settings) as source:
            found["live"] = source.live
            if action == "close":
                threading.Timer(0.3, source.close).start()
            for frame in source:
                now_ns = time.monotonic_ns()
                pixels = frame.data["pixels"]
                found["frames"].append(
                    {
                        "id": frame.id,
                        "sequence": frame.sequence,
                        "age_ns": now_ns - frame.captured_ns,
                        "captured_ns": frame.captured_ns,
                        "shape": list(pixels.shape),
                        "dtype": str(pixels.dtype),
                        "first": pixels[:1, :3].ravel().tolist(),
                        "mean": float(pixels.mean()),
                    }
                )
                time.sleep(nap)
                if len(found["frames"]) == count:
                    break
            found["lost"] = source.lost
    except EdgemedError as error:
        found["error"] = [type(error).__name__, error.what, error.hint]
    sys.stdout.write(json.dumps(found))


main()
