"""Lets old releases of TensorFlow write the files of `make wild`: `python -m tests.wild.fetch FOLDER`.

Each release gets an environment of its own. One whose Python is not on this machine is left out, and said so.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

RELEASES = {"2.4.4": ("python3.8",), "2.15.1": ("python3.11", "python3.10", "python3.9")}
_WRITE = Path(__file__).with_name("write.py")


def main(folder: Path) -> None:
    """Write what is not there yet."""
    for release, pythons in RELEASES.items():
        if (folder / release / "done").exists():
            continue
        python = next((p for p in pythons if _runs(p)), None)
        if python is None:
            print(f"TensorFlow {release} needs {' or '.join(pythons)}, which is not here: its files are left out.")  # noqa: T201
            continue
        _write(folder, release, python)


def _runs(python: str) -> bool:
    return shutil.which(python) is not None and not subprocess.run([python, "-c", ""], capture_output=True).returncode


def _write(folder: Path, release: str, python: str) -> None:
    environment = folder / f"venv-{release}"
    if not (environment / "bin" / "python").exists():
        subprocess.run([python, "-m", "venv", str(environment)], check=True)
    own = str(environment / "bin" / "python")
    subprocess.run([own, "-m", "pip", "install", "--quiet", f"tensorflow-cpu=={release}"], check=True)
    print(f"TensorFlow {release} writes its files", flush=True)  # noqa: T201
    subprocess.run([own, str(_WRITE), str(folder)], check=True, capture_output=True)
    (folder / release / "done").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
