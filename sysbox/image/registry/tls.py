"""TLS: the system's certificates, and those that certs.d has for a host (containers-certs.d(5)).

`certs.d/HOST[:PORT]/` has `*.crt`, further authorities for this host, and pairs `*.cert` and `*.key`, the
client's own certificate. The first directory that exists for a host counts.
"""

from __future__ import annotations

import os
import ssl

from sysbox.base.errors import FormatError
from sysbox.embedded import caller_root
from sysbox.image import caller_files

DIRECTORIES = ("/etc/containers/certs.d", "/etc/docker/certs.d")
_HTTPS = 443


def context(host: str, port: int, given: str = "", *, insecure: bool = False) -> ssl.SSLContext:
    """The settings for one server; `given` is a directory that takes the place of its own in certs.d.

    Raises FormatError for certificates that cannot be used.
    """
    found = ssl.create_default_context()
    if insecure:
        found.check_hostname = False
        found.verify_mode = ssl.CERT_NONE
    directory, names = (given, _names(given)) if given else _directory(host, port)
    for name in names:
        path = f"{directory}/{name}"
        stem, dot, kind = name.rpartition(".")
        if kind == "crt":
            _add_authority(found, path)
        elif kind == "cert" and dot:
            if f"{stem}.key" not in names:
                raise FormatError(f"{path}: has no {stem}.key beside it")
            _add_own(found, path, f"{directory}/{stem}.key")
        elif kind == "key" and f"{stem}.cert" not in names:
            raise FormatError(f"{path}: has no {stem}.cert beside it")
    return found


def _directory(host: str, port: int) -> tuple[str, list[str]]:
    """The directory of a host in certs.d, and the names in it; ("", []) where there is none."""
    own = caller_files.config_directory()
    shown = f"[{host}]" if ":" in host else host
    names = (f"{shown}:{port}", shown) if port == _HTTPS else (f"{shown}:{port}",)
    for base in (*([f"{own}/containers/certs.d"] if own else []), *DIRECTORIES):
        for name in names:
            found = caller_files.names(f"{base}/{name}")
            if found:
                return f"{base}/{name}", found
    return "", []


def _names(directory: str) -> list[str]:
    """Those in a directory that the caller names. Raises FormatError where there are none."""
    found = caller_files.names(directory)
    if not found:
        raise FormatError(f"--cert-dir {directory}: no directory with certificates")
    return found


def _add_authority(found: ssl.SSLContext, path: str) -> None:
    data = caller_files.read(path)
    if data is None:
        raise FormatError(f"{path}: a link that leads nowhere")
    try:
        found.load_verify_locations(cadata=data.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise FormatError(f"{path}: is not a certificate in PEM: {error}") from None


def _add_own(found: ssl.SSLContext, certificate: str, key: str) -> None:
    def refuse() -> str:
        raise FormatError(
            f"{key}: is encrypted", hint="a registry's key must be without a passphrase"
        )

    opened = [caller_root.open_path(path, os.O_RDONLY) for path in (certificate, key)]
    try:
        # by descriptor, since the paths are the caller's and may be others here
        certificate_path, key_path = (f"/proc/self/fd/{fd}" for fd in opened)
        found.load_cert_chain(certificate_path, key_path, password=refuse)
    except (ssl.SSLError, OSError) as error:
        raise FormatError(
            f"{certificate} and {key}: are not a certificate and its key in PEM: {error}"
        ) from None
    finally:
        for fd in opened:
            os.close(fd)
