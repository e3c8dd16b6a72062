"""Start an embedded host: namespaces, root, cgroups, then the machine's own systemd as PID 1 in them.

::

    starter                                     child (PID 1 of the new namespaces)
    lock, clear what a dead host left
    cgroup directories, notification socket
    clone3 ───────────────────────────────────► waits
    join its cgroups, record it ── 1 go ──────► cgroup namespace, root, pivot, execve(systemd)
                                 ◄─ 2 error, or the pipe closes at execve
    READY=1 from systemd         ◄─ 3
    attach the machine's /tmp, record: running
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time

from sysbox.base import errors, files, paths
from sysbox.base.wait import ready
from sysbox.embedded import cgroups, join, quiet, root, state, stop
from sysbox.embedded.cgroups import Hierarchy
from sysbox.embedded.lock import Lock
from sysbox.embedded.state import Host
from sysbox.linux import _sys, capability, mount, process
from sysbox.linux.namespace import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
)
from sysbox.netns import firewall, leases, networks, shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

BOOT_TIMEOUT = 60.0
_COMMAND = 30.0  # seconds for a command on the host
SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
ARGUMENTS = ("--unit=multi-user.target", "--log-target=journal", "--show-status=no")


def start(
    name: str, *, private_network: bool = False, say: Callable[[str], None] | None = None
) -> Host:
    """The running host of that name, booted if it was not up; `say` is called with messages for the user.

    Raises Unsupported if this machine cannot have one, SystemdError if systemd does not come up.
    """
    state.check_name(name)
    host = state.load_running(name)
    if host is not None:
        return host
    _check_machine()
    with Lock(name):
        host = state.load_running(name)
        if host is not None:
            return host
        if say is not None:
            say(f"PID 1 is not systemd: starting the embedded host '{name}' (SYSBOX_HOST)…")
        stop.clear(name)
        host = _boot(name, private_network=private_network)
    if say is not None and (failed := failed_units(host)):
        say(f"ignoring units of the embedded host that failed: {', '.join(failed)}")
    return host


def _check_machine() -> None:
    if not any(os.access(path, os.X_OK) for path in SYSTEMD):
        raise errors.Unsupported(
            "the embedded host needs systemd's own binary, and it is not installed",
            hint="apt-get install systemd dbus",
        )
    effective, _, _ = _sys.capget()
    if not effective >> capability.number("SYS_ADMIN") & 1:
        raise errors.Unsupported(
            "the embedded host needs permission to mount (CAP_SYS_ADMIN)",
            hint="use a machine booted with systemd, or start this container with --privileged",
        )


def _boot(name: str, *, private_network: bool) -> Host:
    run, kept = state.run_directory(name), state.state_directory(name)
    own = state.sysbox_directory(name)
    _make((f"{run}/stage", f"{kept}/journal", f"{kept}/changed", own))
    if not private_network:
        _share_network(name)
    roots = cgroups.create(name)
    notify = _notify_socket(f"{run}/notify")
    plan = root.RootPlan(
        name=name,
        stage=f"{run}/stage",
        journal=f"{kept}/journal",
        kept=f"{kept}/changed",
        sysbox_state=own,
        notify=f"{run}/notify",
        hierarchies=tuple(roots),
        machine_id=root.machine_id(name),
        addresses="" if private_network else shared.SHARED,
    )
    temporary = mount.clone_tree("/tmp", recursive=True)
    try:
        # else an unmount on the host, at its shutdown at the latest, would unmount on the machine too
        mount.set_attributes(temporary, recursive=True, propagation=mount.MS_SLAVE)
        host = _launch(plan, roots, private_network=private_network)
        _await_ready(host, notify)
        _attach(host, temporary)
        # only after /tmp is attached, since the unit's program may be below it
        run_inside(host, "systemctl", "start", "--no-block", quiet.BOOT)
        state.save(host := host.replace(phase=state.RUNNING))
    except BaseException as error:
        report = _last_lines(name) if isinstance(error, errors.SystemdError) else ""
        stop.clear(name)
        if report:
            raise errors.SystemdError(f"{error}; its log ends with: {report}") from None
        raise
    finally:
        cgroups.close(roots)
        os.close(temporary)
        notify.close()
    return host


def _make(directories: tuple[str, ...]) -> None:
    for one in directories:
        files.make_private(one)


def _notify_socket(path: str) -> socket.socket:
    """The socket to which systemd sends READY=1 (sd_notify(3), and systemd's container interface)."""
    files.unlink(path)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    notify.bind(path)
    return notify


def _share_network(name: str) -> None:
    """Tell the other hosts on the machine's network of this one, and which subnets its networks have."""
    directory = f"{state.sysbox_directory(name)}/networks"
    # the default host has the machine's
    own = networks.subnets_of() if directory != paths.NETWORKS else ()
    leases.share(name, own, networks.subnets_of(directory))
    firewall.share()


def _launch(plan: root.RootPlan, roots: dict[Hierarchy, int], *, private_network: bool) -> Host:
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC
    flags |= CLONE_NEWNET if private_network else 0
    go_read, go_write = os.pipe()
    error_read, error_write = os.pipe()
    try:
        pid, pidfd = _sys.clone3(flags)
    except OSError as error:
        raise errors.Unsupported(
            f"cannot make the embedded host's namespaces: {error.strerror}",
            hint="the kernel, or the container around this one, forbids namespaces",
        ) from None
    if pid == 0:
        os.close(go_write)
        _become_init(plan, go_read, error_write)
    for fd in (pidfd, go_read, error_write):
        os.close(fd)
    host = Host(
        name=plan.name,
        pid=pid,
        start=process.start_time(pid),
        phase=state.BOOTING,
        private_network=private_network,
    )
    with open(go_write, "wb") as go, open(error_read, "rb") as failure:
        cgroups.join(roots, plan.name, pid)
        state.save(host)
        go.write(b"1")
        go.close()
        text = failure.read().decode("utf-8", "replace")
    if text:
        raise errors.Unsupported(
            f"the embedded host cannot be set up: {text}",
            hint="this needs root with permission to mount; a container needs --privileged",
        )
    return host


def _become_init(plan: root.RootPlan, go: int, failure: int) -> NoReturn:
    """The child's part, up to execve."""
    try:
        if os.read(go, 1) != b"1":  # the starter has died: end too
            os._exit(1)
        os.setsid()
        os.umask(0o022)
        _sys.unshare(CLONE_NEWCGROUP)
        path = f"{state.state_directory(plan.name)}/boot.log"
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        root.enter(root.build(plan))
        os.dup2(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        process.close_fds_from(3, cloexec=True)
        process.reset_signals()
        environment = {
            "PATH": process.CLEAN_ENVIRONMENT["PATH"],
            "container": "sysbox",
            "NOTIFY_SOCKET": "/run/host/notify",
        }
        systemd = next(path for path in SYSTEMD if os.access(path, os.X_OK))
        os.execve(systemd, (systemd, *ARGUMENTS), environment)
    except BaseException as error:  # noqa: BLE001 (the starter reports any error)
        text = str(error) or type(error).__name__
        os.write(failure, text.encode("utf-8", "surrogateescape"))
    finally:
        os._exit(1)


def _await_ready(host: Host, notify: socket.socket) -> None:
    """Wait until systemd reports, over the notification socket, that its default target is reached.

    Raises SystemdError.
    """
    deadline = time.monotonic() + BOOT_TIMEOUT
    leader = os.pidfd_open(host.pid)
    status = ""
    poll = select.poll()
    poll.register(notify, select.POLLIN)
    poll.register(leader, select.POLLIN)
    try:
        while (left := deadline - time.monotonic()) > 0:
            ready = [fd for fd, _ in poll.poll(left * 1000)]
            if notify.fileno() in ready:
                for line in notify.recv(65536).decode("utf-8", "replace").splitlines():
                    key, _, value = line.partition("=")
                    if key == "READY" and value == "1":
                        return
                    status = value if key == "STATUS" else status
            elif leader in ready:
                raise errors.SystemdError(f"the embedded host '{host.name}': systemd ended at once")
    finally:
        os.close(leader)
    raise errors.SystemdError(
        f"the embedded host '{host.name}' was not up after {BOOT_TIMEOUT:.0f} s ({status})"
    )


def _attach(host: Host, temporary: int) -> None:
    """Mount the machine's real /tmp over the one that systemd booted with. Raises SystemdError."""
    child = os.fork()
    if child == 0:
        try:
            _sys.setns(os.pidfd_open(host.pid), CLONE_NEWNS)
            mount.attach(temporary, os.open("/tmp", os.O_PATH | os.O_DIRECTORY))
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise errors.SystemdError(
            f"the embedded host '{host.name}': cannot attach the machine's /tmp"
        )


def run_inside(host: Host, *argv: str) -> str:
    """Run a command on the host, killed after half a minute; what it printed, "" if it cannot be run."""
    read, write = os.pipe()

    def main() -> int:
        os.dup2(os.open("/dev/null", os.O_RDWR), 0)
        os.dup2(write, 1)
        os.execvp(argv[0], argv)

    child = os.fork()
    if child == 0:
        try:
            os._exit(join.call(host, main))
        finally:
            os._exit(errors.FAILED)
    os.close(write)
    chunks = []
    deadline = time.monotonic() + _COMMAND
    with open(read, "rb", buffering=0) as pipe:
        while ready([pipe.fileno()], seconds=max(deadline - time.monotonic(), 0)):
            chunk = pipe.read(65536)
            if not chunk:
                break
            chunks.append(chunk)
        else:
            os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return b"".join(chunks).decode("utf-8", "replace").strip()


def failed_units(host: Host) -> list[str]:
    """The units of a host that failed: none, where `systemctl is-system-running` says "running"."""
    text = run_inside(host, "systemctl", "list-units", "--failed", "--no-legend", "--plain")
    return [line.split()[0] for line in text.splitlines() if line.strip()]


def _last_lines(name: str) -> str:
    """The last lines of boot.log, which systemd writes first, and of the journal, after a failed boot."""
    kept = state.state_directory(name)
    lines = (
        (files.read_file(f"{kept}/boot.log") or b"").decode("utf-8", "replace").splitlines()[-15:]
    )
    command = ["journalctl", "-q", "--no-pager", "-o", "cat", "-n", "15", "-D", f"{kept}/journal"]
    try:
        _, output = process.spawn(command)
        lines += output.decode("utf-8", "replace").splitlines()
    except errors.KernelError:
        pass  # ignoring: there is no journalctl
    return "; ".join(line.strip() for line in lines)
