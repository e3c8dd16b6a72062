"""The network namespace of a running container, entered by this process for a moment."""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError
from sysbox.linux import _sys, mount
from sysbox.linux.namespace import CLONE_NEWNET
from sysbox.netns import interfaces, links
from sysbox.netns import rtnetlink as rt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.netns.attachment import Attachment

_OWN = "/proc/self/ns/net"
# a route is there; a rule says prohibit, unreachable or blackhole; a link is down (ip-rule(8))
_ITS_OWN = (
    errno.EEXIST,
    errno.EACCES,
    errno.EHOSTUNREACH,
    errno.EINVAL,
    errno.ENETUNREACH,
    errno.ENETDOWN,
)


class Inside:
    """A context manager: inside, this process is in the network namespace `fd`. Raises KernelError."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before = -1

    def __enter__(self) -> None:
        self._before = posix.open(_OWN, posix.O_RDONLY | posix.O_CLOEXEC)
        _enter(self._fd)

    def __exit__(self, *_: object) -> None:
        try:
            _enter(self._before)
        finally:
            posix.close(self._before)


def _enter(fd: int) -> None:
    try:
        _sys.setns(fd, CLONE_NEWNET)
    except OSError as error:
        raise KernelError.of("join", "a network namespace", error) from None


def configure(fd: int, attachment: Attachment, families: tuple[int, ...]) -> None:
    """Give a link that was just put into the namespace `fd` its addresses, and the default routes of
    `families`, 4 and 6. Raises KernelError.
    """
    one = attachment
    with Inside(fd):
        procfs = mount.open_procfs()
        try:
            links.prepare_inside(procfs, one.interface, ipv6=bool(one.address6))
        finally:
            posix.close(procfs)
        index = interfaces.index_of(one.interface)
        messages = links.inside(one, index, one.address, one.address6)
        links.request_inside([*messages, *links.default_routes((one,), families)], (one,))


def route(fd: int, attachments: tuple[Attachment, ...]) -> None:
    """Add the default routes where they are missing, since the kernel has removed them with their link.

    A container with NET_ADMIN may have rules and routes of its own that stand against them: it then goes
    without, and what else is to be done goes on.
    """
    with Inside(fd):
        messages = links.default_routes(attachments)
        if messages:
            with rt.Socket() as link:
                link.check(link.attempt(messages), ignore=_ITS_OWN)


def remove(fd: int, gone: Attachment, rest: tuple[Attachment, ...]) -> None:
    """Remove a link that is below one of the host's, whatever the container calls it by now, and further ones
    that the container may have made beside it, but none of `rest`. Raises KernelError.
    """
    from sysbox.netns import bridges

    try:
        parent = interfaces.index_of(gone.parent)
    except KernelError as error:
        if error.errno == errno.ENODEV:
            return  # the kernel has removed both
        raise
    kept = {one.interface for one in rest if one.parent == gone.parent}
    bridges.remove_below(lambda: Inside(fd), parent, kept)
