"""The value of a secret, from a file or a variable of the caller."""

from __future__ import annotations

import os

from sysbox.base.errors import KernelError, SpecError
from sysbox.container.secrets import MOST
from sysbox.embedded import caller_root


def of_variable(name: str, what: str) -> bytes:
    """The value of a variable of the caller; `what` names the secret in errors. Raises SpecError."""
    value = os.environb.get(os.fsencode(name))
    if value is None:
        raise SpecError(f"{what}: the variable {name} is not set")
    return _checked(value, what)


def of_file(path: str, what: str) -> bytes:
    """The content of a file of the caller. Raises SpecError."""
    try:
        fd = caller_root.open_path(path, os.O_RDONLY)
    except KernelError as error:
        raise SpecError(f"{what}: {path}: {os.strerror(error.errno).lower()}") from None
    return of_descriptor(fd, what)


def of_descriptor(fd: int, what: str) -> bytes:
    """What can be read of a descriptor, which is closed. Raises SpecError."""
    try:
        with os.fdopen(fd, "rb") as file:
            return _checked(file.read(MOST + 1), what)
    except OSError as error:
        raise SpecError(f"{what}: {(error.strerror or '').lower()}") from None


def _checked(value: bytes, what: str) -> bytes:
    if len(value) > MOST:
        raise SpecError(f"{what}: larger than {MOST >> 10} KiB")
    return value
