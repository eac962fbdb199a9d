"""What people write by hand around tf2onnx and ONNX Runtime to get an INT8 model; one step per call.

`python usual_script.py export MODEL.h5 FOLDER`      SavedModel, where tf2onnx cannot read the file itself
`python usual_script.py arrays MODEL.onnx OUT.npy`   calibration images as one array, which ModelOpt reads
`python usual_script.py quantize MODEL.onnx OUT.onnx MinMax|Entropy`

Images are those of `./calibration`, scaled to 0-1 and to the size of the input.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def images(shape: list[int]) -> Iterator[NDArray[np.float32]]:
    """Each calibration image as the model takes it."""
    from PIL import Image

    for path in sorted(Path("calibration").glob("*.png")):
        image = Image.open(path).convert("RGB").resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
        yield np.asarray(image, np.float32)[None] / 255


def model_input(model: str) -> Any:
    """The one input of an ONNX model."""
    import onnxruntime

    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()[0]


def export(source: str, target: str) -> None:
    """Keras 3 to a SavedModel."""
    import keras

    keras.models.load_model(source, compile=False).export(target, verbose=False)


def arrays(model: str, target: str) -> None:
    """All images in one NPY file."""
    np.save(target, np.concatenate(list(images(model_input(model).shape))))


def quantize(source: str, target: str, method: str) -> None:
    """ONNX Runtime's static quantization: Q/DQ, per channel, symmetric."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self._input = model_input(source)
            self._images = images(self._input.shape)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self._images, None)
            return None if image is None else {self._input.name: image}

    quant_pre_process(source, f"{target}.prepared")
    quantize_static(
        f"{target}.prepared",
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[method],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )


if __name__ == "__main__":
    {"export": export, "arrays": arrays, "quantize": quantize}[sys.argv[1]](*sys.argv[2:])
