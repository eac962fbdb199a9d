"""Explicit quantization: where Q/DQ pairs go and why, and writing them into the graph."""
