"""What is true of an image: the folder it lies in, a row of a table, a mask, or a DICOM Segmentation."""
