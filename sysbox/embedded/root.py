"""The embedded host's root file system, built and entered by the process that becomes its PID 1.

/usr is the machine's, read-only: packages are installed on the machine, never here, where their database
below /var would be lost. /etc, /var and the rest of the operating system are copy-on-write over the
machine's, and gone when the host stops, but for an administrator's units and declarations, and the key for
credentials. Every other directory of the machine's root (/home, /root, /srv, a checkout's) is the real one.
/proc, /sys, /dev, /run and the cgroup tree are the host's own.
"""

from __future__ import annotations

import os

from sysbox.base import errors, files
from sysbox.base.frozen import Frozen
from sysbox.embedded import devices, quiet, state
from sysbox.embedded.cgroups import Hierarchy
from sysbox.embedded.devices import mount
from sysbox.host import read_text
from sysbox.linux import _sys, process
from sysbox.linux.mount import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SHARED,
    MS_SLAVE,
    MS_STRICTATIME,
)
from sysbox.netns import shared

OWN = frozenset(("proc", "sys", "dev", "run", "tmp"))
SYSTEM = frozenset(
    ("bin", "boot", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "usr", "var", "lost+found")
)
# directories that systemd writes to, on which the machine may have mounted another file system
COPIED = frozenset(
    ("/etc", "/var", "/var/cache", "/var/lib", "/var/lib/systemd", "/var/log", "/var/tmp")
)

# where an administrator's units and declarations are
KEPT = ("/etc/systemd/system", "/etc/sysbox")
# what systemd-creds(1) encrypts with, where there is no TPM; bound to the machine id, which is kept too
_KEY = "/var/lib/systemd/credential.secret"


class RootPlan(Frozen):
    """What the root of one host is made of; paths are those of the machine."""

    name: str
    stage: str  # an empty directory to mount on
    journal: str
    kept: str  # the directory of what has changed below KEPT
    sysbox_state: str  # the directory that is /var/lib/sysbox inside
    notify: str  # the socket that PID 1 reports to
    hierarchies: tuple[Hierarchy, ...]
    machine_id: str
    addresses: str  # the directory of shared.SHARED; "" with a network of its own


def build(plan: RootPlan) -> str:
    """Mount everything at the stage; returns the new root. Runs in the host's own namespaces.

    Raises KernelError, Unsupported.
    """
    # later mounts of the machine may show up here, but mounts made here stay here
    mount("none", "/", None, MS_REC | MS_SLAVE)
    mount("sysbox-host", plan.stage, "tmpfs", 0, "mode=700,size=50%")
    root = f"{plan.stage}/root"
    os.mkdir(root)
    mounts = machine_mounts()
    _overlay(plan.stage, "/", root, "0")
    for index, point in enumerate(sorted(COPIED.intersection(mounts)), 1):
        _overlay(plan.stage, point, root + point, str(index))
    _bind_real(root, mounts)
    _kernel_file_systems(root, plan.hierarchies)
    devices.mount_all(f"{root}/dev")
    _volatile(root)
    _state(plan, root)
    # the machine's hosts, seen from here, would be stopped ones
    mount("hosts", f"{root}{state.STATE}", "tmpfs", MS_NOSUID | MS_NODEV, "mode=700,size=50%")
    _resolver(root)
    quiet.write(f"{root}/run", root)
    # after that: what an administrator of the host has enabled is not the machine's
    for path in KEPT:
        _keep(plan.kept, root, path)
    _keep_key(plan.kept, root)
    return root


def enter(root: str) -> None:
    """Make `root` the root of this mount namespace, and unmount the machine's."""
    os.chdir(root)
    _sys.pivot_root(".", ".")
    _sys.umount2(".", MNT_DETACH)
    os.chdir("/")
    # in a container systemd does not make mounts shared, but its services rely on that
    mount("none", "/", None, MS_REC | MS_SHARED)


def machine_mounts() -> list[str]:
    """The machine's mount points, parents first."""
    points = []
    for line in read_text("/proc/self/mountinfo", 1 << 24).splitlines():
        point = line.split(" ")[4].encode().decode("unicode_escape").encode("latin-1")
        points.append(os.fsdecode(point))
    return points


def _overlay(stage: str, lower: str, target: str, slot: str) -> None:
    upper, work = f"{stage}/upper{slot}", f"{stage}/work{slot}"
    os.mkdir(upper, 0o755)
    os.mkdir(work, 0o755)
    try:
        mount(
            "sysbox-host", target, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}"
        )
    except errors.KernelError as error:
        raise errors.Unsupported(
            f"cannot mount an overlay over {lower}: {error}",
            hint="the embedded host needs overlayfs, and a root that is not itself two overlays deep",
        ) from None


def _keep(kept: str, root: str, path: str) -> None:
    """Keep what is changed below a directory of the machine over a stop of the host."""
    upper = kept + path
    os.makedirs(upper, 0o755, exist_ok=True)
    os.makedirs(root + path, 0o755, exist_ok=True)
    if not os.path.isdir(path):
        mount(upper, root + path, None, MS_BIND)
        return
    work = f"{kept}/work{path.replace('/', '-')}"
    os.makedirs(work, 0o700, exist_ok=True)
    try:
        options = f"lowerdir={path},upperdir={upper},workdir={work}"
        mount("sysbox-host", root + path, "overlay", 0, options)
    except errors.KernelError:
        pass  # ignoring: on an overlay, as in a container, changes are lost with the host as those of /etc


def _keep_key(kept: str, root: str) -> None:
    """Keep the key for credentials over a stop of the host; the first boot makes it."""
    known = files.read_file(kept + _KEY)
    if known is not None:
        files.make_private(os.path.dirname(root + _KEY))
        files.write_file(root + _KEY, known, 0o400)
        return
    child = os.fork()
    if child == 0:
        try:
            os.chroot(root)
            os.chdir("/")
            nothing = os.open("/dev/null", os.O_RDWR)
            for fd in range(3):
                os.dup2(nothing, fd)
            program = process.find_program("systemd-creds")
            os.execve(program, (program, "setup"), process.CLEAN_ENVIRONMENT)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    # without the program there is no key, and nothing needs one
    made = files.read_file(root + _KEY)
    if made is not None:
        files.make_private(os.path.dirname(kept + _KEY))
        files.write_file(kept + _KEY, made, 0o400, durable=True)


def _bind_real(root: str, mounts: list[str]) -> None:
    """Bind directories that are not the operating system's, and mounts below those that are."""
    with os.scandir("/") as entries:
        names = [
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and entry.name not in OWN | SYSTEM
        ]
    for name in names:
        mount(f"/{name}", f"{root}/{name}", None, MS_BIND | MS_REC)
    mount("/usr", f"{root}/usr", None, MS_BIND)
    mount("none", f"{root}/usr", None, MS_BIND | MS_REMOUNT | MS_RDONLY)
    if os.path.isdir("/usr/local"):
        mount("/usr/local", f"{root}/usr/local", None, MS_BIND | MS_REC)
    for point in mounts:
        if point.split("/")[1] not in SYSTEM or point in COPIED or point in ("/usr", "/usr/local"):
            continue
        if os.path.exists(point) and os.path.exists(root + point):
            mount(point, root + point, None, MS_BIND)


def _kernel_file_systems(root: str, hierarchies: tuple[Hierarchy, ...]) -> None:
    quiet_flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("proc", f"{root}/proc", "proc", quiet_flags)
    mount("sysfs", f"{root}/sys", "sysfs", quiet_flags)
    tree = f"{root}/sys/fs/cgroup"
    if len(hierarchies) == 1 and not hierarchies[0].directory:
        mount("cgroup2", tree, "cgroup2", quiet_flags)
        return
    mount("cgroup", tree, "tmpfs", quiet_flags, "mode=755,size=4m")
    for hierarchy in hierarchies:
        target = f"{tree}/{hierarchy.directory}"
        os.mkdir(target)
        mount("cgroup", target, hierarchy.fstype, quiet_flags, hierarchy.data)
        if "," in hierarchy.directory:
            for controller in hierarchy.directory.split(","):
                os.symlink(hierarchy.directory, f"{tree}/{controller}")


def _volatile(root: str) -> None:
    mount("run", f"{root}/run", "tmpfs", MS_NOSUID | MS_NODEV | MS_STRICTATIME, "mode=755,size=20%")
    # the boot clears /tmp, so the machine's own is mounted over this one afterwards
    mount(
        "tmp", f"{root}/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_STRICTATIME, "mode=1777,size=20%"
    )
    for path, mode in (("lock", 0o1777), ("host", 0o755), ("sysbox", 0o700)):
        os.mkdir(f"{root}/run/{path}")
        os.chmod(f"{root}/run/{path}", mode)


def _state(plan: RootPlan, root: str) -> None:
    for source, target in (
        (plan.sysbox_state, "/var/lib/sysbox"),
        (plan.journal, "/var/log/journal"),
    ):
        os.makedirs(root + target, exist_ok=True)
        mount(source, root + target, None, MS_BIND | MS_REC)
    if plan.addresses:
        os.mkdir(f"{root}{shared.SHARED}", 0o700)
        mount(plan.addresses, root + shared.SHARED, None, MS_BIND)
    for source, target in ((plan.notify, "/run/host/notify"),):
        os.close(os.open(root + target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        mount(source, root + target, None, MS_BIND)
    _replace(f"{root}/etc/machine-id", plan.machine_id + "\n", 0o444)
    _replace(f"{root}/run/host/container-manager", "sysbox\n", 0o444)
    _replace(f"{root}{state.OWN_NAME}", plan.name + "\n", 0o444)


def _resolver(root: str) -> None:
    """Copy the machine's /etc/resolv.conf if it is a link (as into /run) or missing in `root`."""
    text = read_text("/etc/resolv.conf")
    if text and (
        os.path.islink("/etc/resolv.conf") or not os.path.exists(f"{root}/etc/resolv.conf")
    ):
        _replace(f"{root}/etc/resolv.conf", text, 0o644)


def _replace(path: str, text: str, mode: int) -> None:
    if os.path.lexists(path):
        os.unlink(path)
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)


def machine_id(name: str) -> str:
    """The host's machine id: its own if it has one, else the machine's, else a new one; saved as its own.

    machine-id(5): 32 lower-case hexadecimal digits.
    """
    kept = f"{state.state_directory(name)}/machine-id"
    for path in (kept, "/etc/machine-id"):
        text = read_text(path, 64).strip()
        if len(text) == 32 and not set(text) - set("0123456789abcdef"):
            break
    else:
        text = os.urandom(16).hex()
    _replace(kept, text + "\n", 0o444)
    return text
