"""Metrics with intervals, the comparison of precisions on labelled images, and gates on the result."""
