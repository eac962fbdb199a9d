"""Open a bundle: hashes first, meaning afterwards. Nothing of a bundle is used before its bytes are verified.

The hashes protect against accident. Only a signature protects against someone who can rewrite the manifest too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from edgemed.base.errors import InputError, IntegrityError, from_os_error
from edgemed.base.hashing import sha256_bytes, sha256_file
from edgemed.base.onnx_bytes import require_whole
from edgemed.bundle.manifest import (
    MANIFEST,
    MANIFEST_HASH,
    SIGNATURE,
    SUFFIX,
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

    def graph_source(self, name: GraphName) -> bytes | Path:
        """One ONNX graph for a loader: its bytes, or its path where large weights lie in files beside it.

        Those files are hashed again here; the graph may read no other. A loader opens the path anew: who can write to
        the bundle in between can change what is loaded, which bytes exclude.

        Raises:
            InputError: the bundle has no such graph.
            IntegrityError: something was changed since the bundle was opened, or the graph reads other files.
        """
        data = self.graph(name)
        ref = self.manifest.graphs[name]
        require_whole(data, beside=[PurePosixPath(path).name for path in ref.data])
        if not ref.data:
            return data
        for path in ref.data:
            if sha256_file(self.file(path)) != self._entry(path).sha256:
                raise IntegrityError(f"{path} was changed after the bundle was opened.", _REBUILD)
        return self.file(ref.path)

    def _entry(self, relative: str) -> FileEntry:
        entry = self.manifest.files.get(relative)
        if entry is None:
            raise IntegrityError(f"{relative} is not listed in the manifest of {self.path.name}.", _REBUILD)
        return entry


def is_bundle(path: Path) -> bool:
    """Whether `path` looks like a bundle (says nothing of its integrity).

    Raises:
        InputError: no file can have such a name.
    """
    try:
        return path.is_dir() and ((path / MANIFEST).exists() or path.suffix == SUFFIX)
    except OSError as error:
        raise InputError(f"{path} cannot be looked up: {error.strerror}.", "Check the path.") from error


def enclosing_bundle(path: Path) -> Path | None:
    """The bundle that `path` is or would lie in, if any: nothing may be written there.

    Raises:
        InputError: no file can have such a name.
    """
    try:
        whole = path.resolve()
        holds = (folder for folder in (whole, *whole.parents) if folder.is_dir())
        return next((f for f in holds if f.suffix == SUFFIX or (f / MANIFEST_HASH).exists()), None)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle (Python before 3.13)
        raise InputError(f"{path} cannot be looked up: {error}.", "Check the path.") from error


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
        why = ": ".join(filter(None, (".".join(str(part) for part in first["loc"]), first["msg"])))
        raise IntegrityError(
            f"manifest.json does not follow its schema: {why}.",
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
    try:
        present = _walk(path, manifest)
    except OSError as error:
        raise from_os_error(error) from error
    if missing := sorted(manifest.files.keys() - present):
        raise IntegrityError(f"{missing[0]} is missing ({len(missing)} in all).", _REBUILD)
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
    for graph in manifest.graphs.values():
        for path in graph.data:
            if path not in manifest.files or PurePosixPath(path).parent != PurePosixPath(graph.path).parent:
                raise IntegrityError(f"The manifest contradicts itself about {path}.", _REBUILD)
    if manifest.golden.path not in manifest.files:
        raise IntegrityError(f"The manifest does not list {manifest.golden.path}.", _REBUILD)


def _walk(root: Path, manifest: Manifest) -> set[str]:
    """The listed entries that are there; ends at the first unlisted one, and goes only where listed files lie."""
    folders = {parent.as_posix() for name in manifest.files for parent in PurePosixPath(name).parents}
    own = {MANIFEST, MANIFEST_HASH, SIGNATURE}
    found: set[str] = set()
    queue = [""]
    while queue:
        here = queue.pop()
        with os.scandir(root / here) as entries:
            for entry in entries:
                name = f"{here}{entry.name}"
                if name in manifest.files:
                    found.add(name)
                elif name in folders and entry.is_dir(follow_symlinks=False):
                    queue.append(f"{name}/")
                elif name not in own or not entry.is_file(follow_symlinks=False):
                    raise IntegrityError(f"{name} is not listed in the manifest.", _REBUILD)
    return found
