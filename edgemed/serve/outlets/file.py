"""The file of a parcel: it is what the journal says, or it is not sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgemed.base.errors import EdgemedError
from edgemed.base.hashing import sha256_file
from edgemed.imaging.dicom.part10 import hash_dataset, read_meta
from edgemed.serve.outlets.courier import Done, Outcome, Parcel, Pulse, Unavailable
from edgemed.serve.outlets.plan import IMAGE


def unsound(parcel: Parcel, step: Callable[[], object] = lambda: None) -> Outcome | None:
    """Why the file of a parcel may not be sent: it is gone, or its bytes have changed; `None` where it may.

    Args:
        parcel: whose file is read as a whole.
        step: called now and then.

    Raises:
        Unavailable: the disk does not give it now.
    """
    try:
        if parcel.kind == IMAGE and parcel.sop_class:
            with parcel.path.open("rb") as file:
                found = hash_dataset(file, read_meta(file).offset, _silent(step))
        else:
            found = sha256_file(parcel.path)
    except FileNotFoundError:
        return Outcome("refused", "Its file in the spool is gone.")
    except OSError as error:
        raise Unavailable(f"The spool cannot be read: {error.strerror}.", parcel) from error
    except EdgemedError:
        found = ""
    return None if found == parcel.sha256 else Outcome("refused", "Its file in the spool is damaged.")


def one_by_one(parcels: Sequence[Parcel], done: Done, pulse: Pulse, send: Callable[[Parcel], Outcome]) -> None:
    """Send what is sound of some parcels, for as long as `pulse` says so, and tell what became of each.

    Raises:
        Unavailable: by `send`, or the disk: the rest was not tried.
    """
    for parcel in parcels:
        if not pulse():
            return
        done(parcel, unsound(parcel, pulse) or send(parcel))


def _silent(step: Callable[[], object]) -> Callable[[], None]:
    def call() -> None:
        step()

    return call
