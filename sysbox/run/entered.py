"""Do something in a container's user namespace, where a process that enters it has all capabilities."""

from __future__ import annotations

import posix

from sysbox.linux import _sys, namespace
from sysbox.run.handshake import Channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def run(pid: int, work: Callable[[], None]) -> None:
    """Call `work` in a child in the user namespace of process `pid`; wait for its end.

    The child is in no other namespace of the container, and imports nothing. Raises KernelError, and
    StartError with the message of what `work` has raised.
    """
    target = namespace.open_ns(pid, "user")
    ours, theirs = Channel.pair()
    child, pidfd = _sys.clone3(0)
    if child == 0:
        try:
            ours.close()
            _sys.setns(target, namespace.CLONE_NEWUSER)
            work()
        except BaseException as error:  # noqa: BLE001 (a child has no other way to tell)
            theirs.report("user namespace", "act in the container's user namespace", error)
        finally:
            posix._exit(0)
    theirs.close()
    posix.close(target)
    try:
        ours.receive(b"")
    finally:
        ours.close()
        posix.close(pidfd)
        posix.waitpid(child, 0)
