"""`edgemed audit verify`: whether an audit trail is as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemed.cli.console import print_json, say


def verify_audit(
    state: Annotated[Path, typer.Argument(metavar="STATE", help="The daemon's state directory, or its audit/.")],
    *,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The public key that you kept; without it, the one that lies beside the trail.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Read the whole trail: an entry that was changed, put in or taken out is named, and the code is 5."""
    from edgemed.bundle.keys import read_public_key
    from edgemed.serve.audit.chain import PUBLIC
    from edgemed.serve.audit.verify import folder_of, verify_trail

    folder = folder_of(state)
    found = verify_trail(folder, read_public_key(key or folder / PUBLIC))
    if json:
        print_json({"entries": found.entries, "first": found.first, "last": found.last, "own_key": key is not None})
        return
    if not found.entries:
        say("The trail is empty.")
        return
    say(f"{found.entries} entries from {found.first} to {found.last}: none was changed, put in or taken out.")
    if key is None:
        say("The key lay beside the trail: who can write there could have made both. Keep a copy elsewhere: --key.")
