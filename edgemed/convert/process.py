"""The parent's side: one child process per model, killed with everything it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from edgemed.base import errors
from edgemed.base.child import package_environment
from edgemed.base.errors import ChildError, InputError, from_os_error, os_errors_as_resource
from edgemed.base.runner import TensorSpec
from edgemed.convert.scan import scan_model
from edgemed.convert.types import Converted, ConvertOptions, LayerInfo, specs_from_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LOG_TAIL = 4000
_SUFFIX = {"keras-h5": ".h5", "keras-v3": ".keras"}

_CHILD_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",  # a GPU would bring TF32 and fast-math differences into the references
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # references must not depend on the CPU's instruction set
    "PYTHONHASHSEED": "0",  # tf2onnx names constants in the order of a set: the same file must give the same graph
    "ORT_DISABLE_TELEMETRY": "1",
}


class ChildLog(Exception):
    """The end of the child's log; the cause of the error that is shown, so that --debug prints it."""


class KerasModel:
    """A Keras model in a child process of its own.

    Nothing is started before `convert`. Use it as a context manager: leaving the block, by whatever way, kills the
    child's whole process group; the kernel kills the child when the parent dies, or the thread that called `convert`.

    Args:
        model: a `.h5` or `.keras` file, or a SavedModel directory.
        workdir: an existing directory for the ONNX file, arrays in transit and the child's log.
        options: shapes, opset, allowed code.
    """

    def __init__(self, model: Path, workdir: Path, options: ConvertOptions | None = None) -> None:
        self._model = Path(model).absolute()
        self._workdir = Path(workdir).absolute()
        self._options = options or ConvertOptions()
        self._child: _Child | None = None
        self._converted: Converted | None = None

    def __enter__(self) -> KerasModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the child and wait for its end; harmless when there is none."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    def convert(self) -> Converted:
        """Scan the file, load it in the child and write `workdir/model.onnx` (large weights to `model.onnx.data`).

        Raises:
            InputError: not a model, damaged, weights NaN, shapes not fixed, an operation without ONNX equivalent.
            UnsafeModelError: loading it would run code that was not allowed.
            ChildError: the child was killed or broke the protocol.
            ResourceError: disk or memory.
        """
        self.close()
        self._converted = None
        options = self._options
        if options.allow_code is not None and not options.allow_code.is_file():
            raise InputError(f"{options.allow_code} does not exist.", "Give an existing Python file to --allow-code.")
        scan = scan_model(self._model, allow_code=options.allow_code is not None)
        if options.signature is not None and scan.format != "saved-model":
            raise InputError(f"{self._model.name} has no signatures.", "Leave out --signature: it is for a SavedModel.")
        self._child = child = _Child(self._workdir)
        child.ask(
            op="load",
            model=str(self._named(scan.format)),
            allow_code=str(options.allow_code.absolute()) if options.allow_code else None,
            input_shapes={name: list(shape) for name, shape in options.input_shapes.items()},
            batch=options.batch,
            signature=options.signature,
        )
        path = self._workdir / "model.onnx"
        described = child.ask(op="convert", path=str(path), opset=options.opset, external_above=options.external_above)
        self._converted = _converted(path, described)
        return self._converted

    def _named(self, kind: str) -> Path:
        """Keras tells formats by suffix, we by content: where they differ, a link has the right suffix."""
        suffix = _SUFFIX.get(kind)
        if suffix is None or self._model.suffix == suffix:
            return self._model
        link = self._workdir / f"source{suffix}"
        with os_errors_as_resource(link):
            link.unlink(missing_ok=True)
            link.symlink_to(self._model)
        return link

    def reference(self, feeds: Sequence[Mapping[str, NDArray[np.generic]]]) -> list[dict[str, NDArray[np.generic]]]:
        """Keras' own outputs for samples: the model called in Keras, not the converted graph.

        Args:
            feeds: one mapping per sample, with an array of exactly the declared dtype and shape per input.

        Returns:
            One mapping per sample, with the names of `Converted.outputs`.

        Raises:
            InputError: a feed does not fit.
            ChildError: the child died.
            RuntimeError: `convert` has not run.
        """
        import numpy as np

        if self._child is None or self._converted is None:
            raise RuntimeError("reference() needs convert() first")
        arrays: dict[str, NDArray[np.generic]] = {}
        for sample, feed in enumerate(feeds):
            _check_feed(feed, self._converted.inputs)
            arrays |= {f"{sample}/{i}": feed[spec.name] for i, spec in enumerate(self._converted.inputs)}
        source, target = self._workdir / "reference-feeds.npz", self._workdir / "reference-fetches.npz"
        try:
            with os_errors_as_resource(source):
                np.savez(source, **arrays)  # type: ignore[arg-type, unused-ignore]
            self._child.ask(op="reference", feeds=str(source), fetches=str(target), count=len(feeds))
            with np.load(target, allow_pickle=False) as fetches:
                names = [spec.name for spec in self._converted.outputs]
                return [{n: fetches[f"{s}/{i}"] for i, n in enumerate(names)} for s in range(len(feeds))]
        finally:
            source.unlink(missing_ok=True)
            target.unlink(missing_ok=True)


def _check_feed(feed: Mapping[str, NDArray[np.generic]], specs: tuple[TensorSpec, ...]) -> None:
    if set(feed) != {spec.name for spec in specs}:
        wanted = ", ".join(spec.name for spec in specs)
        raise InputError(f"The inputs given are {', '.join(sorted(feed))}.", f"The model takes: {wanted}.")
    for spec in specs:
        array = feed[spec.name]
        if not spec.admits(array.dtype.name, array.shape):
            got = TensorSpec(spec.name, array.dtype.name, array.shape)
            raise InputError(f"The model takes {spec}, not {got}.", "Prepare the sample with a recipe that fits.")


def _converted(path: Path, described: dict[str, Any]) -> Converted:
    return Converted(
        path=path,
        inputs=specs_from_json(described["inputs"]),
        outputs=specs_from_json(described["outputs"]),
        format=described["format"],
        versions=described["versions"],
        rescales_inside=described["rescales_inside"],
        output_activations=described["output_activations"],
        parameters=described["parameters"],
        layers=tuple(LayerInfo(name, class_name) for name, class_name in described["layers"]),
    )


class _Child:
    """A child process with a line of JSON each way."""

    def __init__(self, workdir: Path) -> None:
        self._log = workdir / "convert.log"
        self._killed = False
        request_read, request_write = os.pipe()
        answer_read, answer_write = os.pipe()
        try:
            with self._log.open("wb") as log:
                self.process = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "edgemed.convert.child",
                        str(request_read),
                        str(answer_write),
                        str(os.getpid()),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(request_read, answer_write),
                    cwd=workdir,  # `-m` puts the working directory first in sys.path: not the user's
                    env=_environment(workdir),
                    start_new_session=True,  # Ctrl-C reaches the parent only, which then kills the group
                )
        except OSError as error:
            os.close(request_write)
            os.close(answer_read)
            raise from_os_error(error, workdir) from error
        finally:
            os.close(request_read)
            os.close(answer_write)
        self._requests: IO[str] = os.fdopen(request_write, "w", encoding="utf-8")
        self._answers: IO[str] = os.fdopen(answer_read, "r", encoding="utf-8")

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and return the answer, or raise the child's error as ours.

        Any failure to get an answer, Ctrl-C included, kills the child: there is no way to know where it stands.
        """
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            line = ""
        except BaseException:
            self.kill()
            raise
        try:
            answer = json.loads(line)
        except ValueError:
            raise self._death() from ChildLog(self._tail())
        return self._open(answer)

    def _open(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "ok" in answer:
            return dict(answer["ok"])
        if "error" in answer:
            leaf = getattr(errors, answer["error"])
            raise leaf(answer["what"], answer["hint"]) from ChildLog(self._tail())
        raise RuntimeError(answer["bug"]) from ChildLog(answer["traceback"])

    def _death(self) -> ChildError:
        """Words for a child that ended without an answer."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        code = self.process.returncode
        self.kill()
        if code == -signal.SIGKILL:
            return ChildError(
                "The conversion process was killed, most likely because memory ran out.",
                "Close other programs or add swap, then try again.",
            )
        how = f"by signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"with status {code}"
        return ChildError(f"The conversion process ended {how}.", "Try again with --debug to see its log.")

    def _tail(self) -> str:
        with contextlib.suppress(OSError):
            return self._log.read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace")
        return ""

    def kill(self) -> None:
        """Kill the child's process group and reap the child; once, since its number may be another's afterwards."""
        if self._killed:
            return
        self._killed = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self._requests, self._answers):
            with contextlib.suppress(OSError):
                stream.close()


def _environment(workdir: Path) -> dict[str, str]:
    # KERAS_HOME: neither read the user's ~/.keras/keras.json (it may say channels_first) nor write one there
    environment = {
        **package_environment(),
        **_CHILD_ENVIRONMENT,
        "KERAS_HOME": str(workdir / "keras-home"),
        "TMPDIR": str(workdir),
    }
    environment.pop("TF_USE_LEGACY_KERAS", None)
    return environment
