"""`edgemed sign`: vouch for a bundle with an offline key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgemed.base.errors import UsageError
from edgemed.cli.console import err, print_json, say
from edgemed.cli.options import JsonOption


def sign(
    bundle: Annotated[Path | None, typer.Argument(metavar="BUNDLE", help="NAME.edgemed", show_default=False)] = None,
    *,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Private key that signs.", show_default=False)
    ] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Make a key: FILE is private, FILE.pub public.", show_default=False),
    ] = None,
    sequence: Annotated[
        int | None,
        typer.Option(help="Number of this release; it must grow. Default: the seconds since 1970.", show_default=False),
    ] = None,
    passphrase: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File with the passphrase of the key; else a terminal is asked.", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a signature that is there.")] = False,
    json: JsonOption = False,
) -> None:
    """Sign BUNDLE with an Ed25519 key, so that a bedside can tell who built it and that it is not an old one.

    The signature is a DSSE envelope (signature.json) over the digest of the manifest, which covers every file.
    """
    from edgemed.bundle.keys import key_id, read_private_key
    from edgemed.bundle.keys import new_key as make_key
    from edgemed.bundle.read import open_bundle
    from edgemed.bundle.sign import sign_bundle

    if (new_key is None) == (bundle is None or key is None) or (new_key is not None and (bundle or key)):
        raise UsageError("Say what to do.", "edgemed sign BUNDLE --key FILE, or edgemed sign --new-key FILE")
    if new_key is not None:
        identity = make_key(new_key, _passphrase(passphrase, confirm=True))
        if json:
            print_json({"key": identity, "private": str(new_key), "public": f"{new_key}.pub"})
        else:
            say(f"{new_key} is private: keep it offline. {new_key}.pub goes to the bedside. Key {identity}")
        return
    assert bundle is not None, "asked for above"
    assert key is not None, "asked for above"
    opened = open_bundle(bundle)
    private = read_private_key(key, _passphrase(passphrase) if _is_locked(key) else None)
    release = sign_bundle(opened, private, sequence=sequence, force=force)
    identity = key_id(private.public_key())
    if json:
        print_json({"bundle": release.name, "digest": opened.digest, "key": identity, "sequence": release.sequence})
    else:
        say(f"{bundle} is signed: sequence {release.sequence}, key {identity}")


def _is_locked(key: Path) -> bool:
    from edgemed.bundle.keys import read_small

    return b"ENCRYPTED" in read_small(key, 1 << 16)


def _passphrase(file: Path | None, *, confirm: bool = False) -> bytes | None:
    """From a file, or from a terminal; `None` for none."""
    from edgemed.bundle.keys import read_small

    if file is not None:
        return read_small(file, 4096).rstrip(b"\r\n") or None
    if not sys.stdin.isatty():
        return None
    typed: str = typer.prompt("Passphrase", default="", hide_input=True, show_default=False, err=True)
    if confirm and typed and typer.prompt("Again", default="", hide_input=True, show_default=False, err=True) != typed:
        raise UsageError("The two differ.", "Type the same passphrase twice.")
    if confirm and not typed:
        say(("No passphrase: whoever gets the file can sign.", "yellow"), console=err)
    return typed.encode() or None
