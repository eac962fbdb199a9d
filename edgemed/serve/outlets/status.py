"""What a status of a DICOM storage service means for what was sent: of C-STORE (PS3.4 table B.2-1) and STOW-RS."""

from __future__ import annotations

from typing import Final

from edgemed.serve.outlets.courier import Outcome
from edgemed.serve.outlets.plan import IMAGE

_SUCCESS: Final = 0x0000
_DUPLICATE: Final = 0x0111
_WARNINGS: Final = (0x0001, 0x0107, 0x0116)
_NEVER: Final = {
    0x0106: "an attribute is invalid",
    0x0115: "an argument is invalid",
    0x0117: "the SOP Instance UID is invalid",
    0x0118: "it does not know the SOP class",
    0x0119: "class and instance do not go together",
    0x0120: "an attribute is missing",
    0x0121: "a value is missing",
    0x0122: "it does not take this SOP class",
    0x0212: "an argument is mistyped",
}


def of_status(status: int, kind: str) -> Outcome:
    """Stored (with a note, where it is a warning), not now, or never in this form.

    Args:
        status: that the service answered.
        kind: of the result that was sent.

    What nobody has defined is tried again: a delivery is only given up for a reason that is understood, or for its age.
    """
    code = f"0x{status:04X}"
    if status == _SUCCESS:
        return Outcome("delivered")
    if status == _DUPLICATE and kind == IMAGE:  # its UID is its maker's: nobody knows what they have under it
        return Outcome("refused", f"It has this image, or another one, under the same SOP Instance UID ({code}).")
    if status == _DUPLICATE:  # UIDs of ours are made of what is in it: it came before, and the answer was lost
        return Outcome("delivered", f"It has it already: {code}.")
    if status in _WARNINGS or status >> 12 == 0xB:
        return Outcome("delivered", f"Stored with a warning: {code}.")
    if status in _NEVER:
        return Outcome("refused", f"Refused: {_NEVER[status]} ({code}).")
    if status >> 8 == 0xA9:
        return Outcome("refused", f"Refused: the data set does not match its SOP class ({code}).")
    if status >> 12 == 0xC:
        return Outcome("refused", f"Refused: it cannot understand the data set ({code}).")
    if status >> 8 == 0xA7:
        return Outcome("later", f"It is out of resources ({code}).")
    return Outcome("later", f"It did not store it ({code}).")
