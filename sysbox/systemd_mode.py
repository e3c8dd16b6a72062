"""What a container gets beyond others when its first process is systemd, decided. Pure.

systemd asks its container manager for little (https://systemd.io/CONTAINER_INTERFACE): a tmpfs on /run, its
own cgroup subtree to write in, a name in $container, SIGRTMIN+3 as the signal that stops it. What podman
calls its systemd mode. It needs no CAP_SYS_ADMIN: what systemd cannot do without that, it leaves out.
"""

from __future__ import annotations

import _signal

from sysbox.errors import SpecError
from sysbox.frozen import Frozen
from sysbox.fs.rootfs import Bind, Filesystem
from sysbox.linux.mount import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.fs.rootfs import Operation
    from sysbox.spec import ContainerSpec

MODES = ("auto", "always", "false")
JOURNAL = "/var/log/journal"

_INITS = ("/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init")
_PRIVATE = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
# as systemd mounts them itself where it may (src/shared/mount-setup.c)
_TMPFS = (
    ("/run", (("mode", "755"), ("nr_inodes", "800k")), _PRIVATE | MOUNT_ATTR_STRICTATIME),
    ("/run/lock", (("mode", "1777"), ("size", "5m")), _PRIVATE | MOUNT_ATTR_NOEXEC),
    ("/tmp", (("mode", "1777"), ("nr_inodes", "1m")), _PRIVATE | MOUNT_ATTR_STRICTATIME),
)
_CAPABILITIES: tuple[str, ...] = (
    "SETPCAP",  # units have a CapabilityBoundingSet=, which is to be dropped to
)


class Mode(Frozen):
    """Whether the container is in systemd mode, and what that means for its plan."""

    active: bool
    before: tuple[Operation, ...] = ()  # mounts, before the user's own
    after: tuple[Operation, ...] = ()
    environment: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()  # paths, beyond those that are anyway
    oom_policy: str = "kill"


def is_systemd(argv: tuple[str, ...]) -> bool:
    """Whether a command is systemd, by its path: podman's rule."""
    return argv[0] in _INITS or argv[0].rpartition("/")[2] == "systemd"


def applies(spec: ContainerSpec, argv: tuple[str, ...]) -> bool:
    """Whether the container is in systemd mode. `argv` is its command as resolved.

    Raises SpecError for `always` where systemd would not be PID 1.
    """
    if spec.systemd == "false" or (spec.systemd == "auto" and not is_systemd(argv)):
        return False
    wrong = ""
    if spec.namespaces.pid != "private":
        wrong = f"--pid {spec.namespaces.pid}"
    elif spec.init:
        wrong = "--init"
    if wrong and spec.systemd == "always":
        raise SpecError(
            f"--systemd always: systemd must be PID 1, and with {wrong} it is not",
            hint=f"leave out {wrong.split()[0]}",
        )
    return not wrong


def stop_signal(spec: ContainerSpec, argv: tuple[str, ...]) -> str:
    """The one that asks the container to end, where neither its user nor its image has chosen one."""
    # systemd(1), SIGNALS: of SIGTERM it makes that it executes itself anew
    return "SIGRTMIN+3" if is_systemd(argv) or spec.systemd == "always" else "SIGTERM"


def decide(container: str, spec: ContainerSpec, argv: tuple[str, ...], directory: str) -> Mode:
    """What `container` (64 hex) gets, whose own directory is `directory`. Raises SpecError."""
    if not applies(spec, argv):
        return Mode(active=False)
    chosen = {mount.target for mount in spec.mounts}
    capabilities = _CAPABILITIES
    if spec.security.seccomp == "default":
        # reboot(2) ends the pid namespace alone; but the same capability is asked for by kexec_load(2),
        # which only our own filter is known to refuse
        capabilities += ("SYS_BOOT",)
    return Mode(
        active=True,
        before=tuple(
            Filesystem(fstype="tmpfs", target=target, options=options, attributes=attributes)
            for target, options, attributes in _TMPFS
            if target not in chosen
        ),
        after=(
            _boot_id(directory),
            *([_journal(directory)] if keeps_journal(spec, argv) else []),
        ),
        # the id of a machine whose image has none yet
        environment=("container=sysbox", f"container_uuid={container[:32]}"),
        capabilities=capabilities,
        # its services have an OOMPolicy= each
        oom_policy="continue",
        # of a privileged one too: udev runs where it can write to it, and acts on the host's devices
        read_only=() if spec.security.unmask else ("/sys",),
    )


def _boot_id(directory: str) -> Operation:
    """One that is new with each start: the kernel's is the host's, and `journalctl -b` goes by it."""
    return Bind(
        source=f"{directory}/boot_id",
        target="/proc/sys/kernel/random/boot_id",
        attributes=_PRIVATE | MOUNT_ATTR_RDONLY,
        recursive=False,
    )


def keeps_journal(spec: ContainerSpec, argv: tuple[str, ...]) -> bool:
    """Whether its journal is beside the record: readable from outside, running or not, and gone with the
    container. A mount of the user's own goes before that.
    """
    return applies(spec, argv) and all(mount.target != JOURNAL for mount in spec.mounts)


def journal_directory(directory: str) -> str:
    """Where that is, in a container's own directory."""
    return f"{directory}/journal"


def _journal(directory: str) -> Operation:
    source = journal_directory(directory)
    return Bind(source=source, target=JOURNAL, attributes=_PRIVATE, create=True)


# Of reboot(2) the kernel makes an end of the pid namespace's PID 1 by a signal that can reach it in no other
# way (pid_namespaces(7)); the supervisor then ends with 128 plus that.
RESTART, HALT = _signal.SIGHUP, _signal.SIGINT
STATUSES = (128 + RESTART, 128 + HALT)


def exit_status(spec: ContainerSpec, argv: tuple[str, ...], code: int) -> int:
    """Of a container whose supervisor saw `code`: a systemd that was shut down has not failed."""
    return 0 if code in STATUSES and applies(spec, argv) else code
