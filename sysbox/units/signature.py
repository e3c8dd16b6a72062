"""Sign events, to show that root on the host wrote them into the journal.

journald records the sender's uid, but root in a container has _UID=0 too; and it reads the sender's cgroup
from /proc only after the entry has arrived: if the sender has ended by then it records none, and if the pid
was reused a wrong one. So each event carries a keyed BLAKE2b (RFC 7693) of its fields. The key is made once
per host, and only root can read it. So the sender need not wait for journald, and the events of a command
that was killed are trusted too.
"""

from __future__ import annotations

import _blake2
import errno
import posix

from sysbox.base.errors import KernelError
from sysbox.base.files import make_private, read_file, unlink
from sysbox.base.paths import EVENT_KEY, STATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from struct import Struct
else:
    from _struct import Struct

FIELD = "SYSBOX_SIGNATURE"
# the fields of an event that sysbox reads, in the order in which they are signed
FIELDS = (
    "MESSAGE_ID", "SYSBOX_TYPE", "SYSBOX_ACTION", "SYSBOX_ID", "SYSBOX_NAME", "SYSBOX_TIME_NSEC",
    "SYSBOX_ATTRIBUTES",
)  # fmt: skip

_KEY_SIZE = 32  # bytes
_LE64 = Struct("<Q").pack


def sign(fields: Mapping[bytes, bytes], key: bytes) -> bytes:
    """The signature of an event with these fields, in hexadecimal digits."""
    mark = _blake2.blake2b(key=key, digest_size=32, person=b"sysbox event")
    for name in FIELDS:
        value = fields.get(name.encode(), b"")
        mark.update(_LE64(len(value)) + value)
    return mark.hexdigest().encode()


def read_key() -> bytes | None:
    """This host's key; None if there is none yet, or a damaged one. Raises FormatError."""
    data = read_file(EVENT_KEY)
    return data if data and len(data) == _KEY_SIZE else None


def ensure_key() -> bytes:
    """This host's key, made if there is none. Raises FormatError, KernelError."""
    return read_key() or _make()


def _make() -> bytes:
    """Make the key. Of processes that make one at once link(2) lets one win, and all sign with its key."""
    make_private(STATE)
    temporary = f"{EVENT_KEY}.{posix.getpid()}"
    try:
        if read_file(EVENT_KEY) is not None and read_key() is None:
            unlink(EVENT_KEY)  # damaged
        fd = posix.open(
            temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600
        )
        try:
            posix.write(fd, posix.urandom(_KEY_SIZE))
            posix.fsync(fd)  # the key must not be lost while events signed with it are kept
        finally:
            posix.close(fd)
        try:
            posix.link(temporary, EVENT_KEY)
        except FileExistsError:
            pass
        finally:
            unlink(temporary)
    except OSError as error:
        raise KernelError.of("write", EVENT_KEY, error) from None
    made = read_key()
    if made is None:  # another process removed it meanwhile
        raise KernelError("read", EVENT_KEY, errno.ENOENT)
    return made


def key_time_us() -> int:
    """When the key was made, in microseconds since 1970: older events need no signature. 1 << 63 without a
    key.
    """
    try:
        return posix.stat(EVENT_KEY).st_mtime_ns // 1000
    except OSError:
        return 1 << 63
