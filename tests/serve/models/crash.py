"""A daemon that kills itself at a point of a release: `python -m tests.serve.models.crash ROOT FIRST SECOND POINT`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    root, first, second = map(Path, sys.argv[1:4])
    sys.path.insert(0, str(Path(__file__).parents[2]))  # as pytest has it: tests are found by their folders
    from edgemed.serve.models import releases
    from edgemed.serve.models.host import ModelHost
    from edgemed.serve.models.store import BundleStore
    from tests.serve import kit
    from tests.serve.models.kit import hosting

    model = {"name": "chest", "bundle": first, "runner": "onnxruntime", "trial": {"inputs": 0, "watch": "1h"}}
    with hosting(kit.bedside(root, models=[model])) as daemon:
        host = daemon.services.models
        assert isinstance(host, ModelHost)
        point, add, switch = sys.argv[4], BundleStore.add, releases.switch

        def added(*arguments: Any) -> Any:
            made = add(*arguments)
            if point == "copied":
                die()
            return made

        def switched(*arguments: Any) -> None:
            switch(*arguments)
            if point == "switching":
                die()

        BundleStore.add = added  # type: ignore[method-assign]
        releases.switch = switched  # type: ignore[assignment]
        host.propose("chest", second)
        time.sleep(60)


if __name__ == "__main__":
    main()
