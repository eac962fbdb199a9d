"""Where nothing may be written: into a bundle, and over what is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgemed.base.errors import InputError
from edgemed.bundle.read import enclosing_bundle


def require_outside_bundles(target: Path, option: str) -> None:
    """Refuse what may never be changed.

    Raises:
        InputError: `target`, given by `option`, is or would lie in a bundle.
    """
    if (bundle := enclosing_bundle(target)) is not None:
        raise InputError(
            f"{target} lies in the bundle {bundle.name}, which is never changed.", f"Choose another {option}."
        )


def require_no_input(targets: Iterable[Path], inputs: Iterable[Path], option: str) -> None:
    """Refuse to write over what is read.

    Raises:
        InputError: one of `targets`, made from `option`, is an input.
    """
    if {path.resolve() for path in targets} & {path.resolve() for path in inputs}:
        raise InputError("Outputs would replace inputs.", f"Choose another {option}.")
