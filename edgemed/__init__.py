"""edgemed: trained Keras imaging models as verified INT8 TensorRT bundles for the bedside."""

__version__ = "0.1.0"
