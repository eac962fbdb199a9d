"""Open a bundle: hashes first, meaning afterwards. Nothing of a bundle is used before its bytes are verified.

The hashes protect against accident. Only a signature protects against someone who can rewrite the manifest too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from edgemed.base.errors import InputError, IntegrityError, from_os_error
from edgemed.base.hashing import sha256_bytes, sha256_file
from edgemed.bundle.manifest import (
    MANIFEST,
    MANIFEST_HASH,
    SIGNATURE,
    EngineRef,
    FileEntry,
    GraphName,
    GraphRef,
    Manifest,
    RecipeRef,
)

_MAX_MANIFEST_BYTES = 16 << 20
_REBUILD = "Copy the bundle again, or build it anew."


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `digest` is the SHA-256 of the manifest's bytes and names the bundle."""

    path: Path
    manifest: Manifest
    digest: str

    def file(self, relative: str) -> Path:
        """Path of a listed file.

        Raises:
            IntegrityError: the manifest does not list it.
        """
        self._entry(relative)
        return self.path / relative

    def read(self, relative: str) -> bytes:
        """Bytes of a listed file, checked against the manifest in the moment they are read.

        Raises:
            IntegrityError: not listed, or changed since.
        """
        entry = self._entry(relative)
        try:
            data = (self.path / relative).read_bytes()
        except OSError as error:
            raise IntegrityError(f"{relative} cannot be read: {error.strerror}.", _REBUILD) from error
        if sha256_bytes(data) != entry.sha256:
            raise IntegrityError(f"{relative} was changed after the bundle was opened.", _REBUILD)
        return data

    def graph(self, name: GraphName) -> bytes:
        """Bytes of one ONNX graph.

        Raises:
            InputError: the bundle has no such graph.
        """
        if name not in self.manifest.graphs:
            have = ", ".join(self.manifest.graphs)
            raise InputError(f"{self.path.name} has no {name} graph.", f"It has: {have}.")
        return self.read(self.manifest.graphs[name].path)

    def _entry(self, relative: str) -> FileEntry:
        entry = self.manifest.files.get(relative)
        if entry is None:
            raise IntegrityError(f"{relative} is not listed in the manifest of {self.path.name}.", _REBUILD)
        return entry


def is_bundle(path: Path) -> bool:
    """Whether `path` looks like a bundle (says nothing of its integrity)."""
    return path.is_dir() and ((path / MANIFEST).exists() or path.suffix == ".edgemed")


def open_bundle(path: Path) -> Bundle:
    """Verify every byte of a bundle and return it.

    Raises:
        InputError: there is no bundle at `path`.
        IntegrityError: a hash differs, or a file is missing, unlisted, or not a regular file.
    """
    if not is_bundle(path):
        what = "does not exist" if not path.exists() else "is not a bundle (no manifest.json)"
        raise InputError(f"{path} {what}.", "Give the NAME.edgemed directory that `edgemed build` wrote.")
    raw = _manifest_bytes(path)
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise IntegrityError(
            f"manifest.json does not follow its schema: {where}: {first['msg']}.",
            "It may come from a newer edgemed: update, or build the bundle anew.",
        ) from error
    _check_files(path, manifest)
    return Bundle(path, manifest, sha256_bytes(raw))


def _manifest_bytes(path: Path) -> bytes:
    for name in (MANIFEST, MANIFEST_HASH):
        file = path / name
        if file.is_symlink() or not file.is_file():
            raise IntegrityError(f"{name} is missing or not a regular file.", _REBUILD)
        if file.stat().st_size > _MAX_MANIFEST_BYTES:
            raise IntegrityError(f"{name} is larger than 16 MiB.", _REBUILD)
    try:
        raw = (path / MANIFEST).read_bytes()
        stated = (path / MANIFEST_HASH).read_bytes()
    except OSError as error:
        raise from_os_error(error) from error
    if stated != f"{sha256_bytes(raw)}  {MANIFEST}\n".encode():
        raise IntegrityError("manifest.sha256 does not match manifest.json.", _REBUILD)
    return raw


def _check_files(path: Path, manifest: Manifest) -> None:
    present = set(_relative_files(path)) - {MANIFEST, MANIFEST_HASH, SIGNATURE}
    if missing := sorted(set(manifest.files) - present):
        raise IntegrityError(f"{missing[0]} is missing ({len(missing)} in all).", _REBUILD)
    if unlisted := sorted(present - set(manifest.files)):
        raise IntegrityError(f"{unlisted[0]} is not listed in the manifest ({len(unlisted)} in all).", _REBUILD)
    for relative, entry in manifest.files.items():
        file = path / relative
        if file.is_symlink() or not file.is_file():
            raise IntegrityError(f"{relative} is not a regular file.", _REBUILD)
        try:
            matches = file.stat().st_size == entry.size and sha256_file(file) == entry.sha256
        except OSError as error:
            raise IntegrityError(f"{relative} cannot be read: {error.strerror}.", _REBUILD) from error
        if not matches:
            raise IntegrityError(f"{relative} does not match its hash in the manifest.", _REBUILD)
    _check_references(manifest)


def _check_references(manifest: Manifest) -> None:
    """Hashes stated twice must agree, so that no reader can be led to trust the other one."""
    refs: list[RecipeRef | GraphRef | EngineRef] = [manifest.recipe, *manifest.graphs.values(), *manifest.engines]
    for ref in refs:
        entry = manifest.files.get(ref.path)
        if entry is None or entry.sha256 != ref.sha256:
            raise IntegrityError(f"The manifest contradicts itself about {ref.path}.", _REBUILD)
    if manifest.golden.path not in manifest.files:
        raise IntegrityError(f"The manifest does not list {manifest.golden.path}.", _REBUILD)


def _relative_files(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root)
        for name in files:
            yield (here / name).as_posix()
        for name in folders:
            if (Path(folder) / name).is_symlink():  # os.walk does not follow it; it is unlisted all the same
                yield (here / name).as_posix()
