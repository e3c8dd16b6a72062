"""The signature of an event: what only root on the host can write into the journal.

journald says who sent an entry, but in which cgroup it reads from /proc, after the entry has come: of a
process that has ended by then it says nothing, and of one whose pid was taken again something wrong. Root in
a container has _UID=0 too. So each event carries a keyed BLAKE2b (RFC 7693) of what it says. The key is made
once for each host, and root alone can read it. So nobody needs to wait until journald has looked, and the
events of a command that was killed count too.
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
# all that sysbox reads of an event, in the order in which it is signed
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
    """This host's key; None where nothing has been signed yet. Raises FormatError."""
    data = read_file(EVENT_KEY)
    return data if data and len(data) == _KEY_SIZE else None


def ensure_key() -> bytes:
    """The same, made where there is none. Raises FormatError, KernelError."""
    return read_key() or _make()


def _make() -> bytes:
    """Of those who make one at once, one wins: what is signed by another key would not be believed."""
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
            posix.fsync(fd)  # it must not be lost while events that it signed are kept
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
    if made is None:  # removed by somebody meanwhile
        raise KernelError("read", EVENT_KEY, errno.ENOENT)
    return made


def key_time_us() -> int:
    """When the key was made, in microseconds since 1970: what is older need not be signed. Without a key that
    is the end of time.
    """
    try:
        return posix.stat(EVENT_KEY).st_mtime_ns // 1000
    except OSError:
        return 1 << 63
