"""DICOM files become pixels whose numbers mean something; every transfer syntax of still images, no header trusted."""

from edgemed.imaging.dicom.file import DicomFile, open_dicom
from edgemed.imaging.dicom.frames import FrameAttributes
from edgemed.imaging.dicom.sniff import is_dicom

__all__ = ["DicomFile", "FrameAttributes", "is_dicom", "open_dicom"]
