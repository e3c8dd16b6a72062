"""The files that the image `host` takes from the machine, and a key that changes when one of them does."""

from __future__ import annotations

import posix
import zlib

_VERSION = 1  # of the generated part; raised, it has every skeleton built again

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


def key() -> str:
    """16 hexadecimal digits made of the mode, size and time of each input of the skeleton."""
    stamps = [f"{_VERSION} {posix.uname().machine}"]
    for path in (*(f"/{link}" for link in LINKS), *DIRECTORIES, *COPIED, "/usr/bin/bash"):
        try:
            status = posix.lstat(path)
        except OSError:
            continue
        stamps.append(f"{path} {status.st_mode:o} {status.st_size} {status.st_mtime_ns}")
    text = "\n".join(stamps).encode()
    return f"{zlib.crc32(text):08x}{zlib.adler32(text):08x}"
