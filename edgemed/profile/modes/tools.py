"""`nvpmodel` and `jetson_clocks`: run with a time limit, nothing to read from, and what they did read back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edgemed.base.errors import DeviceStateError
from edgemed.device.power import Mode, read_power_mode
from edgemed.device.sysfs import Tree
from edgemed.profile.telemetry.limits import Limits

_PATIENCE_S: Final = 120.0  # a mode that takes cores offline waits for what runs on them
_ID: Final = re.compile(r"^\s*(\d{1,4})\s*$", re.MULTILINE)
_BESIDE_PATH: Final = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")  # sudo's and cron's paths lack some of them
_AS_ROOT: Final = "Run it as root on the board, outside a container: sudo edgemed profile ... --sweep-power"

Clocks = Literal["locked", "free"]


class NeedsReboot(Exception):
    """A mode that only takes effect after a restart; nothing was changed."""


class NotReached(Exception):
    """A mode, or clocks, that was asked for and is not there; the message says what is."""


def run(command: Sequence[str], patience_s: float = _PATIENCE_S) -> subprocess.CompletedProcess[str]:
    """Run a program that asks nobody: its stdin is empty, so that a question about restarting is answered by no.

    It has a session of its own: Ctrl-C does not stop it half way.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it hung, and was killed.
    """
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=patience_s,
        start_new_session=True,
    )


@dataclass(frozen=True)
class PowerTools:
    """The two programs of this board, and the files that tell what they did.

    Attributes:
        nvpmodel, jetson_clocks: paths of the programs.
        tree: where `sys`, `etc` and `var` are.
    """

    nvpmodel: str
    jetson_clocks: str
    tree: Tree

    @staticmethod
    def find(root: Path = Path("/")) -> PowerTools:
        """The programs on the search path.

        Raises:
            DeviceStateError: this machine has none.
        """
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_BESIDE_PATH])
        found = [shutil.which(name, path=path) for name in ("nvpmodel", "jetson_clocks")]
        if found[0] is None or found[1] is None:
            raise DeviceStateError(
                "There is no nvpmodel or no jetson_clocks here, so there are no power modes to measure.",
                "Run it on a Jetson, outside a container.",
            )
        return PowerTools(found[0], found[1], Tree(root))

    def modes(self) -> tuple[Mode, ...]:
        """All modes of the board's table.

        Raises:
            DeviceStateError: it has none.
        """
        modes = tuple(read_power_mode(self.tree).modes.values())
        if not modes:
            raise DeviceStateError("nvpmodel's table (/etc/nvpmodel.conf) names no modes.", "Run `edgemed doctor`.")
        return modes

    def mode(self) -> int:
        """The mode that is on.

        Raises:
            DeviceStateError: `nvpmodel` does not say.
        """
        said = self._run(self.nvpmodel, "-q")
        found = _ID.findall(said)
        if not found:
            raise DeviceStateError(f"nvpmodel does not say which mode is on: {last_line(said)}.", _AS_ROOT)
        return int(found[-1])

    def clocks(self) -> Clocks | None:
        """Whether they are locked; `None`: nothing tells."""
        return Limits.read(self.tree).state

    def choose(self, mode: int) -> None:
        """Change the mode.

        Raises:
            NeedsReboot: it takes a restart.
            NotReached: the mode is another afterwards.
            DeviceStateError: `nvpmodel` does not run.
        """
        said = self._run(self.nvpmodel, "-m", str(mode), check=False)
        if "reboot" in said.lower():
            raise NeedsReboot
        now = self.mode()
        if now != mode:
            raise NotReached(f"mode {now} is on after `nvpmodel -m {mode}`: {last_line(said)}")

    def store(self, file: Path) -> None:
        """Write down the clocks' limits; `file` must not be there: the program would ask before it replaces one.

        Raises:
            DeviceStateError: it cannot.
        """
        said = self._run(self.jetson_clocks, "--store", str(file))
        if not file.is_file() or not file.stat().st_size:
            raise DeviceStateError(f"jetson_clocks did not write down the clocks: {last_line(said)}.", _AS_ROOT)

    def lock(self) -> None:
        """Lock the clocks at the mode's highest.

        Raises:
            NotReached: they are not locked afterwards.
            DeviceStateError: `jetson_clocks` does not run.
        """
        said = self._run(self.jetson_clocks)
        if self.clocks() != "locked":
            raise NotReached(f"clocks are {self.clocks() or 'unknown'} after `jetson_clocks`: {last_line(said)}")

    def restore(self, file: Path) -> None:
        """Put the clocks' limits back.

        Raises:
            DeviceStateError: it cannot.
        """
        self._run(self.jetson_clocks, "--restore", str(file))

    def _run(self, *command: str, check: bool = True) -> str:
        name = Path(command[0]).name
        try:
            done = run(command)
        except OSError as error:
            raise DeviceStateError(f"{name} cannot be run: {error.strerror}.", _AS_ROOT) from error
        except subprocess.TimeoutExpired as error:
            raise DeviceStateError(
                f"{name} hung for {error.timeout:g} s and was killed.", "Restart the board."
            ) from error
        if check and done.returncode:
            raise DeviceStateError(f"{name} failed ({done.returncode}): {last_line(done.stdout)}.", _AS_ROOT)
        return done.stdout


def last_line(text: str) -> str:
    """The last line with something in it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300].rstrip(".") if lines else "it said nothing"
