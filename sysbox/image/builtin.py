"""The image `host`: the machine's own /usr, read-only, under a fresh /etc and /var.

Nothing is downloaded: as with `systemd-nspawn --volatile=yes`, programs come from the machine, state does
not. The image has one small layer, a generated skeleton, and the flag `usr_bind`, on which the plan binds
/usr. The flag lives in our own index, never in the image: no label or layer of an image can ask for it.

This module is hot: it looks whether the skeleton in the store still fits the machine (a stat of each input)
and only otherwise has `skeleton` make it again.
"""

from __future__ import annotations

import posix
import zlib

from sysbox.errors import SpecError
from sysbox.image.model import Image
from sysbox.image.reference import parse
from sysbox.image.store import Store

NAME = "docker.io/library/host:latest"
_VERSION = 1  # of the generated part; a higher one makes every skeleton anew

LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32")  # of a merged /usr
DIRECTORIES = ("/etc/alternatives", "/etc/ld.so.conf.d", "/etc/ssl/certs")
# configuration that programs in /usr need and that every user of the machine may read anyway
COPIED = (
    "/etc/bash.bashrc",
    "/etc/bashrc",
    "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
    "/etc/debian_version",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/localtime",
    "/etc/login.defs",
    "/etc/magic",
    "/etc/magic.mime",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/tls/openssl.cnf",
    "/etc/profile",
    "/etc/protocols",
    "/etc/redhat-release",
    "/etc/rpc",
    "/etc/services",
    "/etc/shells",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
)


def is_host(name: str) -> bool:
    """Whether a name means the built-in image."""
    try:
        return parse(name).full() == NAME
    except SpecError:
        return False


def refuse_name(name: str) -> None:
    """Raise SpecError if `name` is the built-in image's: no other may take it."""
    if is_host(name):
        raise SpecError(
            "the name 'host' is the built-in image's (the machine's own /usr)",
            hint="choose another name",
        )


def resolve(store: Store) -> Image:
    """The image, made first if it is not there or the machine has changed.

    Raises Unsupported, KernelError.
    """
    mark = f"host:{key()}"
    if not any(entry.name == NAME and entry.builtin == mark for entry in store.entries()):
        from sysbox.image import skeleton

        skeleton.install(store, mark)
    return store.find(NAME)[1]


def key() -> str:
    """Changes when an input of the skeleton does: size, mode and time of each."""
    stamps = [f"{_VERSION} {posix.uname().machine}"]
    for path in (*(f"/{link}" for link in LINKS), *DIRECTORIES, *COPIED, "/usr/bin/bash"):
        try:
            status = posix.lstat(path)
        except OSError:
            continue
        stamps.append(f"{path} {status.st_mode:o} {status.st_size} {status.st_mtime_ns}")
    text = "\n".join(stamps).encode()
    return f"{zlib.crc32(text):08x}{zlib.adler32(text):08x}"
