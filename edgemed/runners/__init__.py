"""Runners that need no GPU: ONNX Runtime and the scripted null Runner, and the golden check."""
