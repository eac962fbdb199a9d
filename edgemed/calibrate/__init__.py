"""Calibration: samples, observers, and the one streaming pass that yields the scale table."""
