"""`edgemed run` on the faked device, in a process of its own that may see the stand-in camera.

`stream_child.py BUNDLE ARGUMENTS…` builds the bundle's engine and runs it on a stream; its exit code is the command's.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

from edgemed.bundle.read import open_bundle
from tests.runtime.fakecuda import handle
from tests.runtime.faked_device import command, device_of, script_of
from tests.runtime.kernels import twin


def main() -> int:
    fake = handle.activate()
    fake.kernels(twin.for_shim())
    bundle = open_bundle(Path(sys.argv[1]))
    with pytest.MonkeyPatch.context() as patch, device_of(script_of(), patch) as build:
        build(bundle)
        code = command("run", bundle.path, *sys.argv[2:])
    gc.collect()
    sys.stderr.write("\n".join((*fake.races(), *(f"alive: {what}" for what in fake.live()))))
    return code


sys.exit(main())
