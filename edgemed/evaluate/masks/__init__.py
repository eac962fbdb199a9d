"""Segmentations judged: masks of float and INT8 against drawn ones, on the pixels of the source."""
