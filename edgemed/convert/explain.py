"""Turn what Keras raises while loading into one sentence and a way out."""

from __future__ import annotations

import re

from edgemed.base.errors import InputError, UnsafeModelError
from edgemed.convert.scan import Scan

_MISSING = (
    re.compile(r"Could not locate (?:class|function) '([^']+)'"),
    re.compile(r"Unknown (?:\w+ ?)+: '([^']+)'"),
    re.compile(r"Cannot deserialize object of type `([^`]+)`"),
)
_SAVED_MODEL = (
    "Load it where it was trained, write it with tf.saved_model.save(model, 'folder') or model.export('folder'),"
    " and give that folder."
)


def explain(error: Exception, scan: Scan) -> InputError:
    """What the user reads when neither Keras loads a file; `error` is that of the Keras that should have."""
    text = str(error)
    name = next((match.group(1) for pattern in _MISSING if (match := pattern.search(text))), None)
    if name is not None:
        library = "tf_keras, as Keras 2 wrote the model," if scan.keras2 else "Keras"
        return UnsafeModelError(
            f"The model needs the custom object '{name}', which the file does not define.",
            f"Define it for {library} in a Python file and give --allow-code FILE.py; or export a SavedModel.",
        )
    if "marshal" in text:
        return InputError("A Lambda layer of the file holds bytecode of another version of Python.", _SAVED_MODEL)
    if "safe_mode" in text:  # Keras names its own switch; "unsafe" alone may be numpy's word for a cast
        return UnsafeModelError(
            f"Keras refuses to load the model: {first_line(error)}.", "If you trust it, give --allow-code FILE.py."
        )
    if scan.keras2:
        writer = f"Keras {scan.written_by}" if scan.written_by else "an early Keras"
        return InputError(f"The file, written by {writer}, cannot be loaded: {first_line(error)}.", _SAVED_MODEL)
    return InputError(f"Keras cannot load the model: {first_line(error)}.", _SAVED_MODEL)


def first_line(error: Exception) -> str:
    """The first line of an exception's text that says something, without its full stop."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(". ")[:300]
