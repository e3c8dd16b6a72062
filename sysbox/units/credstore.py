"""Credentials where systemd has them (systemd.exec(5)): those of a service, of the system, of the stores."""

from __future__ import annotations

import _stat
import posix

from sysbox.base import patterns
from sysbox.base.errors import NotFound, SpecError, SysboxError
from sysbox.host import exists
from sysbox.spec import CredentialUse
from sysbox.units import creds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MOST = 1 << 20  # bytes of all credentials of one container; systemd's limit for a service
# the first that has a credential counts
STORES = (
    "/run/credentials/@system",
    "/etc/credstore",
    "/run/credstore",
    "/usr/local/lib/credstore",
    "/usr/lib/credstore",
)
SEALED_STORES = (
    "/run/credentials/@encrypted",
    *(f"{one}.encrypted" for one in STORES if one.endswith("credstore")),
)
_PATTERN = frozenset("*?[")


def is_pattern(name: str) -> bool:
    """Whether it stands for any number of credentials (glob(7))."""
    return bool(_PATTERN & set(name))


def of_service(pattern: str = "*") -> tuple[CredentialUse, ...]:
    """Those that systemd has given the service in which this process runs, of matching names."""
    directory = posix.environ.get(b"CREDENTIALS_DIRECTORY", b"").decode("utf-8", "surrogateescape")
    if not directory.startswith("/"):
        return ()
    return tuple(
        CredentialUse(name=name, source=f"{directory}/{name}")
        for name in _listed(directory)
        if patterns.matches(pattern, name)
    )


def check(uses: Iterable[CredentialUse]) -> None:
    """Raise NotFound, SpecError for a credential that is not there, or is no file."""
    for one in uses:
        if one.source:
            posix.close(_open(one.source, one.name)[0])
        elif not is_pattern(one.name):
            _find(one.name)


def collect(uses: Iterable[CredentialUse]) -> dict[str, bytes]:
    """The values by name; one that is named counts before those that a pattern matches.

    Raises NotFound, SpecError; SysboxError for one that cannot be decrypted.
    """
    found: dict[str, bytes] = {}
    sought = sorted(uses, key=lambda one: not one.source and is_pattern(one.name))
    for one in sought:
        if one.source:
            found[one.name] = _read(one.source, one.name)
        elif is_pattern(one.name):
            found |= {name: _of_store(name) for name in _matching(one.name) if name not in found}
        else:
            found[one.name] = _of_store(one.name)
        if sum(map(len, found.values())) > MOST:
            raise SpecError(f"credential {one.name}: all together are larger than {MOST >> 20} MiB")
    return found


def _matching(pattern: str) -> list[str]:
    names = {name for directory in (*STORES, *SEALED_STORES) for name in _listed(directory)}
    return sorted(name for name in names if patterns.matches(pattern, name))


def _find(name: str) -> tuple[str, bool]:
    """(the path of a credential of the stores, whether it is encrypted). Raises NotFound."""
    for stores, is_sealed in ((STORES, False), (SEALED_STORES, True)):
        for directory in stores:
            if exists(f"{directory}/{name}"):
                return f"{directory}/{name}", is_sealed
    raise NotFound(
        f"no such credential: {name}",
        hint=f"it is looked for in $CREDENTIALS_DIRECTORY and {', '.join(STORES)}; NAME:FILE names a file",
    )


def _of_store(name: str) -> bytes:
    path, is_sealed = _find(name)
    value = _read(path, name)
    if not is_sealed:
        return value
    try:
        return creds.decrypt(name, "".join(value.decode("ascii", "replace").split()))
    except SysboxError as error:
        raise SysboxError(f"credential {name}: {path}: {error.message}") from None


def _read(path: str, name: str) -> bytes:
    fd, size = _open(path, name)
    try:
        value = b""
        while len(value) <= MOST and (chunk := posix.read(fd, max(size, 1) + 1)):
            value += chunk
    except OSError as error:
        raise _wrong(path, name, posix.strerror(error.errno or 0).lower()) from None
    finally:
        posix.close(fd)
    if len(value) > MOST:
        raise _wrong(path, name, f"larger than {MOST >> 20} MiB")
    return value


def _open(path: str, name: str) -> tuple[int, int]:
    """A descriptor of a regular file, and its size. Raises SpecError; never waits for a writer of a FIFO."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY)
    except OSError as error:
        raise _wrong(path, name, posix.strerror(error.errno or 0).lower()) from None
    status = posix.fstat(fd)
    if not _stat.S_ISREG(status.st_mode):
        posix.close(fd)
        raise _wrong(path, name, "not a regular file")
    return fd, status.st_size


def _wrong(path: str, name: str, reason: str) -> SpecError:
    return SpecError(f"credential {name}: {path}: {reason}")


def _listed(directory: str) -> list[str]:
    try:
        return sorted(posix.listdir(directory))
    except OSError:
        return []
