"""The child process: loads one model, converts it, and answers with Keras' own outputs.

`python -m edgemed.convert.child REQUEST_FD ANSWER_FD PARENT_PID` reads one JSON object per line and writes one
per line. Arrays travel as `.npz` files. Standard output and error are TensorFlow's to fill.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgemed.base.child import die_with_parent
from edgemed.base.errors import EdgemedError, ResourceError, os_errors_as_resource
from edgemed.convert.face import Call
from edgemed.convert.load import Loaded, load_keras, load_saved_model
from edgemed.convert.scan import Scan, scan_model
from edgemed.convert.types import specs_to_json

_ENOUGH_TO_TRACE = 12
_TRACED_ULPS = 1e-5  # of the largest output; 6e-7 was seen with ResNet50


class Session:
    """One model from loading to its last reference output."""

    def __init__(self) -> None:
        self._scan: Scan | None = None
        self._loaded: Loaded | None = None

    @property
    def loaded(self) -> Loaded:
        """The model; `load` comes first."""
        assert self._loaded is not None, "the parent loads before it asks for anything else"
        return self._loaded

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Scan again (the file may have changed since the parent looked), then load."""
        path, allow = Path(request["model"]), request["allow_code"]
        allow_code = Path(allow) if allow else None
        self._scan = scan_model(path, allow_code=allow_code is not None)
        given = {name: tuple(shape) for name, shape in request["input_shapes"].items()}
        batch: int | None = request["batch"]
        if self._scan.format == "saved-model":
            self._loaded = load_saved_model(path, given, batch, request["signature"])
        else:
            self._loaded = load_keras(path, self._scan, given, batch, allow_code)
        return {}

    def convert(self, request: dict[str, Any]) -> dict[str, Any]:
        """Write the ONNX file and describe it."""
        from edgemed.convert import freeze

        assert self._scan is not None
        path, loaded = Path(request["path"]), self.loaded
        with os_errors_as_resource(path):
            outputs = freeze.to_onnx(loaded, int(request["opset"]), path, int(request["external_above"]))
        saved_model = self._scan.format == "saved-model"
        return {
            "inputs": specs_to_json(loaded.inputs),
            "outputs": specs_to_json(outputs),
            "format": self._scan.format,
            "versions": self._versions(),
            "rescales_inside": freeze.graph_rescales(path) if saved_model else loaded.rescales_inside,
            "output_activations": freeze.output_activations(path),
            "parameters": loaded.parameters,
            "layers": [[layer.name, layer.class_name] for layer in loaded.layers],
        }

    def _versions(self) -> dict[str, str]:
        import tensorflow as tf
        import tf2onnx

        assert self._scan is not None
        library = self.loaded.library or "keras"
        keras = importlib.import_module(library)
        used = {"tensorflow": tf.__version__, library: keras.__version__, "tf2onnx": tf2onnx.__version__}
        origin = "tensorflow_in_file" if self._scan.format == "saved-model" else "keras_in_file"
        return {origin: self._scan.written_by, **used} if self._scan.written_by else used

    def reference(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run Keras, one sample after the other: arrays `sample/input` in, `sample/output` out."""
        import numpy as np
        import tensorflow as tf

        loaded = self.loaded
        results: dict[str, Any] = {}
        with np.load(request["feeds"], allow_pickle=False) as feeds:

            def values(sample: int) -> list[Any]:
                return [tf.constant(feeds[f"{sample}/{i}"]) for i in range(len(loaded.inputs))]

            call = _reference_call(loaded, values, int(request["count"]))
            for sample in range(int(request["count"])):
                for i, output in enumerate(call(values(sample))):
                    results[f"{sample}/{i}"] = np.asarray(output)
        with os_errors_as_resource(request["fetches"]):
            np.savez(request["fetches"], **results)
        return {}


def _reference_call(loaded: Loaded, values: Callable[[int], list[Any]], count: int) -> Call:
    """Keras as it is, node by node; for many samples traced once, as `predict` does it, where both agree on the first.

    Tracing halves the time of a deep network. Its sums run in another order, by some ulp; more is another model.
    """
    import numpy as np
    import tensorflow as tf

    if count < _ENOUGH_TO_TRACE:
        return loaded.call
    try:
        traced: Call = tf.function(loaded.call, autograph=False)
        both = zip(loaded.call(values(0)), traced(values(0)), strict=True)
        same = all(_close(np.asarray(plain, np.float64), np.asarray(fast, np.float64)) for plain, fast in both)
    except Exception:  # a custom layer may want to be run eagerly
        return loaded.call
    return traced if same else loaded.call


def _close(plain: Any, fast: Any) -> bool:
    import numpy as np

    return bool(np.abs(plain - fast).max(initial=0) <= _TRACED_ULPS * np.abs(plain).max(initial=0))


def answer(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request: `ok`, an `error` of our tree, or a `bug` with its traceback."""
    operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "load": session.load,
        "convert": session.convert,
        "reference": session.reference,
    }
    try:
        return {"ok": operations[request["op"]](request)}
    except MemoryError:
        error: EdgemedError = ResourceError(
            "Memory ran out during the conversion.", "Close other programs or add swap."
        )
    except EdgemedError as caught:
        traceback.print_exc()
        error = caught
    except Exception as caught:
        return {"bug": f"{type(caught).__name__}: {caught}", "traceback": traceback.format_exc()}
    return {"error": type(error).__name__, "what": error.what, "hint": error.hint}


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    requests, answers, parent = map(int, sys.argv[1:4])
    die_with_parent(parent)
    session = Session()
    with os.fdopen(requests, "r", encoding="utf-8") as source, os.fdopen(answers, "w", encoding="utf-8") as sink:
        for line in source:
            sink.write(json.dumps(answer(session, json.loads(line))) + "\n")
            sink.flush()
    os._exit(0)  # TensorFlow's threads and destructors have nothing left to do


if __name__ == "__main__":
    main()
