"""The child's side of a start: from the fork to the execve, as a flat recipe.

After the fork nothing is imported, no name from the image is opened but through the root fd, nothing of
the image is run, and there are two ways out: execve(2) and _exit(2). Every module that is needed is
imported above, before the fork; a test listens for imports after it.
"""

from __future__ import annotations

import _signal
import errno
import fcntl
import posix
import termios

from sysbox.channel import CONSOLE, PROCEED, UNSHARED, Channel
from sysbox.errors import FAILED, NOT_EXECUTABLE, NOT_FOUND, KernelError, StartError
from sysbox.frozen import Frozen
from sysbox.fs import ops
from sysbox.fs.drivers import overlay
from sysbox.linux import _sys, capability, keyring, mount, namespace, process, seccomp
from sysbox.netns import links
from sysbox.security import environment, identity
from sysbox.units import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sysbox.plan import Plan, ProcessPlan
    from sysbox.security.identity import Identity
    from sysbox.units.cgroups import Placement

_DATABASE_LIMIT = 4 << 20  # bytes of /etc/passwd and /etc/group (CVE-2024-3056 and its like)
# asm-generic/ioctls.h
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
# linux/magic.h
_DEVPTS_SUPER_MAGIC = 0x1CD1
_PIPEFS_MAGIC = 0x50495045


class Inherited(Frozen):
    """The one object that crosses the fork; the child derives everything from it."""

    plan: Plan
    stdio: tuple[int, int, int]  # fds for 0, 1, 2; -1 is /dev/null, or the terminal if there is one
    owned: tuple[int, ...]  # those of them that are ours, to be given to the container's user
    seccomp: bytes | None  # the compiled filter; None is unconfined
    placement: Placement


def main(inherited: Inherited, channel: Channel, joined: list[tuple[str, int]]) -> NoReturn:
    """Be the container's first process. Never returns."""
    phase = "namespaces"
    try:
        plan = inherited.plan
        process.reset_signals()
        posix.umask(0o022)
        posix.setsid()
        # before anything of the container's can look at this process (CVE-2016-9962)
        _sys.prctl(process.PR_SET_DUMPABLE, 0)
        for kind, fd in joined:
            _sys.setns(fd, namespace.KINDS[kind][0])
        _sys.unshare(plan.namespaces.new)
        if plan.network.mode == "bridge":
            links.prepare_inside()
        channel.send(UNSHARED)  # 1

        phase = "root"
        sources = ops.clone_sources(plan.root.operations)
        # from here on nothing that is mounted is seen by the host
        _sys.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE, None)
        root = overlay.mount_root(plan.root)
        tree = ops.Tree(root, sources)
        tree.apply(plan.root.operations)
        directory = tree.directory(plan.process.workdir, what="working directory")
        if plan.process.hostname:
            _sys.sethostname(plan.process.hostname)
        _set_sysctls(plan.process.sysctls)

        phase = "scope"
        # where systemd does not take it; the rest of the time until #2 is systemd's
        cgroups.place(inherited.placement)
        address = channel.receive(PROCEED)[0]["address"]  # 2
        if plan.namespaces.new_cgroup:
            # in its scope now, so that the scope becomes the root of what it sees
            _sys.unshare(namespace.CLONE_NEWCGROUP)
        tree.apply(plan.root.late)

        phase = "network"
        links.configure_inside(plan.network, address)

        phase = "process"
        who = resolve_user(root, plan.process)
        env = environment.build_env(
            plan.process.image_env,
            plan.process.env,
            who.home,
            plan.process.hostname,
            plan.process.tty,
        )
        stdio = inherited.stdio
        if plan.process.tty:
            slave = open_terminal(root, channel)
            _bind_console(tree, slave)
            stdio = (slave, slave, slave)
        _enter_root(root, directory)
        if plan.root.booted:
            # its services, in mount namespaces of their own, see what is mounted later; only now, since
            # pivot_root(2) refuses a shared root
            _sys.mount(None, "/", None, mount.MS_REC | mount.MS_SHARED, None)
        standard_streams(stdio)
        give_streams(inherited.owned, stdio, who.uid, tty=plan.process.tty)
        # a descriptor that leaked from whoever called us must not reach the payload (CVE-2024-21626)
        process.close_fds_from(3, cloexec=True)
        drop_privileges(plan.process, who, inherited.seccomp)
        # a container dies with its supervisor; last, since a change of credentials clears it (prctl(2))
        _sys.prctl(process.PR_SET_PDEATHSIG, _signal.SIGKILL)
        # the parent may have died before this process asked to die with it
        channel.check_peer()
        phase = "exec"
        execute(plan.process.argv, env)
    except BaseException as error:  # noqa: BLE001 (a child has no other way to tell)
        channel.report(phase, "set up the container", error)
    posix._exit(FAILED)


def _set_sysctls(sysctls: tuple[tuple[str, str], ...]) -> None:
    """Through a procfs of our own: the container's might be anything by now (CVE-2025-52881)."""
    if not sysctls:
        return
    proc = mount.new_filesystem("proc", (), 0)
    try:
        for path, value in sysctls:
            _write_below(proc, f"sys/{path}", value)
    finally:
        posix.close(proc)


def _write_below(directory: int, path: str, value: str) -> None:
    resolve = mount.RESOLVE_BENEATH | mount.RESOLVE_NO_SYMLINKS | mount.RESOLVE_NO_XDEV
    try:
        fd = _sys.openat2(directory, path, posix.O_WRONLY | posix.O_CLOEXEC, 0, resolve)
        posix.write(fd, value.encode())
        posix.close(fd)
    except OSError as error:
        raise KernelError.of("write", f"/proc/{path}", error) from None


def resolve_user(root: int, plan: ProcessPlan) -> Identity:
    passwd, group = (read_database(root, path) for path in ("/etc/passwd", "/etc/group"))
    return identity.resolve_user(plan.user, plan.group_add, passwd, group)


def read_database(root: int, path: str) -> bytes:
    """A file of the image's, through the root fd, of limited size; empty where there is none.

    Raises StartError when it is larger than that.
    """
    try:
        flags = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY
        fd = mount.open_in_root(root, path, flags)
    except KernelError:
        return b""
    chunks, size = [], 0
    while chunk := posix.read(fd, 1 << 16):
        chunks.append(chunk)
        size += len(chunk)
        if size > _DATABASE_LIMIT:
            raise StartError(
                f"the image's {path} is larger than {_DATABASE_LIMIT >> 20} MiB", phase="process"
            )
    posix.close(fd)
    return b"".join(chunks)


def open_terminal(root: int, channel: Channel) -> int:
    """The slave of a terminal of the container's own devpts; the master goes to the parent (3).

    Raises StartError when /dev/pts is not a devpts.
    """
    master = mount.open_in_root(
        root, "/dev/pts/ptmx", posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC
    )
    if _sys.fstatfs_type(master) != _DEVPTS_SUPER_MAGIC:
        raise StartError(
            "the container's /dev/pts is not a devpts: it can have no terminal", phase="process"
        )
    slave = open_peer(master)
    channel.send(CONSOLE, fd=master)  # 3
    posix.close(master)
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    return slave


def _bind_console(tree: ops.Tree, slave: int) -> None:
    """By descriptor, onto a file that we make in our own /dev (CVE-2025-52565)."""
    made = mount.clone_tree("", recursive=False, dirfd=slave)
    target = tree.file("/dev/console")
    mount.attach(made, target)
    posix.close(made)
    posix.close(target)


def open_peer(master: int) -> int:
    """The slave of a pty by ioctl_tty(2) TIOCGPTPEER: no path is looked up."""
    fcntl.ioctl(master, _TIOCSPTLCK, b"\0\0\0\0")
    slave: int = fcntl.ioctl(master, _TIOCGPTPEER, posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC)
    return slave


def _enter_root(root: int, directory: int) -> None:
    """pivot_root(2) with "." twice: the old root ends up on top, and is taken off."""
    posix.fchdir(root)
    _sys.pivot_root(".", ".")
    _sys.umount2(".", mount.MNT_DETACH)
    posix.fchdir(directory)
    inside_root()


def inside_root() -> None:
    """Raises StartError when the working directory is not below the root (CVE-2024-21626)."""
    try:
        outside = posix.getcwd().startswith("(")
    except OSError:
        outside = True
    if outside:
        raise StartError("the working directory is outside of the container", phase="process")


def standard_streams(fds: tuple[int, int, int]) -> None:
    """Move three fds to 0, 1 and 2, -1 being the container's /dev/null.

    None of them is in the way of another: each is above 2 or in its place.
    """
    for target, fd in enumerate(fds):
        if fd < 0:
            fd = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
        posix.dup2(fd, target, inheritable=True)


def give_streams(
    owned: tuple[int, ...], stdio: tuple[int, int, int], uid: int, *, tty: bool
) -> None:
    """Let the container's user open /dev/stdout and its terminal anew."""
    for target, fd in enumerate(stdio):
        if tty or fd in owned or _sys.fstatfs_type(target) == _PIPEFS_MAGIC:
            posix.fchown(target, uid, -1)


def drop_privileges(plan: ProcessPlan, who: Identity, program: bytes | None) -> None:
    """Become the container's user with its capabilities and filter, and nothing more."""
    for name, soft, hard in plan.rlimits:
        process.set_rlimit(name, soft, hard)
    keyring.join_session(None)
    if program is not None and not plan.no_new_privileges:
        # without no_new_privs a filter takes CAP_SYS_ADMIN, which goes next (seccomp(2))
        seccomp.load(program)
    capability.drop_bounding(plan.capabilities)
    posix.setgroups(list(who.groups))
    posix.setresgid(who.gid, who.gid, who.gid)
    posix.setresuid(who.uid, who.uid, who.uid)
    capability.apply(plan.capabilities if who.uid == 0 else 0)
    if plan.no_new_privileges:
        _sys.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
        if program is not None:
            seccomp.load(program)


def execute(argv: tuple[str, ...], env: tuple[str, ...]) -> NoReturn:
    """execve(2), with PATH looked up inside. Raises StartError with docker's exit statuses."""
    variables = dict(entry.split("=", 1) for entry in env)
    command = argv[0]
    if "/" in command:
        candidates = [command]
    else:
        path = variables.get("PATH", environment.PATH)
        candidates = [f"{part or '.'}/{command}" for part in path.split(":")]
    refused = 0
    for candidate in candidates:
        try:
            posix.execve(candidate, argv, variables)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                refused = error.errno or errno.EACCES
    if refused:
        raise StartError(
            f"cannot execute {command}: {posix.strerror(refused)}",
            phase="exec",
            status=NOT_EXECUTABLE,
            hint=_exec_hint(refused),
        )
    where = "" if "/" in command else f" in PATH {variables.get('PATH', '')}"
    raise StartError(
        f"cannot find {command}{where}",
        phase="exec",
        status=NOT_FOUND,
        hint=""
        if "/" not in command
        else "it, or the interpreter that it names, does not exist in the image",
    )


def _exec_hint(number: int) -> str:
    return {
        errno.EACCES: "it is a directory, or not marked executable",
        errno.ENOEXEC: "it is a script without #!, or made for another architecture",
        errno.E2BIG: "the arguments and the environment are too large",
    }.get(number, "")
