"""DICOM over the network: what peers send, ask, and are asked.

pynetdicom encodes and negotiates. Its reactor is not used to accept: it has two threads for each association that poll
a thousand times a second, waits for a slow sender without end, and takes a PDU of any length.
"""

import logging

for _library in ("pynetdicom", "pydicom"):  # they print data sets, and values that they stumble over
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)
