"""Connections to a declared container that starts with the first one, and stops or freezes after the last.

systemd has the sockets, and starts this process when something connects (`units/quadlet/sockets.py`). It
waits until the container listens, and becomes systemd-socket-proxyd(8), which exits when there was no
connection for a while: then the container is stopped or frozen. The kernel keeps connections that come
meanwhile, and systemd starts all again for them.

The proxy connects inside the container's network namespace, to the container's own address there. That is the
namespace of this run, as long as the proxy has it: whoever gets the address after a stop is never reached.
"""

from __future__ import annotations

import _socket
import posix
import sys
import time

from sysbox.base.errors import Conflict, KernelError, NotFound, SpecError, SysboxError, SystemdError
from sysbox.base.wait import until
from sysbox.container import events, store
from sysbox.container.identity import of_unit
from sysbox.host import exists, probe, read_text
from sysbox.linux import _sys, namespace, process, unix
from sysbox.linux.freezer import is_frozen
from sysbox.units.bus import MANAGER, MANAGER_PATH, Bus
from sysbox.units.cgroup import freezer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sysbox.container.store import Record, Runtime

_PROGRAMS = (
    "/usr/lib/systemd/systemd-socket-proxyd",
    "/lib/systemd/systemd-socket-proxyd",
)
_PATIENCE = 90.0  # seconds until the container must listen
_STEP = 0.005  # seconds
_NOBODY = 65534  # the user and group that have nothing
_CONNECTIONS = 4096  # at a time; the unit has descriptors for so many
_LISTENS = "0A"  # TCP_LISTEN in proc_pid_net(5)


def serve(unit: str, port: int, action: str = "", seconds: str = "") -> NoReturn:
    """ExecStart= of the proxy: become it, for the container of the service `unit` and a port there.

    It exits after so many seconds without a connection, "" is never; `action` is what `idle` does then.
    Raises SysboxError.
    """
    program = next((path for path in _PROGRAMS if exists(path)), "")
    if not program:
        raise NotFound(
            "systemd-socket-proxyd is not installed",
            hint="it is a part of systemd; in Debian of its package",
        )
    record, runtime = _running(unit)
    if action == "freeze" and is_frozen(probe(), runtime.cgroup):
        # else its user has paused it
        freezer.thaw(runtime.scope, runtime.cgroup, probe())
        events.container("unpause", record)
    addresses = _addresses(record, runtime)
    _enter(runtime)
    target = _await_listener(record, addresses, port)
    unix.notify(unix.notify_address(), f"READY=1\nSTATUS=to {target} in {runtime.scope}")
    _become_nobody()
    words = [program, f"--connections-max={_CONNECTIONS}", target]
    if seconds:
        words.insert(1, f"--exit-idle-time={seconds}")
    passed = {name: value for name, value in posix.environ.items() if name.startswith(b"LISTEN_")}
    try:
        posix.execve(program, words, passed)
    except OSError as error:
        raise KernelError.of("execute", program, error) from None


def idle(unit: str, action: str) -> None:
    """ExecStopPost= of the proxy: stop or freeze the container, unless systemd has ended the proxy.

    Not where a connection has just come, for which systemd starts all again. Raises SysboxError.
    """
    code, status = (posix.environ.get(name, b"") for name in (b"EXIT_CODE", b"EXIT_STATUS"))
    if (code, status) == (b"killed", b"TERM"):
        return
    try:
        if action == "stop":
            with Bus.connect() as bus:
                bus.call(MANAGER_PATH, MANAGER, "StopUnit", "ss", (unit, "fail"))
        elif code != b"exited" or status == b"0":
            # else the proxy has never begun, and the container may still be on its way
            from sysbox.lifecycle import (
                control,
            )  # the connection that comes first need not wait for it

            control.pause(_running(unit)[0])
    except (Conflict, NotFound, SystemdError):
        pass  # ignoring: it is gone or frozen already, or is wanted again


def _running(unit: str) -> tuple[Record, Runtime]:
    record = store.load(of_unit(unit))
    runtime = store.runtime(record.id)
    if runtime is None or not runtime.alive():
        raise Conflict(f"the container of {unit} is not running")
    return record, runtime


def _addresses(record: Record, runtime: Runtime) -> tuple[str, str]:
    """Its IPv4 and IPv6 address on its first network that has one. Raises SpecError."""
    for one in runtime.attachments():
        if one.address or one.address6:
            return one.address, one.address6
    raise SpecError(
        f"ProxyPort=: the network of container {record.name} is {record.spec.namespaces.network},"
        " where it has no address of its own",
        hint="a network of links, or leave ProxyPort= out: the payload gets the socket itself",
    )


def _enter(runtime: Runtime) -> None:
    """Enter the network namespace of this run."""
    fd = namespace.open_ns(runtime.pid, "network")
    try:
        # checked once it is open: the pid may have been reused before
        if not runtime.alive():
            raise Conflict("the container has just ended")
        _sys.setns(fd, namespace.CLONE_NEWNET)
    except OSError as error:
        raise KernelError.of("join", "the container's network namespace", error) from None
    finally:
        posix.close(fd)


def _await_listener(record: Record, addresses: tuple[str, str], port: int) -> str:
    """Wait until the container listens at one of its addresses; that one and the port. Raises SysboxError."""
    four, six = addresses

    def look() -> str:
        found = listening(read_text("/proc/net/tcp"), port)
        found6 = listening(read_text("/proc/net/tcp6"), port)
        anywhere = "0" * 32 in found6
        if four and (anywhere or found & {"0" * 8, _hex(_socket.AF_INET, four)}):
            return f"{four}:{port}"
        if six and (anywhere or _hex(_socket.AF_INET6, six) in found6):
            return f"[{six}]:{port}"
        return ""

    begin = time.monotonic()
    target = until(look, _PATIENCE, _STEP)
    if not target:
        waited = round(time.monotonic() - begin)
        raise SysboxError(
            f"ProxyPort={port}: nothing listens there in container {record.name} after {waited} seconds",
            hint="at 127.0.0.1 alone is not enough; `sysbox logs` has what it says",
        )
    return target


def listening(text: str, port: int) -> set[str]:
    """The addresses at which something listens on a TCP port, in hexadecimal as in the text of
    /proc/net/tcp or tcp6. Pure.
    """
    found = set()
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _LISTENS:
            address, _, number = fields[1].rpartition(":")
            if int(number, 16) == port:
                found.add(address)
    return found


def _hex(family: int, address: str) -> str:
    """An address as proc_pid_net(5) has it: each 32 bits as this machine's number."""
    data = _socket.inet_pton(family, address)
    words = (data[i : i + 4] for i in range(0, len(data), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def _become_nobody() -> None:
    """Have no rights any more but the descriptors: what comes over the connections is a stranger's."""
    posix.setgroups([])
    posix.setresgid(_NOBODY, _NOBODY, _NOBODY)
    posix.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _sys.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
