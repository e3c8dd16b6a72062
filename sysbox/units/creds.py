"""Encrypt values at rest with systemd-creds(1): under a key of this host, in its TPM where it has one.

The program gets and gives values through pipes: they are in no file, no argument and no variable.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import SysboxError, Unsupported
from sysbox.linux import process

PROGRAM = "systemd-creds"  # since systemd 250
_REASON_MAX = 200  # characters


def is_there() -> bool:
    """Whether this host has the program."""
    return process.find_program(PROGRAM) != PROGRAM


def encrypt(name: str, data: bytes) -> str:
    """The value, encrypted, as base64; only under the same `name` it is decrypted again.

    Raises Unsupported, which says why this host cannot.
    """
    status, output, reason = _run("encrypt", name, data)
    if status:
        raise Unsupported(f"{PROGRAM} cannot encrypt: {reason}")
    return "".join(output.decode("ascii", "replace").split())


def decrypt(name: str, sealed: str) -> bytes:
    """The value that `encrypt` was given. Raises SysboxError, which says why it cannot be decrypted."""
    status, output, reason = _run("decrypt", name, sealed.encode())
    if status:
        raise SysboxError(f"{PROGRAM} cannot decrypt it: {reason}")
    return output


def _run(verb: str, name: str, data: bytes) -> tuple[int, bytes, str]:
    """(exit status, standard output, the last line that it has complained with)."""
    reading, writing = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
    try:
        status, output = process.spawn(
            [PROGRAM, f"--name={name}", verb, "-", "-"], stdin=data, stderr=writing
        )
        posix.close(writing)
        writing = -1
        try:
            said = posix.read(reading, 1 << 16).decode("utf-8", "replace").strip()
        except BlockingIOError:
            said = ""
    finally:
        for fd in (reading, writing):
            if fd >= 0:
                posix.close(fd)
    return status, output, said.rpartition("\n")[2][:_REASON_MAX] or f"exit status {status}"
