"""ONNX graphs in memory: load and save, passes, lint, costs, the scale table."""
