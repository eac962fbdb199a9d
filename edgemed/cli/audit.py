"""`edgemed audit verify`: whether an audit trail is as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemed.cli.console import print_json, say
from edgemed.cli.options import JsonOption


def verify_audit(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="The daemon's state directory, or its audit/; archived segments, or folders of them.",
        ),
    ],
    *,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The public key that you kept; without it, the one that lies beside the trail.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        int | None,
        typer.Option(
            "--from",
            metavar="N",
            min=1,
            help="All from entry N on must be there; earlier ones were archived.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Read a whole trail, or segments of it: an entry that was changed, put in or taken out is named; the code is 5."""
    from edgemed.bundle.keys import read_public_key
    from edgemed.serve.audit.segments import PUBLIC
    from edgemed.serve.audit.verify import folder_of, verify_trail

    found = verify_trail(paths, read_public_key(key or folder_of(paths[0]) / PUBLIC), since=since)
    if json:
        fields = ("entries", "begin", "end", "first", "last", "segments", "follows", "digest", "open")
        print_json({**{name: getattr(found, name) for name in fields}, "own_key": key is not None})
        return
    if not found.entries:
        say("The trail is empty.")
        return
    say(f"{found.entries} entries from {found.first} to {found.last}: none was changed, put in or taken out.")
    if found.segments > 1 or found.begin > 1:
        say(f"They are entries {found.begin} to {found.end}, in {found.segments} segment(s).")
    if found.begin > 1:
        say(f"The entry before them has the digest {found.follows}: the segment before must end with it.")
    if not found.open:
        say(f"They end with a seal, and the digest {found.digest}: what came later is not here.")
    if key is None:
        say("The key lay beside the trail: who can write there could have made both. Keep a copy elsewhere: --key.")
