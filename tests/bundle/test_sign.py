"""Whose bundles run: every way to change, exchange or replay one is found, before anything of it is used."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemed.base.errors import EdgemedError, InputError, IntegrityError
from edgemed.bundle.keys import key_id, new_key, read_private_key
from edgemed.bundle.read import open_bundle
from edgemed.bundle.sign import pae, sign_bundle
from edgemed.bundle.trust import Trust, open_trusted
from edgemed.cli.app import invoke
from tests.evaluate.bundles import write_bundle
from tests.evaluate.hostile import reseal, with_golden


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "other"):
        new_key(folder / name)
    return folder


@pytest.fixture
def bundle(tmp_path: Path, keys: Path) -> Path:
    """Signed with sequence 7."""
    path = with_golden(write_bundle(tmp_path / "little.edgemed", boundaries={"float": 0.5}))[0]
    sign_bundle(open_bundle(path), read_private_key(keys / "ours"), sequence=7)
    return path


@pytest.fixture
def trust(keys: Path) -> Trust:
    return Trust.read([keys / "ours.pub"])


def main(arguments: list[str]) -> int:
    """The exit code of a command."""
    try:
        return invoke(arguments)
    except EdgemedError as error:
        return error.exit_code


def envelope(bundle: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((bundle / "signature.json").read_bytes())
    return document


def test_a_signed_bundle_is_trusted_and_says_who_and_which(bundle: Path, trust: Trust) -> None:
    opened, signed = open_trusted(bundle, trust)
    assert signed is not None
    assert (signed.key in trust.keys, signed.release.sequence, signed.release.name) == (True, 7, opened.manifest.name)


def test_the_encoding_is_that_of_the_standard() -> None:
    """The example of DSSE's protocol.md."""
    encoded = pae(b"hello world", "http://example.com/HelloWorld")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_openssl_verifies_what_we_sign(bundle: Path, keys: Path, tmp_path: Path) -> None:
    document = envelope(bundle)
    (tmp_path / "message").write_bytes(pae(base64.b64decode(document["payload"]), document["payloadType"]))
    (tmp_path / "signature").write_bytes(base64.b64decode(document["signatures"][0]["sig"]))
    verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", keys / "ours.pub", "-rawin"]
    done = subprocess.run(
        [*verify, "-in", tmp_path / "message", "-sigfile", tmp_path / "signature"], capture_output=True, text=True
    )
    assert "Verified Successfully" in done.stdout, done.stderr
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", keys / "ours.pub", "-outform", "DER"], capture_output=True, check=True
    ).stdout
    assert hashlib.sha256(der).hexdigest() == document["signatures"][0]["keyid"]


Attack = Callable[[Path, Path], object]


def edit(change: Callable[[dict[str, Any]], object]) -> Attack:
    def attack(bundle: Path, _: Path) -> None:
        document = envelope(bundle)
        change(document)
        (bundle / "signature.json").write_text(json.dumps(document))

    return attack


def payload(change: Callable[[dict[str, Any]], object]) -> Attack:
    def forge(document: dict[str, Any]) -> None:
        inner = json.loads(base64.b64decode(document["payload"]))
        change(inner)
        document["payload"] = base64.b64encode(json.dumps(inner).encode()).decode()

    return edit(forge)


def flipped(text: str) -> str:
    return ("B" if text[0] == "A" else "A") + text[1:]


def link(bundle: Path, keys: Path, name: str) -> None:
    aside = keys / f"aside {Path(name).name}"
    shutil.copy(bundle / name, aside)
    (bundle / name).unlink()
    (bundle / name).symlink_to(aside)


def sign_raw(bundle: Path, keys: Path, inner: dict[str, Any]) -> None:
    """Signed with the trusted key, and yet no statement about this bundle."""
    key = read_private_key(keys / "ours")
    body = json.dumps(inner).encode()
    document = envelope(bundle)
    document["payload"] = base64.b64encode(body).decode()
    document["signatures"][0]["sig"] = base64.b64encode(key.sign(pae(body))).decode()
    (bundle / "signature.json").write_text(json.dumps(document))


ATTACKS: dict[str, tuple[Attack, str]] = {
    "a bit of the signature": (
        edit(lambda d: d["signatures"][0].update(sig=flipped(d["signatures"][0]["sig"]))),
        "does not fit",
    ),
    "the sequence": (payload(lambda p: p["predicate"].update(sequence=8)), "does not fit"),
    "the digest": (payload(lambda p: p["subject"][0]["digest"].update(sha256="0" * 64)), "does not fit"),
    "a graph, with hashes that fit": (
        lambda bundle, _: reseal(bundle, files={"graphs/float.onnx": b"evil"}),
        "another bundle",
    ),
    "a graph alone": (lambda bundle, _: (bundle / "graphs/float.onnx").write_bytes(b"evil"), "does not match its hash"),
    "the manifest alone": (
        lambda bundle, _: (bundle / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes() + b" "),
        "another bundle",
    ),
    "no signature": (lambda bundle, _: (bundle / "signature.json").unlink(), "not signed"),
    "half a signature": (
        lambda bundle, _: os.truncate(bundle / "signature.json", (bundle / "signature.json").stat().st_size // 2),
        "schema",
    ),
    "an empty one": (lambda bundle, _: (bundle / "signature.json").write_bytes(b""), "schema"),
    "a huge one": (lambda bundle, _: (bundle / "signature.json").write_bytes(b" " * 100_000), "larger"),
    "a short signature": (edit(lambda d: d["signatures"][0].update(sig="AAAA")), "schema"),
    "two signatures": (edit(lambda d: d["signatures"].append(d["signatures"][0])), "schema"),
    "another type": (edit(lambda d: d.update(payloadType="text/plain")), "schema"),
    "another key": (
        lambda bundle, keys: sign_bundle(open_bundle(bundle), read_private_key(keys / "other"), force=True),
        "not trusted",
    ),
    "another key under the trusted name": (
        lambda bundle, keys: (
            sign_bundle(open_bundle(bundle), read_private_key(keys / "other"), force=True),
            edit(lambda d: d["signatures"][0].update(keyid=key_id(read_private_key(keys / "ours").public_key())))(
                bundle, keys
            ),
        ),
        "does not fit",
    ),
    "another statement of the trusted key": (
        lambda bundle, keys: sign_raw(bundle, keys, {"_type": "https://in-toto.io/Statement/v1", "subject": []}),
        "something else",
    ),
    "the signature as a link": (lambda bundle, keys: link(bundle, keys, "signature.json"), "no regular file"),
    "the manifest as a link": (lambda bundle, keys: link(bundle, keys, "manifest.json"), "no regular file"),
    "a graph as a link": (lambda bundle, keys: link(bundle, keys, "graphs/float.onnx"), "not a regular file"),
    "a file more": (lambda bundle, _: (bundle / "more.plan").write_bytes(b"x"), "not listed"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_change_is_refused_with_exit_code_5(
    bundle: Path, keys: Path, trust: Trust, name: str, tmp_path: Path
) -> None:
    attack, words = ATTACKS[name]
    attack(bundle, keys)
    with pytest.raises(IntegrityError, match=words) as raised:
        open_trusted(bundle, trust)
    assert raised.value.exit_code == 5
    assert main(["verify", str(bundle), "--trust", str(keys / "ours.pub")]) == 5
    shutil.rmtree(bundle)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Path:
    path = with_golden(write_bundle(tmp_path_factory.mktemp("fuzz") / "little.edgemed", boundaries={"float": 0.5}))[0]
    sign_bundle(open_bundle(path), read_private_key(keys / "ours"), sequence=7)
    return path


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_damage_to_a_signature_makes_it_say_something_else(original: Path, keys: Path, data: st.DataObject) -> None:
    whole = (original / "signature.json").read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.integers(0, 3))
    damaged = whole[:place] + data.draw(st.binary(max_size=3)) + whole[place + cut :]
    try:
        (original / "signature.json").write_bytes(damaged)
        _, signed = open_trusted(original, Trust.read([keys / "ours.pub"]))
        assert signed is not None
        assert signed.release.sequence == 7  # white space, at most
    except IntegrityError:
        pass
    finally:
        (original / "signature.json").write_bytes(whole)


def test_signatures_of_two_bundles_cannot_be_exchanged(bundle: Path, keys: Path, trust: Trust, tmp_path: Path) -> None:
    other = with_golden(write_bundle(tmp_path / "other.edgemed", boundaries={"float": 0.4}))[0]
    sign_bundle(open_bundle(other), read_private_key(keys / "ours"))
    shutil.copy(other / "signature.json", bundle / "signature.json")
    with pytest.raises(IntegrityError, match="another bundle"):
        open_trusted(bundle, trust)


def test_what_was_revoked_runs_no_more(bundle: Path, keys: Path, trust: Trust, tmp_path: Path) -> None:
    listed = tmp_path / "revoked"
    opened, signed = open_trusted(bundle, trust)
    assert signed is not None
    for what, allow in ((opened.digest, False), (signed.key, False), (opened.digest, True), (signed.key, True)):
        listed.write_text(f"# why\n\n{what.upper()}  # because\n")
        revoking = Trust.read([keys / "ours.pub"], listed, allow_unsigned=allow)
        with pytest.raises(IntegrityError, match="revoked"):
            open_trusted(bundle, revoking)
        arguments = ["verify", str(bundle), "--trust", str(keys / "ours.pub"), "--revoked", str(listed)]
        assert main(arguments) == 5
    listed.write_text("not a digest\n")
    with pytest.raises(InputError, match="line 1"):
        Trust.read([], listed)


def test_unsigned_runs_where_that_is_allowed_and_a_broken_signature_never(
    bundle: Path, keys: Path, trust: Trust
) -> None:
    lenient = Trust(trust.keys, allow_unsigned=True)
    edit(lambda d: d["signatures"][0].update(sig=flipped(d["signatures"][0]["sig"])))(bundle, keys)
    with pytest.raises(IntegrityError, match="does not fit"):
        open_trusted(bundle, lenient)
    (bundle / "signature.json").unlink()
    assert open_trusted(bundle, lenient)[1] is None


def test_an_assumed_recipe_is_not_signed(tmp_path: Path, keys: Path) -> None:
    path = with_golden(write_bundle(tmp_path / "a.edgemed", boundaries={"float": 0.5}, assumed=True))[0]
    with pytest.raises(InputError, match="assumed"):
        sign_bundle(open_bundle(path), read_private_key(keys / "ours"))
    assert not (path / "signature.json").exists()


def test_a_key_is_for_its_owner_alone_and_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "key"
    new_key(path, b"secret")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="exists"):
        new_key(path)
    for passphrase in (None, b"other"):
        with pytest.raises(InputError, match="passphrase"):
            read_private_key(path, passphrase)
    assert read_private_key(path, b"secret")
    path.chmod(0o644)
    with pytest.raises(IntegrityError, match="chmod 600"):
        read_private_key(path, b"secret")


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    key = generate_private_key(SECP256R1())
    private, public = tmp_path / "key", tmp_path / "key.pub"
    private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(InputError, match="no Ed25519 key"):
        read_private_key(private)
    with pytest.raises(InputError, match="no Ed25519 key"):
        Trust.read([public])
    with pytest.raises(InputError, match="no public key"):
        Trust.read([private])
    with pytest.raises(EdgemedError):
        Trust.read([tmp_path / "none"])


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = with_golden(write_bundle(tmp_path / "little.edgemed", boundaries={"float": 0.5}))[0]
    key, public = str(tmp_path / "key"), str(tmp_path / "key.pub")
    (tmp_path / "words").write_text("correct horse\n")
    words = ["--passphrase", str(tmp_path / "words")]
    assert main(["sign", "--new-key", key, *words, "--json"]) == 0
    identity = json.loads(capsys.readouterr().out)["key"]
    assert main(["sign", str(path), "--key", key]) == 2  # it has a passphrase
    assert main(["sign", str(path), "--key", key, *words, "--sequence", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sequence"] == 3
    assert main(["sign", str(path), "--key", key, *words]) == 2  # signed already
    assert main(["verify", str(path), "--trust", public, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["signed"], found["key"], found["sequence"]) == (True, identity, 3)
    assert main(["verify", str(path)]) == 0
    assert "was not checked" in capsys.readouterr().out
    assert main(["sign", str(path), "--key", key, *words, "--force"]) == 0
    assert main(["verify", str(path), "--trust", public]) == 0
    assert "It is signed" in capsys.readouterr().out
    for wrong in (["sign"], ["sign", str(path)], ["sign", "--key", key], ["sign", str(path), "--new-key", key]):
        assert main(wrong) == 2
