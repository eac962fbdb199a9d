"""DICOM objects that say what a model found: reports, segmentations, secondary captures, presentation states."""
