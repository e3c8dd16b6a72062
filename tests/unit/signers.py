"""Throw-away OpenPGP keys of a real gpg, and sigstore keys of a real openssl."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from sysbox.image.trust import payload


class Gpg:
    """A home directory of gpg, with its agent; `close` ends both."""

    def __init__(self) -> None:
        # short: the agent's socket is in it
        self.home = tempfile.mkdtemp(prefix="gpg", dir="/tmp")

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "all"], check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    def run(self, *arguments: str, data: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", self.home, "--batch", "--quiet", "--no-options", "--yes"]
        done = subprocess.run(
            [*command, "--pinentry-mode", "loopback", "--passphrase", "", *arguments],
            input=data,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def key(self, mail: str, *options: str, expires: str = "never") -> str:
        """A new key; its fingerprint."""
        self.run(*options, "--quick-generate-key", f"Test <{mail}>", "ed25519", "sign", expires)
        return self.fingerprint(mail)

    def fingerprint(self, mail: str) -> str:
        listed = self.run("--with-colons", "--list-keys", mail).decode().splitlines()
        return next(line.split(":")[9] for line in listed if line.startswith("fpr:"))

    def public(self, *mails: str) -> bytes:
        return self.run("--export", *mails)

    def revoke(self, fingerprint: str) -> None:
        path = Path(self.home, "openpgp-revocs.d", f"{fingerprint}.rev")
        self.run("--import", data=path.read_bytes().replace(b"\n:-----BEGIN", b"\n-----BEGIN"))

    def sign(self, data: bytes, *mails: str, options: tuple[str, ...] = ()) -> bytes:
        users = [word for mail in mails for word in ("-u", mail)]
        return self.run(*options, *users, "--sign", data=data)


def simple(reference: str, digest: str) -> bytes:
    """What a simple signature signs."""
    return payload.write(reference, digest, payload.SIMPLE, "test", 1)


def openssl(*arguments: str) -> bytes:
    done = subprocess.run(["openssl", *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sigstore_key(directory: Path, kind: str = "P-256", name: str = "") -> tuple[str, str]:
    """(path of a private key, path of its public key); `kind` is a curve, ed25519 or RSA bits."""
    stem = f"{directory}/{name or kind}"
    algorithm = {
        "ed25519": ["ED25519"],
        "2048": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        "1024": ["RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
    }.get(kind) or ["EC", "-pkeyopt", f"ec_paramgen_curve:{kind}"]
    openssl("genpkey", "-algorithm", *algorithm, "-out", f"{stem}.key")
    openssl("pkey", "-in", f"{stem}.key", "-pubout", "-out", f"{stem}.pub")
    os.chmod(f"{stem}.key", 0o600)
    return f"{stem}.key", f"{stem}.pub"
