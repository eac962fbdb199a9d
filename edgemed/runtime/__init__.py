"""Frames in, answers out: one CUDA context, TensorRT, the slot ring, sources of frames, and the contained worker."""
