"""A container's output to the journal: the socket, the fields that journald adds to each line, rate limits.

src/journal.c sends the lines, by the native protocol. A file beside systemd's own in /run/systemd/units gives
journald further fields for each line of a unit, and two links limit how many lines it accepts from the unit.
journalread.py reads the journal.
"""

from __future__ import annotations

import _socket
import posix

from sysbox.base.errors import KernelError, SpecError
from sysbox.base.files import stale_files, write_file
from sysbox.base.frozen import Frozen
from sysbox.base.wait import until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from struct import Struct

    from sysbox.spec import Logging
else:
    from _struct import Struct

SOCKET = "/run/systemd/journal/socket"
RATE, BURST = 2000, 250_000  # lines a second, and lines at once, that a container may log

_UNITS = "/run/systemd/units"
_DRAFTS = "log-extra-fields:docker-"
_INTERVAL = 30  # seconds of journald's rate limit, which acts only if sysbox's own has failed
_FIELD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_FIELD_MAX = 64  # characters of a name: journald's limit
_IDENTIFIER_MAX = 64  # characters
_VALUE_MAX = 4096
_LE64 = Struct("<Q").pack

_SIOCOUTQ = 0x5411  # unix(7): bytes that the other side has not read yet
_PATIENCE = 20.0  # seconds: journald reads nothing while it waits for a busy disk
_BRIEFLY, _STEP, _LATER = 1.0, 0.0003, 0.02  # seconds


class Sink(Frozen):
    """Where the output of one container goes, and how much of it at most."""

    fd: int  # a datagram socket that is connected to journald's
    identifier: str  # SYSLOG_IDENTIFIER=
    rate: int  # lines a second; 0 is no limit
    burst: int  # lines at once


def open_sink(identifier: str, logging: Logging) -> Sink:
    """Connect to journald. Raises KernelError if there is none."""
    name = "".join(char if char.isprintable() else "?" for char in identifier)[:_IDENTIFIER_MAX]
    rate, burst = limits(logging)
    return Sink(fd=_connected().detach(), identifier=name, rate=rate, burst=burst)


def limits(logging: Logging) -> tuple[int, int]:
    """Lines a second (0 is no limit), and lines at once."""
    rate = RATE if logging.rate_limit < 0 else logging.rate_limit
    return rate, BURST if logging.rate_burst < 0 else logging.rate_burst


def _connected() -> _socket.socket:
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        socket.connect(SOCKET)
    except OSError as error:
        socket.close()
        raise KernelError.of("connect to", SOCKET, error) from None
    return socket


def encode_fields(fields: dict[str, str]) -> bytes:
    """The file of additional fields: for each a little-endian 64-bit length and FIELD=value."""
    encoded = bytearray()
    for name, value in fields.items():
        if not name or not _FIELD.issuperset(name) or name[0] in "_0123456789":
            raise SpecError(f"journal field {name!r}: upper-case letters, digits and '_'")
        if len(name) > _FIELD_MAX:
            raise SpecError(f"journal field {name!r}: at most {_FIELD_MAX} characters")
        item = f"{name}={value[:_VALUE_MAX]}".encode("utf-8", "surrogateescape")
        encoded += _LE64(len(item)) + item
    return bytes(encoded)


def container_fields(container: str, name: str, image: str) -> dict[str, str]:
    """The fields of docker's journald driver, which scripts filter by."""
    return {
        "CONTAINER_ID": container[:12],
        "CONTAINER_ID_FULL": container,
        "CONTAINER_NAME": name,
        "CONTAINER_TAG": container[:12],
        "IMAGE_NAME": image,
    }


def write_fields(unit: str, fields: dict[str, str], logging: Logging) -> None:
    """Have journald add the fields to every line of the unit from now on: call it before the first line.

    The links are those that LogRateLimitIntervalSec= and LogRateLimitBurst= of a service make for journald
    (systemd.exec(5)); a scope has no such settings, and journald's default is far too low for a container.
    sysbox's own limit, which logs a mark where lines are missing, is half of this one; 0 is no limit. Raises
    KernelError, SpecError.
    """
    write_file(_fields_path(unit), encode_fields(fields), 0o644)
    for name, number in _links(*limits(logging)).items():
        _link(str(number), f"{_UNITS}/{name}:{unit}")


def _links(rate: int, burst: int) -> dict[str, int]:
    most = min(2 * (burst + _INTERVAL * rate), (1 << 31) - 1) if rate else 0
    microseconds = _INTERVAL * 1_000_000 if rate else 0
    return {"log-rate-limit-interval": microseconds, "log-rate-limit-burst": most}


def _link(target: str, path: str) -> None:
    try:
        try:
            posix.symlink(target, path)
        except FileExistsError:
            posix.unlink(path)  # left by an earlier run that was not cleaned up
            posix.symlink(target, path)
    except OSError as error:
        raise KernelError.of("make the link", path, error) from None


def remove_fields(unit: str) -> None:
    """Undo `write_fields`; already gone is success."""
    for path in (_fields_path(unit), *(f"{_UNITS}/{name}:{unit}" for name in _links(0, 0))):
        try:
            posix.unlink(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise KernelError.of("remove", path, error) from None


def drafts() -> list[str]:
    """The paths of unfinished files of `write_fields`, whose writer died before it renamed them."""
    return [path for path in stale_files(_UNITS) if path.startswith(f"{_UNITS}/{_DRAFTS}")]


def _fields_path(unit: str) -> str:
    return f"{_UNITS}/log-extra-fields:{unit}"


def synchronize() -> None:
    """Wait until journald has read all entries that any process has sent to it. Returns at once without
    journald, and after some seconds if it does not read.

    Its socket is one queue, read by one thread: a comment, which it skips, is read after all sent before.
    (Its own method io.systemd.Journal.Synchronize writes everything to the disk, and an entry too.)
    """
    import fcntl

    try:
        socket = _connected()
    except KernelError:
        return
    try:
        socket.settimeout(_PATIENCE)
        socket.send(b"#\n")

        def read() -> bool:
            return not any(fcntl.ioctl(socket.fileno(), _SIOCOUTQ, bytes(4)))

        if not until(read, _BRIEFLY, _STEP):
            until(read, _PATIENCE, _LATER)
    except OSError:
        pass  # ignoring: journald has just gone away
    finally:
        socket.close()
