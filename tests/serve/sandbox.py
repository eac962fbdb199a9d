"""Runs a program under the `SystemCallFilter=` of a unit file: python sandbox.py UNIT PROGRAM ARGUMENT…

It reads the unit as systemd does (the first line says whether it is a list of what is allowed, later ones add to it or
take away) and asks systemd for its groups. What the unit refuses ends the program, whatever its
`SystemCallErrorNumber=` says: so a test sees all that is refused, also where a library makes do without it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

_KILL, _ALLOW = 0x80000000, 0x7FFF0000  # SCMP_ACT_KILL_PROCESS, SCMP_ACT_ALLOW


def allowed_by(unit: str) -> set[str]:
    """Names of the system calls that a unit allows."""
    lines = [line.partition("=")[2] for line in unit.splitlines() if line.startswith("SystemCallFilter=")]
    assert lines, "The unit has no list."
    assert not lines[0].startswith("~"), "The unit begins with what it refuses."
    allowed = _expand("@default")  # systemd adds it: what starts a program
    for line in lines:
        names = set[str]().union(*map(_expand, line.removeprefix("~").split()))
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def confine(allowed: set[str]) -> None:
    """Allow this process these system calls, and no other from now on."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_KILL)))
    for name in allowed:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # this machine has it
            assert library.seccomp_rule_add(context, ctypes.c_uint32(_ALLOW), number, 0) == 0, name
    assert library.seccomp_load(context) == 0


def _expand(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    said = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    words = [line.strip() for line in said.stdout.splitlines()[1:]]
    return set[str]().union(*(_expand(word) for word in words if word and not word.startswith("#")))


if __name__ == "__main__":
    # SQLite gives its files to the owner of the database, as root alone; the unit's user is not root, a test's may be
    confine(allowed_by(Path(sys.argv[1]).read_text(encoding="utf-8")) | {"fchown"})
    os.execvp(sys.argv[2], sys.argv[2:])
