"""Simple signatures: real ones of a real gpg, and whatever else might pass for one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from signers import Gpg, simple

from sysbox.base import paths
from sysbox.base.errors import Conflict, TrustError, Unsupported
from sysbox.base.flock import Lock
from sysbox.image.trust import gpg as module
from sysbox.image.trust import payload, policy, signatures
from sysbox.image.trust.check import check
from sysbox.image.trust.signatures import Given, Remote, Signature
from sysbox.linux import process

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = f"sha256:{sha256(MANIFEST).hexdigest()}"
OTHER = f"sha256:{'b' * 64}"
NAME = "reg.example/ns/app:1"
PAST = ("--faked-system-time", "20200101T000000")


@pytest.fixture(scope="module")
def gpg(requires: Any) -> Iterator[Gpg]:
    """The keys of alice and bob, one that has expired, and one that was revoked."""
    requires.program("gpg")
    made = Gpg()
    made.key("alice@test")
    made.key("bob@test")
    made.key("old@test", *PAST, expires="1d")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORK", f"{tmp_path}/work")
    monkeypatch.setattr(paths, "REGISTRIES_D", f"{tmp_path}/registries.d")


def verified(gpg: Gpg, message: bytes, *mails: str) -> bytes:
    with module.Keyring([gpg.public(*mails or ("alice@test",))]) as keyring:
        return keyring.verify(message).content


def refused(gpg: Gpg, message: bytes, why: str = "[a-z]", *mails: str) -> None:
    with pytest.raises(TrustError, match=why):
        verified(gpg, message, *mails)


def test_a_signature(gpg: Gpg, tmp_path: Path) -> None:
    with module.Keyring([gpg.public("alice@test")]) as keyring:
        signed = keyring.verify(gpg.sign(b"text", "alice@test"))
        assert signed.content == b"text"
        assert {signed.fingerprint} == keyring.fingerprints
        assert keyring.owners() == ["alice@test"]
        (home,) = (tmp_path / "work").iterdir()
        assert home.stat().st_mode & 0o777 == 0o700
    assert not list((tmp_path / "work").iterdir())


def test_gc_waits_for_the_keyring(gpg: Gpg, tmp_path: Path) -> None:
    lock = str(tmp_path / "use.lock")
    with module.Keyring([gpg.public("alice@test")]), pytest.raises(Conflict):
        Lock(lock, wait=False)
    Lock(lock, wait=False).release()


def test_one_of_several_keys(gpg: Gpg) -> None:
    message = gpg.sign(b"text", "bob@test")
    assert verified(gpg, message, "alice@test", "bob@test") == b"text"
    with module.Keyring([gpg.public("alice@test"), gpg.public("bob@test")]) as keyring:
        assert keyring.verify(message).content == b"text"
    armoured = gpg.run("--armor", "--export", "bob@test")
    with module.Keyring([armoured]) as keyring:
        assert keyring.verify(message).content == b"text"


def test_the_users_keyring_is_not_used(gpg: Gpg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNUPGHOME", gpg.home)
    refused(gpg, gpg.sign(b"text", "bob@test"), "another key")


def test_another_key(gpg: Gpg) -> None:
    refused(gpg, gpg.sign(b"text", "bob@test"), "another key")


def test_an_expired_key(gpg: Gpg) -> None:
    refused(gpg, gpg.sign(b"text", "old@test", options=PAST), "the key has expired", "old@test")


def test_an_expired_signature(gpg: Gpg) -> None:
    own = Gpg()
    try:
        own.key("long@test", *PAST)
        message = own.sign(b"text", "long@test", options=(*PAST, "--default-sig-expire", "1d"))
        refused(own, message, "the signature has expired", "long@test")
        assert verified(own, own.sign(b"text", "long@test"), "long@test") == b"text"
    finally:
        own.close()


def test_a_revoked_key() -> None:
    own = Gpg()
    try:
        fingerprint = own.key("gone@test")
        message = own.sign(b"text", "gone@test")
        assert verified(own, message, "gone@test") == b"text"
        own.revoke(fingerprint)
        refused(own, message, "the key was revoked", "gone@test")
    finally:
        own.close()


def test_a_changed_message(gpg: Gpg) -> None:
    message = gpg.sign(b"text" * 100, "alice@test", options=("--compress-algo", "none"))
    at = message.index(b"texttext")
    refused(gpg, message[:at] + b"T" + message[at + 1 :], "does not fit")


def test_what_is_not_signed(gpg: Gpg) -> None:
    for message in (b"", b"text", b"\xff" * 100, gpg.run("--store", data=b"text")):
        refused(gpg, message, "it is not")
    detached = gpg.run("-u", "alice@test", "--detach-sign", data=b"text")
    refused(gpg, detached)
    refused(gpg, gpg.run("--passphrase", "x", "--symmetric", data=b"text"))


@pytest.mark.parametrize("way", ["--armor", "--clear-sign"])
def test_a_message_in_text(gpg: Gpg, way: str) -> None:
    """Around it could be anything."""
    message = gpg.run(
        "-u", "alice@test", way, *(["--sign"] if way == "--armor" else []), data=b"text\n"
    )
    refused(gpg, message, "not an OpenPGP")
    refused(gpg, b"\xff" + message)


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_data_around_what_is_signed(gpg: Gpg, compression: str) -> None:
    options = ("--compress-algo", compression)
    good = gpg.sign(b"text", "alice@test", options=options)
    unsigned = gpg.run(*options, "--store", data=b"evil")
    other = gpg.sign(b"evil", "bob@test", options=options)
    for message in (unsigned + good, other + good):
        refused(gpg, message)
    for message in (good + unsigned, good + other, good + good):
        try:
            # gpg does not read on after a compressed packet: nothing but what is signed comes out
            assert verified(gpg, message) == b"text"
            assert compression == "zlib"
        except TrustError:
            assert compression == "none"
    assert verified(gpg, good) == b"text"


def test_two_signatures_on_one_message(gpg: Gpg) -> None:
    message = gpg.sign(b"text", "alice@test", "bob@test")
    refused(gpg, message, "several signatures|another key", "alice@test", "bob@test")
    refused(gpg, message)


def test_a_broken_hash(gpg: Gpg) -> None:
    message = gpg.sign(b"text", "alice@test", options=("--digest-algo", "SHA1"))
    refused(gpg, message, "SHA-1")


def test_sizes(gpg: Gpg) -> None:
    refused(gpg, b"\x90" * (module.MAX_SIGNATURE + 1), "larger than")
    bomb = gpg.sign(bytes(8 * module.MAX_SIGNATURE), "alice@test")
    assert len(bomb) < module.MAX_SIGNATURE
    refused(gpg, bomb)


def test_keys_that_are_none(gpg: Gpg, tmp_path: Path) -> None:
    for key in (b"", b"text", gpg.sign(b"text", "alice@test")):
        with pytest.raises(TrustError, match="no OpenPGP public key"):
            module.Keyring([key]).__enter__()
    assert not list((tmp_path / "work").iterdir())


def test_without_gpg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find_program", lambda name: name)
    with pytest.raises(Unsupported, match="gpg is not installed"):
        module.Keyring([b""]).__enter__()


GOOD = """\
NEWSIG
KEY_CONSIDERED AA 0
GOODSIG BB Test <x@y>
VALIDSIG CC 2026-01-01 1 0 4 0 22 8 00 AA
PLAINTEXT 62 1 """.splitlines()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda lines: [*lines, "EXPKEYSIG BB x"], "has expired"),
        (lambda lines: [*lines, "SOMETHING NEW"], "gpg reports SOMETHING"),
        (lambda lines: [*lines, lines[3]], "several"),
        (lambda lines: [*lines, lines[4]], "not a message with one"),
        (lambda lines: [*lines, lines[0]], "not a message with one"),
        (lambda lines: lines[1:], "not a message with one"),
        (lambda lines: lines[:-1], "not a message with one"),
        (lambda lines: [line.replace(" 00 ", " 10 ") for line in lines], "not that of a document"),
        (lambda lines: [line.replace(" 8 00", " 1 00") for line in lines], "MD5"),
        (lambda lines: [line.removesuffix(" AA") for line in lines], "which key"),
        (lambda lines: [], "not a message"),
    ],
)
def test_the_status_is_read_strictly(change: Any, why: str) -> None:
    lines = [line.split(" ") for line in GOOD]
    assert module.signer(0, lines) == "AA"
    with pytest.raises(TrustError, match=why):
        module.signer(0, [line.split(" ") for line in change(GOOD)])


def test_the_exit_status_counts() -> None:
    with pytest.raises(TrustError, match="not a message"):
        module.signer(2, [line.split(" ") for line in GOOD])
    with pytest.raises(TrustError, match="something else"):
        module.status_lines(b"[GNUPG:] NEWSIG\nGOODSIG\n")


# -- the whole check, with signatures in a lookaside ------------------------------------------


def rules(tmp_path: Path, *mails: str, **more: Any) -> policy.Policy:
    """A policy that wants a signature by each of these keys."""
    items = [
        {"type": "signedBy", "keyType": "GPGKeys", "keyPath": f"{tmp_path}/{mail}.gpg", **more}
        for mail in mails
    ]
    document = {"default": [{"type": "reject"}], "transports": {"docker": {"reg.example": items}}}
    return policy.parse(json.dumps(document).encode(), "policy.json")


@pytest.fixture
def lookaside(tmp_path: Path, gpg: Gpg) -> Path:
    """A directory for signatures, and files with the public keys."""
    for mail in ("alice@test", "bob@test"):
        (tmp_path / f"{mail}.gpg").write_bytes(gpg.public(mail))
    root = tmp_path / "sig"
    (tmp_path / "registries.d").mkdir()
    (tmp_path / "registries.d" / "a.yaml").write_text(
        f"default-docker:\n  lookaside: file://{root}\n"
    )
    return root


def put(root: Path, *messages: bytes, digest: str = DIGEST) -> Path:
    place = root / f"ns/app@{digest.replace(':', '=')}"
    place.mkdir(parents=True, exist_ok=True)
    for number, message in enumerate(messages, 1):
        (place / f"signature-{number}").write_bytes(message)
    return place


def nothing(*_: Any) -> None:
    return None


def remote(name: str = NAME, digest: str = DIGEST, fetch_url: Any = nothing) -> Remote:
    return Remote(
        name, digest, fetch_url=fetch_url, fetch_manifest=nothing, fetch_blob=lambda _: b""
    )


def test_a_signed_image(gpg: Gpg, tmp_path: Path, lookaside: Path) -> None:
    put(lookaside, b"junk", gpg.sign(simple(NAME, DIGEST), "alice@test"))
    verdict = check(rules(tmp_path, "alice@test"), "docker", NAME, DIGEST, MANIFEST, remote())
    (signature,) = verdict.signatures
    assert str(verdict).startswith("signedBy ")
    assert signature.where.endswith("/signature-2")
    again = Given(verdict.signatures)
    assert check(rules(tmp_path, "alice@test"), "docker", NAME, DIGEST, None, again) == verdict


def refuses(tmp_path: Path, why: str, name: str = NAME, mails: Any = ("alice@test",)) -> None:
    with pytest.raises(TrustError, match=why) as caught:
        check(rules(tmp_path, *mails), "docker", name, DIGEST, MANIFEST, remote(name))
    assert "\n" not in caught.value.message


def test_signatures_that_do_not_count(gpg: Gpg, tmp_path: Path, lookaside: Path) -> None:
    def signed(text: bytes, mail: str = "alice@test") -> bytes:
        return gpg.sign(text, mail)

    refuses(tmp_path, "it has no OpenPGP signature")
    cases = (
        (signed(simple(NAME, OTHER)), "it is for the manifest sha256:bbb"),
        (signed(simple("reg.example/ns/other:1", DIGEST)), "it is for reg.example/ns/other:1"),
        (signed(simple("reg.example/ns/app:2", DIGEST)), "it is for reg.example/ns/app:2"),
        (signed(simple("reg.example.evil/ns/app:1", DIGEST)), "it is for reg.example.evil"),
        (signed(simple(NAME, DIGEST), "bob@test"), "another key"),
        (signed(payload.write(NAME, DIGEST, payload.SIGSTORE, "x", 1)), "its type"),
        (signed(b"text"), "payload"),
        (b"\x90" * (module.MAX_SIGNATURE + 1), "larger than"),
    )
    for message, why in cases:
        put(lookaside, message)
        refuses(tmp_path, why)


def test_both_of_two_signers_are_needed(gpg: Gpg, tmp_path: Path, lookaside: Path) -> None:
    both = ("alice@test", "bob@test")
    put(lookaside, gpg.sign(simple(NAME, DIGEST), "alice@test"))
    refuses(tmp_path, "another key", mails=both)
    put(lookaside, *(gpg.sign(simple(NAME, DIGEST), mail) for mail in both))
    verdict = check(rules(tmp_path, *both), "docker", NAME, DIGEST, MANIFEST, remote())
    assert len(verdict.by) == len(verdict.signatures) == 2


def test_the_manifest_must_be_the_one(gpg: Gpg, tmp_path: Path, lookaside: Path) -> None:
    put(lookaside, gpg.sign(simple(NAME, DIGEST), "alice@test"))
    with pytest.raises(TrustError, match="its manifest is not"):
        check(rules(tmp_path, "alice@test"), "docker", NAME, DIGEST, b"{}", remote())


def test_a_digest_needs_the_repository(gpg: Gpg, tmp_path: Path, lookaside: Path) -> None:
    put(lookaside, gpg.sign(simple(NAME, DIGEST), "alice@test"))
    name = f"reg.example/ns/app@{DIGEST}"
    rule = rules(tmp_path, "alice@test")
    assert check(rule, "docker", name, DIGEST, MANIFEST, remote(name)).signatures
    strict = rules(tmp_path, "alice@test", signedIdentity={"type": "matchExact"})
    with pytest.raises(TrustError, match="it is for"):
        check(strict, "docker", name, DIGEST, MANIFEST, remote(name))


def test_keys_in_the_policy(gpg: Gpg, lookaside: Path) -> None:
    from base64 import b64encode

    data = b64encode(gpg.public("alice@test")).decode()
    item = {"type": "signedBy", "keyType": "GPGKeys", "keyData": data}
    rule = policy.parse(json.dumps({"default": [item]}).encode(), "policy.json")
    put(lookaside, gpg.sign(simple(NAME, DIGEST), "alice@test"))
    assert check(rule, "docker", NAME, DIGEST, MANIFEST, remote()).signatures


def test_a_missing_key(gpg: Gpg, tmp_path: Path, lookaside: Path) -> None:
    put(lookaside, gpg.sign(simple(NAME, DIGEST), "alice@test"))
    (tmp_path / "alice@test.gpg").unlink()
    refuses(tmp_path, "the file with the key is not there")


def test_rejected_and_unsupported(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="the policy for 'default' rejects it"):
        check(rules(tmp_path, "alice@test"), "docker", "b.example/x:1", DIGEST, None, remote())
    text = '{"default": [{"type": "sigstoreSigned", "fulcio": {}}]}'
    with pytest.raises(TrustError, match="sigstoreSigned with fulcio, which is not supported"):
        check(policy.parse(text.encode(), "p"), "docker", NAME, DIGEST, None, remote())


def test_a_lookaside_that_leads_elsewhere(gpg: Gpg, tmp_path: Path, lookaside: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(gpg.sign(simple(NAME, DIGEST), "alice@test"))
    place = put(lookaside)
    (place / "signature-1").symlink_to(tmp_path / "elsewhere")
    refuses(tmp_path, "a link that leads out of the directory")
    (place / "signature-1").unlink()
    os.mkfifo(place / "signature-1")
    refuses(tmp_path, "not a file")


def test_too_many_signatures(
    tmp_path: Path, lookaside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "MAX_SIGNATURES", 2)
    put(lookaside, b"a", b"b", b"c")
    refuses(tmp_path, "OpenPGP")
    assert list(Given((Signature(kind="simple", content=b"a"),)).sigstore()) == []


def test_a_lookaside_over_https(gpg: Gpg, tmp_path: Path, lookaside: Path) -> None:
    (tmp_path / "registries.d" / "a.yaml").write_text(
        "docker:\n  reg.example/ns:\n    lookaside: https://sig.example/top/\n"
    )
    asked = []

    def fetch(url: str, limit: int) -> bytes | None:
        asked.append(url)
        assert limit == module.MAX_SIGNATURE
        return gpg.sign(simple(NAME, DIGEST), "alice@test") if url.endswith("-2") else b"junk"

    rule = rules(tmp_path, "alice@test")
    assert check(rule, "docker", NAME, DIGEST, MANIFEST, remote(fetch_url=fetch)).signatures
    stem = f"https://sig.example/top/ns/app@{DIGEST.replace(':', '=')}/signature-"
    assert asked == [f"{stem}1", f"{stem}2"]


def test_a_gpg_that_hangs(gpg: Gpg, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    slow = tmp_path / "gpg"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(process, "find_program", lambda _: str(slow))
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    with pytest.raises(TrustError, match="did not end"):
        module.Keyring([b""]).__enter__()
