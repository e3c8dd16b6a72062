"""Plan what a container has in addition when its first process is systemd. Pure.

systemd asks its container manager for little (https://systemd.io/CONTAINER_INTERFACE): a tmpfs on /run, its
own cgroup subtree to write in, a name in $container, SIGRTMIN+3 as the signal that stops it. It needs no
CAP_SYS_ADMIN: systemd skips what it cannot do without it.
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.container import systemd_mode
from sysbox.linux import userns
from sysbox.linux.capability import NAMES
from sysbox.linux.mount import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record
    from sysbox.fs.rootfs import Operation
    from sysbox.spec import ContainerSpec

_PRIVATE = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
# as systemd itself mounts them where it can (src/shared/mount-setup.c)
_TMPFS = (
    ("/run", (("mode", "755"), ("nr_inodes", "800k")), _PRIVATE | MOUNT_ATTR_STRICTATIME),
    ("/run/lock", (("mode", "1777"), ("size", "5m")), _PRIVATE | MOUNT_ATTR_NOEXEC),
    ("/tmp", (("mode", "1777"), ("nr_inodes", "1m")), _PRIVATE | MOUNT_ATTR_STRICTATIME),
)
# all but what the kernel asks for in the host's user namespace only, and what systemd has conditions for
_MAPPED = tuple(name for name in NAMES if name not in ("SYS_MODULE", "SYS_RAWIO"))
_CAPABILITIES: tuple[str, ...] = (
    "SETPCAP",  # to drop to the CapabilityBoundingSet= of a unit
)


class Mode(Frozen):
    """Whether the container is in systemd mode, and what that means for its plan."""

    active: bool
    before: tuple[Operation, ...] = ()  # mounts, before the user's own
    after: tuple[Operation, ...] = ()
    environment: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()  # paths that are read-only in this mode only
    oom_policy: str = "kill"


def decide(record: Record) -> Mode:
    """The mode of a container. Raises SpecError."""
    spec, argv, directory = record.spec, record.argv, record.directory
    if not systemd_mode.applies(spec, argv):
        return Mode(active=False)
    from sysbox.fs.rootfs import Filesystem  # `exec` needs it for few containers

    chosen = {mount.target for mount in spec.mounts}
    capabilities = _CAPABILITIES
    if not systemd_mode.chosen_by_user(spec, argv):
        # an image must not get capabilities by the name of its command
        capabilities = ()
    elif record.uids and not _has_hosts_root(record):
        capabilities = _MAPPED
    elif spec.security.seccomp == "default" or spec.security.recorded:
        # for reboot(2), which ends the pid namespace only; kexec_load(2) needs the same capability, and only
        # sysbox's default filter is known to refuse it
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
            *([_journal(directory)] if systemd_mode.keeps_journal(spec, argv) else []),
        ),
        # container_uuid becomes the machine-id(5) where the image has none
        environment=("container=sysbox", f"container_uuid={record.id[:32]}"),
        capabilities=capabilities,
        # each service inside has its own OOMPolicy=
        oom_policy="continue",
        # even in a privileged container: udev would run where /sys is writable, and act on the host's devices
        read_only=_read_only(spec),
    )


def _has_hosts_root(record: Record) -> bool:
    """Whether a process inside can be the host's root, as with keep-id: files in /proc/sys and /sys are its.

    The kernel lets their owner write to them, whatever its user namespace (fs/proc/proc_sysctl.c, test_perm):
    CAP_SYS_ADMIN, which mounts them again, would be a way out.
    """
    return userns.is_mapped(record.uids, 0) or userns.is_mapped(record.gids, 0)


def _read_only(spec: ContainerSpec) -> tuple[str, ...]:
    if not spec.security.unmask:
        return ("/sys",)
    from sysbox.security import paths  # `exec` needs it for few containers

    return paths.kept(("/sys",), spec.security.unmask)


def _boot_id(directory: str) -> Operation:
    """A boot id that is new with each start: the kernel's is the host's, and `journalctl -b` uses it."""
    from sysbox.fs.rootfs import Bind

    return Bind(
        source=f"{directory}/boot_id",
        target="/proc/sys/kernel/random/boot_id",
        attributes=_PRIVATE | MOUNT_ATTR_RDONLY,
        recursive=False,
    )


def _journal(directory: str) -> Operation:
    from sysbox.fs.rootfs import Bind

    source = systemd_mode.journal_directory(directory)
    return Bind(source=source, target=systemd_mode.JOURNAL, attributes=_PRIVATE, create=True)
