"""The only writer of bundles: files first, the manifest over their hashes last, then one rename."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from edgemed.base.errors import os_errors_as_resource
from edgemed.base.hashing import sha256_bytes, sha256_file
from edgemed.bundle.manifest import MANIFEST, MANIFEST_HASH, FileEntry, Manifest


class BundleWriter:
    """Fills the staging directory of a bundle.

    Args:
        staging: an empty directory, from `base.store.staged_directory`.
    """

    def __init__(self, staging: Path) -> None:
        self._staging = staging
        self.files: dict[str, FileEntry] = {}

    def add(self, relative: str, data: bytes) -> FileEntry:
        """Write one file and remember its hash.

        Raises:
            ResourceError: disk full, and the like.
        """
        path = self._staging / relative
        with os_errors_as_resource(path.name):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        entry = FileEntry(sha256=sha256_bytes(data), size=len(data))
        self.files[relative] = entry
        return entry

    def take(self, relative: str, source: Path) -> FileEntry:
        """Move a file into the bundle and remember its hash.

        Raises:
            ResourceError: disk full, and the like.
        """
        path = self._staging / relative
        with os_errors_as_resource(path.name):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source, path)
            entry = FileEntry(sha256=sha256_file(path), size=path.stat().st_size)
        self.files[relative] = entry
        return entry

    def add_json(self, relative: str, document: BaseModel | Any) -> FileEntry:
        """Write a document as indented JSON."""
        return self.add(relative, json_bytes(document))

    def finish(self, manifest: Manifest) -> str:
        """Write the manifest and its hash; returns the bundle's digest."""
        raw = json_bytes(manifest)
        with os_errors_as_resource(MANIFEST):
            (self._staging / MANIFEST).write_bytes(raw)
            (self._staging / MANIFEST_HASH).write_text(f"{sha256_bytes(raw)}  {MANIFEST}\n")
        return sha256_file(self._staging / MANIFEST)


def is_ours(path: Path) -> bool:
    """Whether a directory is a bundle, whole or damaged: only those may be replaced."""
    try:
        document = json.loads((path / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and str(document.get("schema", "")).startswith("edgemed/bundle/")


def json_bytes(document: BaseModel | Any) -> bytes:
    """Indented JSON with a final newline; NaN is refused."""
    value = document.model_dump(mode="json", by_alias=True) if isinstance(document, BaseModel) else document
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
