"""A helper: a child that does in other namespaces what its parent, which stays where it is, cannot do."""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError, StartError
from sysbox.linux import _sys
from sysbox.run.handshake import Channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    Work = Callable[[], tuple[int, ...]]

_DESCRIPTOR = b"D"
_DONE = b"E"
_PHASE = "helper"


def have_done(doing: str, work: Work, descriptors: int = 0) -> tuple[int, ...]:
    """Call `work` in a helper, and wait for its end; copies of the file descriptors that it returns.

    `descriptors` is their number; one that is -1 stays so. `work` imports nothing. `doing` is for messages:
    "open the container's root". Raises KernelError where no helper can be made, StartError with the message
    of what `work` has raised.
    """
    ours, theirs = Channel.pair()
    try:
        pid, pidfd = _sys.clone3(0)
        if pid == 0:
            _work(doing, work, ours, theirs)
    except OSError as error:
        ours.close()
        raise KernelError.of(f"fork to {doing}", "", error) from None
    finally:
        theirs.close()
    try:
        return _receive(doing, ours, descriptors)
    finally:
        ours.close()
        posix.close(pidfd)
        posix.waitpid(pid, 0)


def _work(doing: str, work: Work, ours: Channel, theirs: Channel) -> NoReturn:
    try:
        ours.close()
        for fd in work():
            theirs.send(_DESCRIPTOR, fd=fd)
        theirs.send(_DONE)
    except BaseException as error:  # noqa: BLE001 (a child has no other way to tell)
        theirs.report(_PHASE, doing, error)
    finally:
        posix._exit(0)


def _receive(doing: str, ours: Channel, descriptors: int) -> tuple[int, ...]:
    found: list[int] = []
    try:
        while len(found) < descriptors:
            found.append(ours.receive(_DESCRIPTOR)[1])
        ours.receive(_DONE)
    except StartError as error:
        for fd in found:
            if fd >= 0:
                posix.close(fd)
        if error.phase == "handshake":
            raise StartError(f"{doing}: the child that does it was killed", phase=_PHASE) from None
        raise
    return tuple(found)
