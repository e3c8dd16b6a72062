"""Start an embedded host: namespaces, root, cgroups, then the machine's own systemd as PID 1 in them.

    starter                                     child (PID 1 of the new namespaces)
    lock, clear what a dead one left
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
import subprocess
import sys
import time

from sysbox import errors, paths
from sysbox.embedded import cgroups, root, state, stop
from sysbox.embedded.cgroups import Hierarchy
from sysbox.embedded.state import Host
from sysbox.linux import _sys
from sysbox.linux.mount import AT_FDCWD, AT_RECURSIVE, MOVE_MOUNT_F_EMPTY_PATH, OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC
from sysbox.linux.namespace import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
)

BOOT_TIMEOUT = 60.0
SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
ARGUMENTS = ("--unit=multi-user.target", "--log-target=journal", "--show-status=no")


def start(name: str, *, private_network: bool = False, announce: bool = False) -> Host:
    """The running host of that name, booted if it was not up; `announce` says so on stderr.

    Raises Unsupported where this machine cannot have one, SystemdError if systemd does not come up.
    """
    state.check_name(name)
    _check_machine()
    host = state.running(name)
    if host is not None:
        return host
    with state.Lock(name):
        host = state.running(name)
        if host is not None:
            return host
        if announce:
            text = f"sysbox: PID 1 is not systemd: starting the embedded host '{name}' (SYSBOX_HOST)…\n"
            sys.stderr.write(text)
            sys.stderr.flush()
        stop.clear(name)
        return _boot(name, private_network)


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise errors.Unsupported("the embedded host needs root", hint="run it with sudo")
    if not any(os.access(path, os.X_OK) for path in SYSTEMD):
        raise errors.Unsupported(
            "the embedded host needs systemd's own binary, and it is not installed",
            hint="apt-get install systemd dbus",
        )
    _, permitted, _ = _sys.capget()
    if not permitted >> 21 & 1:  # CAP_SYS_ADMIN
        raise errors.Unsupported(
            "the embedded host needs permission to mount (CAP_SYS_ADMIN)",
            hint="use a machine booted with systemd, or start this container with --privileged",
        )


def _boot(name: str, private_network: bool) -> Host:
    run, kept = state.run_directory(name), state.state_directory(name)
    own_state = paths.STATE if name == state.DEFAULT else f"{kept}/state"
    for path in (run, f"{run}/stage", kept, f"{kept}/journal", own_state):
        state.make_directory(path)
    roots, hierarchies = cgroups.create(name)
    notify = _notify_socket(f"{run}/notify")
    plan = root.RootPlan(
        name=name,
        stage=f"{run}/stage",
        journal=f"{kept}/journal",
        sysbox_state=own_state,
        notify=f"{run}/notify",
        hierarchies=hierarchies,
        machine_id=root.machine_id(name),
    )
    temporary = _sys.open_tree(AT_FDCWD, "/tmp", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE)
    try:
        host = _launch(plan, roots, private_network)
        _await_ready(host, notify)
        _attach(host, temporary)
        host = host.replace(phase=state.RUNNING)
        state.save(host)
        _check_units(host)
    except BaseException as error:
        report = _last_lines(name)
        stop.kill(name)
        if isinstance(error, errors.SystemdError) and report:
            error.message += f"\n{report}"
            error.args = (error.message,)
        raise
    finally:
        cgroups.close(roots)
        os.close(temporary)
        notify.close()
    return host


def _notify_socket(path: str) -> socket.socket:
    """Where systemd says READY=1 (sd_notify(3), and the container interface of systemd)."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    notify.bind(path)
    return notify


def _launch(plan: root.RootPlan, roots: dict[Hierarchy, int], private_network: bool) -> Host:
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC
    if private_network:
        flags |= CLONE_NEWNET
    go_read, go_write = os.pipe()
    error_read, error_write = os.pipe()
    try:
        pid, pidfd = _sys.clone3(flags)
    except OSError as error:
        raise errors.Unsupported(
            f"cannot make the embedded host's namespaces: {errors.strerror(error.errno or 0)}",
            hint="the kernel or the container around this one forbids namespaces",
        ) from None
    if pid == 0:
        os.close(go_write)
        os.close(error_read)
        _become_init(plan, go_read, error_write)
    os.close(pidfd)
    os.close(go_read)
    os.close(error_write)
    host = Host(
        name=plan.name,
        pid=pid,
        start=state.process_start(pid),
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


def _become_init(plan: root.RootPlan, go: int, failure: int) -> None:
    """The child's part, up to execve; never returns."""
    try:
        if os.read(go, 1) != b"1":  # the starter is gone: so are we
            os._exit(1)
        os.setsid()
        os.umask(0o022)
        _sys.unshare(CLONE_NEWCGROUP)
        log = os.open(
            f"{state.state_directory(plan.name)}/boot.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
        )
        new_root = root.build(plan)
        root.enter(new_root)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.set_inheritable(failure, False)
        if failure != 3:
            os.dup2(failure, 3, inheritable=False)
        os.closerange(4, 1 << 16)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "container": "sysbox",
            "NOTIFY_SOCKET": "/run/host/notify",
        }
        path = next(path for path in SYSTEMD if os.access(path, os.X_OK))
        os.execve(path, (path, *ARGUMENTS), environment)
    except BaseException as error:
        for fd in (failure, 3):
            try:
                os.write(fd, (str(error) or type(error).__name__).encode("utf-8", "surrogateescape"))
                break
            except OSError:
                continue
    finally:
        os._exit(1)


def _await_ready(host: Host, notify: socket.socket) -> None:
    """Until systemd has reached its default target; it says so over its notification socket."""
    deadline = time.monotonic() + BOOT_TIMEOUT
    leader = os.pidfd_open(host.pid)
    status = ""
    try:
        while True:
            left = deadline - time.monotonic()
            ready = select.select([notify, leader], [], [], max(left, 0))[0]
            if notify in ready:
                for line in notify.recv(65536).decode("utf-8", "replace").splitlines():
                    key, _, value = line.partition("=")
                    if key == "READY" and value == "1":
                        return
                    if key == "STATUS":
                        status = value
            elif leader in ready:
                raise errors.SystemdError(f"the embedded host '{host.name}': systemd ended at its start")
            elif not ready:
                raise errors.SystemdError(
                    f"the embedded host '{host.name}' was not up after {BOOT_TIMEOUT:.0f} s ({status})"
                )
    finally:
        os.close(leader)


def _attach(host: Host, temporary: int) -> None:
    """The machine's real /tmp over the one that systemd booted with."""
    child = os.fork()
    if child == 0:
        try:
            leader = os.pidfd_open(host.pid)
            _sys.setns(leader, CLONE_NEWNS)
            _sys.move_mount(temporary, "", AT_FDCWD, "/tmp", MOVE_MOUNT_F_EMPTY_PATH)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if status:
        raise errors.SystemdError(f"the embedded host '{host.name}': cannot attach the machine's /tmp")


def inside(host: Host, *argv: str, timeout: float = 30.0) -> str:
    """What a command prints that is run on the host; "" if it could not be run in time."""
    from sysbox.embedded.enter import call

    read, write = os.pipe()

    def main() -> int:
        os.dup2(write, 1)
        os.dup2(os.open("/dev/null", os.O_RDWR), 0)
        os.execvp(argv[0], argv)

    child = os.fork()
    if child == 0:
        os._exit(call(host, main))
    os.close(write)
    chunks = []
    deadline = time.monotonic() + timeout
    with open(read, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], max(deadline - time.monotonic(), 0))[0]:
            chunk = pipe.read(65536)
            if not chunk:
                break
            chunks.append(chunk)
        else:
            os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return b"".join(chunks).decode("utf-8", "replace").strip()


def _check_units(host: Host) -> None:
    """Say what failed at the boot; the host serves all the same."""
    if inside(host, "systemctl", "is-system-running") == "running":
        return
    failed = inside(host, "systemctl", "list-units", "--failed", "--no-legend", "--plain")
    names = ", ".join(line.split()[0] for line in failed.splitlines() if line.strip())
    if names:
        sys.stderr.write(f"sysbox: ignoring units of the embedded host that failed: {names}\n")


def _last_lines(name: str) -> str:
    """The end of the journal of a host that does not come up, and what systemd said before it had one."""
    kept = state.state_directory(name)
    try:
        with open(f"{kept}/boot.log", encoding="utf-8", errors="replace") as log:
            lines = log.read().splitlines()[-15:]
    except FileNotFoundError:
        lines = []
    command = ["journalctl", "-q", "--no-pager", "-o", "cat", "-n", "15", "-D", f"{kept}/journal"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        lines += done.stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        pass
    return "\n".join(f"  {line}" for line in lines)
