"""The part of a ContainerSpec about secrets and credentials: names and places, never values."""

from __future__ import annotations

from sysbox.base.frozen import Frozen


class SecretUse(Frozen):
    """One `--secret`: which secret a container gets, and where; its value is in no record."""

    name: str
    kind: str = "mount"  # a file, or env: an environment variable
    target: str = ""  # the absolute path of the file, or the name of the variable
    uid: int = 0  # of the file's owner, in the container
    gid: int = 0
    mode: int = 0o444

    def wrong(self) -> str:
        # the name becomes a path on the host
        if self.name[:1] in ("", ".") or "/" in self.name or self.kind not in ("mount", "env"):
            return "name, kind: must be that of a secret, and mount or env"
        fits = self.target and (self.kind == "env" or self.target[0] == "/")
        return "" if fits else "target: must be an absolute path, or the name of a variable"


class CredentialUse(Frozen):
    """One `--credential`: what a container gets in $CREDENTIALS_DIRECTORY; its value is in no record."""

    name: str  # without `source` it may be a pattern
    source: str = ""  # an absolute path; "" is where systemd has credentials (units/credstore.py)

    def wrong(self) -> str:
        fits = self.name and "/" not in self.name and self.source[:1] in ("", "/")
        return "" if fits else "name, source: must be of a credential, and an absolute path"
