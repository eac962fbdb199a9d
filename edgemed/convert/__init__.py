"""Keras to ONNX: look at the file first, then convert it in one child process per model."""

from edgemed.convert.process import KerasModel
from edgemed.convert.scan import Scan, scan_model
from edgemed.convert.types import Converted, ConvertOptions, LayerInfo

__all__ = ["ConvertOptions", "Converted", "KerasModel", "LayerInfo", "Scan", "scan_model"]
