"""Look at a model file before anything loads it: its format, its faults, and the code it would run.

Nothing here imports TensorFlow or Keras, and nothing from the file is executed. `.h5` has no safe mode of its
own, so this look is what stands between a stranger's Lambda layer and the user's machine.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgemed.base.errors import InputError, UnsafeModelError, from_os_error
from edgemed.base.lazy import require
from edgemed.convert.judge import code_in
from edgemed.convert.savedmodel import check_saved_model
from edgemed.convert.types import Format

_HDF5 = b"\x89HDF\r\n\x1a\n"
_GIVE = "Give a Keras model: a .h5 or .keras file, or a SavedModel directory."
_AGAIN = "Save the whole model again with model.save('model.keras')."
_TRUST = (
    "If you trust the file, define what it needs in a Python file and give --allow-code FILE.py;"
    " or export the model as a SavedModel where it was trained: its graph needs no Python."
)
_WEIGHTS_ONLY = (
    "Build the model in Python as it was trained, call model.load_weights() on this file, and save the whole model"
    " with model.save('model.keras')."
)

_MAX_CONFIG = 64 << 20  # the largest config.json of keras.applications is below 1 MiB
_MAX_MEMBERS = 10_000
_MAX_RATIO = 200  # float weights do not compress 200-fold; a zip bomb does


@dataclass(frozen=True)
class Scan:
    """What a look at the file tells."""

    format: Format
    written_by: str | None
    """Version of Keras (or of TensorFlow, for a SavedModel) that wrote the file."""
    unsafe: tuple[str, ...] = ()
    """What the file would execute, one phrase per layer; only ever non-empty where code was allowed."""

    @property
    def keras2(self) -> bool:
        """Whether Keras 2 wrote the file."""
        return self.format != "saved-model" and (self.written_by or "2").split(".")[0] in ("1", "2")


def scan_model(model: Path, *, allow_code: bool = False) -> Scan:
    """Find out what a model file is, without loading it.

    Args:
        model: a `.h5` or `.keras` file (known by its bytes, not its name), or a SavedModel directory.
        allow_code: whether the user trusts the code in it.

    Raises:
        InputError: missing, empty, damaged, weights only, or not a model.
        UnsafeModelError: loading it would run code; the message names the layers.
        ResourceError: the file cannot be read.
    """
    if not model.exists():
        raise InputError(f"{model} does not exist.", _GIVE)
    if model.is_dir():
        if not (model / "saved_model.pb").is_file():
            raise _no_saved_model(model)
        return Scan("saved-model", check_saved_model(model))
    if not model.is_file():  # opening a pipe would wait for ever
        raise InputError(f"{model} is not a regular file.", _GIVE)
    try:
        with model.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise from_os_error(error, model) from error
    if not head:
        raise InputError(f"{model} is empty.", "Copy or save the model again.")
    if head.startswith(_HDF5):
        return _scan_h5(model, allow_code)
    if head.startswith(b"PK"):
        return _scan_keras(model, allow_code)
    raise InputError(f"{model} is not a Keras model{_looks_like(model, head)}.", _GIVE)


def _no_saved_model(directory: Path) -> InputError:
    if any(directory.glob("*.index")):
        return InputError(f"{directory} is a checkpoint: weights only, not the model.", _WEIGHTS_ONLY)
    nested = next(directory.glob("*/saved_model.pb"), None)
    hint = f"Give {nested.parent}." if nested else _GIVE
    return InputError(f"{directory} is a directory without saved_model.pb.", hint)


def _looks_like(model: Path, head: bytes) -> str:
    if b"onnx" in head or model.suffix == ".onnx":
        return ": it looks like an ONNX file"
    if b"TFL3" in head[:8]:
        return ": it is a TensorFlow Lite file"
    if model.name == "saved_model.pb":
        return ": give the directory it lies in"
    if model.suffix == ".pb":
        return ": it looks like a frozen TensorFlow 1 graph"
    if head.lstrip().startswith(b"{") and b"class_name" in head:
        return ": it is an architecture in JSON, without weights"
    if model.suffix == ".index" or ".data-" in model.suffix:
        return ": it is a part of a checkpoint, which holds weights only"
    if head.startswith(b"\x80") and model.suffix in (".pt", ".pth", ".pkl", ".pickle"):
        return ": it is a Python pickle"
    return ""


# .h5


def _scan_h5(model: Path, allow_code: bool) -> Scan:
    h5py = require("h5py", extra="build", purpose="read .h5 models")
    try:
        with h5py.File(model, "r") as file:
            config, version = file.attrs.get("model_config"), file.attrs.get("keras_version")
            if config is None:
                raise _no_config(model, set(file.attrs) | set(file))
            _check_h5_weights(model, h5py, file)
            _check_h5_links(model, h5py, file)
    except (OSError, RuntimeError, KeyError) as error:  # what h5py raises for cut or damaged files
        raise _damaged(model, error) from error
    return Scan("keras-h5", _as_text(version), _check_config(model, _parse_json(model, config), allow_code))


def _as_text(value: object) -> str | None:
    if value is None:
        return None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _no_config(model: Path, names: set[str]) -> InputError:
    if names & {"layer_names", "layers", "_layer_checkpoint_dependencies", "top_level_model_weights", "vars"}:
        return InputError(f"{model} holds weights only, not the model.", _WEIGHTS_ONLY)
    return InputError(f"{model} is an HDF5 file, but not a Keras model.", _GIVE)


def _damaged(model: Path, error: Exception) -> InputError:
    reason = "is cut: some of its bytes are missing" if "truncated" in str(error) else "is damaged"
    return InputError(f"{model} {reason}.", "Copy or save the model again.")


def _check_h5_weights(model: Path, h5py: Any, file: Any) -> None:
    """Every weight that the file lists must be there; no data is read."""
    group = file.get("model_weights")
    if not isinstance(group, h5py.Group):
        raise InputError(f"{model} holds no weights.", _AGAIN)
    for layer in group.attrs.get("layer_names", []):
        name = _as_text(layer) or ""
        for weight in group[name].attrs.get("weight_names", []) if name in group else [name]:
            if name not in group or not isinstance(group[name].get(_as_text(weight)), h5py.Dataset):
                raise InputError(f"{model} lacks weights of the layer '{name}'.", "Copy or save the model again.")


def _check_h5_links(model: Path, h5py: Any, group: Any) -> None:
    """Everything must lie in the file itself: HDF5 can point into other files of this machine."""
    for name in group:
        link = group.get(name, getlink=True)
        item = None if isinstance(link, h5py.ExternalLink) else group.get(name)
        if isinstance(item, h5py.Group) and isinstance(link, h5py.HardLink):
            _check_h5_links(model, h5py, item)
        elif item is None or (isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)):
            raise UnsafeModelError(f"{model} takes '{name}' from another file.", "Do not trust this file.")


# .keras


def _scan_keras(model: Path, allow_code: bool) -> Scan:
    try:
        with zipfile.ZipFile(model) as archive:
            names = _check_members(model, archive)
            if "config.json" not in names:
                kind = ": it looks like a PyTorch file" if any(n.endswith("data.pkl") for n in names) else ""
                raise InputError(f"{model} is a ZIP file, but not a Keras model{kind}.", _GIVE)
            if "model.weights.h5" not in names:
                raise InputError(f"{model} holds no weights.", _AGAIN)
            config = _parse_json(model, _read_member(model, archive, "config.json"))
            metadata = (
                _parse_json(model, _read_member(model, archive, "metadata.json")) if "metadata.json" in names else {}
            )
            if archive.testzip() is not None:
                raise InputError(f"{model} is damaged.", "Copy or save the model again.")
            _check_weights_member(model, archive)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise InputError(f"{model} is cut or damaged.", "Copy or save the model again.") from error
    return Scan("keras-v3", _as_text(metadata.get("keras_version")), _check_config(model, config, allow_code))


def _check_weights_member(model: Path, archive: zipfile.ZipFile) -> None:
    h5py = require("h5py", extra="build", purpose="read .keras models")
    with archive.open("model.weights.h5") as member:
        try:
            file = h5py.File(member, "r")
        except OSError as error:
            raise InputError(f"{model} holds damaged weights.", "Copy or save the model again.") from error
        with file:
            _check_h5_links(model, h5py, file)


def _check_members(model: Path, archive: zipfile.ZipFile) -> set[str]:
    members = archive.infolist()
    total = sum(m.file_size for m in members)
    if len(members) > _MAX_MEMBERS or total > _MAX_RATIO * max(model.stat().st_size, 1 << 16):
        raise InputError(f"{model} unpacks to {total} bytes in {len(members)} files.", "Do not trust this file.")
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise InputError(f"{model} holds a file that would land outside: {member.filename!r}.", "Do not trust it.")
    names = [m.filename for m in members]
    if len(set(names)) != len(names):  # two readers may take different copies: one is scanned, the other loaded
        raise InputError(f"{model} holds two files of one name.", "Do not trust this file.")
    return set(names)


def _read_member(model: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        data = file.read(_MAX_CONFIG + 1)
    if len(data) > _MAX_CONFIG:
        raise InputError(f"{model} has a {name} of more than 64 MiB.", "Do not trust this file.")
    return data


def _parse_json(model: Path, text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{model} has an unreadable model configuration.", "Copy or save the model again.")
    return value


# the configuration


def _check_config(model: Path, config: dict[str, Any], allow_code: bool) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(code_in(config)))
    if found and not allow_code:
        listed = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        raise UnsafeModelError(f"Loading {model.name} would run code: {listed}.", _TRUST)
    return found
