"""DICOM objects that say what a model found: reports, segmentations, secondary captures, presentation states."""

from edgemed.imaging.results.make import make_results

__all__ = ["make_results"]
