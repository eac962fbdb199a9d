"""DICOM over the network: what peers send, ask, and are asked."""
