"""Sockets that systemd has opened for the command which starts a container: its payload gets them.

systemd hands LISTEN_FDS of them over, from descriptor 3 on, to the process LISTEN_PID (sd_listen_fds(3)).
"""

from __future__ import annotations

import _socket
import posix

from sysbox.base.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.plan import Plan

FIRST = 3
_MOST = 1024
_taken: dict[int, tuple[int, ...]] = {}  # by process: they are looked at once
_listening: list[int] = []  # those that wait for connections


def fds() -> tuple[int, ...]:
    """The descriptors that are meant for this process, in order. Programs that it starts do not inherit them.

    Raises SpecError where LISTEN_FDS does not say what is there: any other descriptor is sysbox's own, and is
    closed by an execve(2).
    """
    pid = posix.getpid()
    if pid not in _taken:
        _taken[pid] = _take()
    return _taken[pid]


def _take() -> tuple[int, ...]:
    environ = posix.environ
    count = environ.get(b"LISTEN_FDS", b"")
    if not count or environ.get(b"LISTEN_PID") != b"%d" % posix.getpid():
        return ()
    if not count.isdigit() or not 0 < int(count) <= _MOST:
        raise SpecError(
            f"LISTEN_FDS={count.decode('utf-8', 'replace')}: not a number from 1 to {_MOST}"
        )
    found = tuple(range(FIRST, FIRST + int(count)))
    for fd in found:
        try:
            is_passed = posix.get_inheritable(fd)
            posix.set_inheritable(fd, False)
        except OSError:
            is_passed = False
        if not is_passed:
            raise SpecError(f"LISTEN_FDS={len(found)}: descriptor {fd} was not passed on")
    _listening[:] = [fd for fd in found if _listens(fd)]
    return found


def _listens(fd: int) -> bool:
    try:
        one = _socket.socket(fileno=fd)
    except OSError:
        return False  # a FIFO, a message queue or a file (systemd.socket(5))
    try:
        return bool(one.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN))
    except OSError:
        return False  # netlink(7) has no connections
    finally:
        one.detach()


def listening() -> tuple[int, ...]:
    """Those of `fds` that waited for connections before the payload got them."""
    return tuple(_listening)


def shut_down_lost() -> None:
    """After the end of the container: shut down the sockets of which it has made something else.

    systemd watches them again, and before 255 does nothing else for ever: `shut_down_lost_sockets` of
    src/monitor.c, which does the same for those that it supervises.
    """
    for fd in _listening:
        if not _listens(fd):
            one = _socket.socket(fileno=fd)
            try:
                one.shutdown(_socket.SHUT_RDWR)
            except OSError:
                pass  # ignoring: it is not connected, which systemd notices
            finally:
                one.detach()


def with_variables(plan: Plan) -> Plan:
    """The plan of a container whose payload gets the sockets."""
    if not (passed := fds()):
        return plan
    told = [f"LISTEN_FDS={len(passed)}"]
    if given := posix.environ.get(b"LISTEN_FDNAMES", b""):
        told.append(f"LISTEN_FDNAMES={given.decode('utf-8', 'surrogateescape')}")
    process = plan.process
    return plan.replace(
        process=process.replace(
            env=(*process.env, *told),
            listening=passed,
            pid_variables=(*process.pid_variables, "LISTEN_PID"),
        )
    )
