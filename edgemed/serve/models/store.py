"""Bundles that the daemon keeps for itself: whole, synced, never changed, each under its digest.

releases/MODEL/DIGEST.edgemed     versions; what the operator gave may go, or change, without any effect
releases/MODEL/DIGEST.trial.json  how it compared with the version before it
hot/MODEL/DIGEST.edgemed          the smaller one, for a device that throttles
releases/MODEL/active.json        which one answers, for the day on which the journal is lost
candidates/MODEL/NAME.edgemed     put here by an operator: taken when it no longer changes
"""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Final, Literal

from edgemed.base.errors import EdgemedError, InputError, os_errors_as_resource
from edgemed.base.hashing import canonical_json
from edgemed.base.store import fsync_path, staged_directory, write_atomic
from edgemed.bundle.manifest import MANIFEST, MANIFEST_HASH, SIGNATURE, SUFFIX
from edgemed.bundle.read import Bundle
from edgemed.bundle.trust import Signed, Trust, open_trusted

SETTLE_NS: Final = 2_000_000_000
REFUSED: Final = ".refused"
_ACTIVE: Final = "active.json"


class BundleStore:
    """Of one model.

    Args:
        state: the daemon's directory.
        model: its name.
        kind: `releases`, or `hot`.
    """

    def __init__(self, state: Path, model: str, kind: Literal["releases", "hot"] = "releases") -> None:
        self.folder = state / kind / model
        self.inbox = state / "candidates" / model
        self._seen: dict[Path, tuple[int, int]] = {}

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            ResourceError: they cannot be made.
        """
        with os_errors_as_resource(self.folder):
            for folder in (self.folder, self.inbox):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            fsync_path(self.folder.parent)
            fsync_path(self.folder.parent.parent)

    def path(self, digest: str) -> Path:
        """Where a version lies."""
        return self.folder / f"{digest}{SUFFIX}"

    def report(self, digest: str) -> Path:
        """Where the report of its trial lies."""
        return self.folder / f"{digest}.trial.json"

    def add(self, source: Path, trust: Trust) -> tuple[Bundle, Signed | None]:
        """Check a bundle, copy it, and check the copy.

        Raises:
            InputError: there is none, or its recipe was assumed.
            IntegrityError: it is damaged, or not trusted.
            ResourceError: the disk did not take it.
        """
        bundle, _ = open_trusted(source, trust)
        if bundle.manifest.recipe.assumed:
            raise InputError(
                f"The recipe of {bundle.manifest.name} was assumed, not stated.",
                "Build it with a recipe of its own (--recipe).",
            )
        target = self.path(bundle.digest)
        try:
            return open_trusted(target, trust)
        except EdgemedError:  # not there yet, or damaged since
            _copy(bundle, target)
        return open_trusted(target, trust)

    def remember(self, digest: str, sequence: int) -> None:
        """Which version answers, and the highest sequence so far, beside the journal.

        Raises:
            ResourceError: the disk did not take it.
        """
        document = {"digest": digest, "sequence": max(sequence, self.remembered()[1])}
        write_atomic(self.folder / _ACTIVE, canonical_json(document))

    def remembered(self) -> tuple[str | None, int]:
        """What `remember` wrote; nothing where there is nothing that makes sense."""
        try:
            document = json.loads((self.folder / _ACTIVE).read_bytes())
            digest, sequence = str(document["digest"]), int(document["sequence"])
        except (OSError, ValueError, KeyError, TypeError):
            return None, 0
        return (digest if re.fullmatch(r"[0-9a-f]{64}", digest) else None), sequence

    def keep(self, digests: set[str]) -> None:
        """Remove every version but these, and what a copy under way when the daemon ended has left."""
        for entry in self.folder.iterdir():
            if entry.suffix != ".json" and entry.name.removesuffix(SUFFIX) not in digests:
                shutil.rmtree(entry, ignore_errors=True)

    def settled(self) -> Path | None:
        """A bundle in the inbox that has not changed for a while."""
        now_ns = time.monotonic_ns()
        for path in sorted(self.inbox.glob(f"*{SUFFIX}")):
            if path.is_symlink() or not (path / MANIFEST_HASH).is_file():
                continue
            shape = _shape(path)
            since_ns, before = self._seen.get(path, (now_ns, shape))
            self._seen[path] = (since_ns if before == shape else now_ns, shape)
            if before == shape and now_ns - since_ns >= SETTLE_NS:
                del self._seen[path]
                return path
        return None

    def put_aside(self, path: Path) -> None:
        """Keep a bundle of the inbox that was refused, where it is not taken again."""
        aside = path.with_name(f"{path.name}{REFUSED}")
        shutil.rmtree(aside, ignore_errors=True)
        with os_errors_as_resource(path):
            path.rename(aside)


def _copy(bundle: Bundle, target: Path) -> None:
    names = [MANIFEST, MANIFEST_HASH, *bundle.manifest.files]
    names += [SIGNATURE] if (bundle.path / SIGNATURE).exists() else []
    with staged_directory(target, replaceable=lambda _: True) as staging:
        for name in names:
            to = staging / name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / name, to, follow_symlinks=False)
            to.chmod(0o444)


def _shape(path: Path) -> int:
    """A number that changes while somebody still copies into it."""
    found = []
    for file in path.rglob("*"):
        try:
            status = file.lstat()
        except OSError:
            continue
        found.append((str(file), status.st_size, status.st_mtime_ns))
    return hash(tuple(sorted(found)))
