"""The child's side of a start: from the fork to the execve, as a flat recipe.

After the fork nothing is imported, a name from the image is opened only through the root fd, no program of
the image is run, and there are two ways out: execve(2) and the exit of the process. Every module that is
needed is imported above, before the fork; a test detects imports after it. After pivot_root(2) nothing is
opened by name at all (`tests/lint/test_opens.py`).
"""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import FAILED, KernelError, StartError
from sysbox.base.frozen import Frozen
from sysbox.fs import mapped, ops, sources, staging
from sysbox.fs.drivers import driver
from sysbox.linux import _sys, apparmor, mount, namespace, process, sysctl, timens
from sysbox.netns import links
from sysbox.run.handshake import PROCEED, SCOPED, UNSHARED, Channel
from sysbox.run.process import (
    become_root_inside,
    check_inside_root,
    check_mapped,
    drop_privileges,
    fork_inside,
    ids_of_user,
    keep_groups,
    resolve_user,
    run_command,
    take_label,
)
from sysbox.run.streams import new_null, open_terminal, pass_sockets, take_streams
from sysbox.security import environment, sysctls
from sysbox.units.cgroup.tree import place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sysbox.container.process_plan import ProcessPlan
    from sysbox.fs.rootfs import Operation
    from sysbox.fs.secretfiles import Private
    from sysbox.plan import Plan
    from sysbox.security.identity import Identity
    from sysbox.security.seccomp import Filter
    from sysbox.units.cgroup.tree import Placement


# what the builder tells the first process of a mapped container, over a pipe
MAPPED = b"M"  # its user namespace has its maps
BUILT = b"B"  # what it needs from outside is made


class Inherited(Frozen):
    """The one object that crosses the fork; the child derives everything from it."""

    plan: Plan
    stdio: tuple[int, int, int]  # fds for 0, 1, 2; -1 is /dev/null, or the terminal if there is one
    owned: tuple[int, ...]  # those of them that sysbox has made: chowned to the container's user
    size: bytes  # struct winsize of its terminal; b"" is unknown
    seccomp: Filter | None  # None is unconfined
    placement: Placement
    private: Private | None = None  # the values of secrets and credentials
    sockets: dict[str, int] = {}  # noqa: RUF012 (path in the container -> a socket of the supervisor)


def main(
    inherited: Inherited,
    channel: Channel,
    joined: list[tuple[str, int]],
    pid_namespace: int,
    builder: int = -1,
    procfs: int = -1,
) -> NoReturn:
    """Become the container's first process; with `pid_namespace`, an fd (-1 is none), have it born in that
    namespace instead. In a user namespace of its own, `builder` is the pipe from the builder, and `procfs` a
    procfs of the host's that the builder has made. Never returns.
    """
    phase = "namespaces"
    try:
        plan = inherited.plan
        needed = {
            channel.fileno(),
            *inherited.stdio,
            *(fd for _, fd in joined),
            pid_namespace,
            builder,
            procfs,
            *inherited.sockets.values(),
            *plan.process.listening,
        }
        # first of all: every other open descriptor is the host's
        process.close_fds_except(needed)
        process.reset_signals()
        posix.umask(0o022)
        posix.setsid()
        # before any process of the container can inspect this one (CVE-2016-9962)
        _sys.prctl(process.PR_SET_DUMPABLE, 0)
        builds = builder >= 0
        if builds:
            _await(builder, MAPPED)
            become_root_inside(plan.process)
        else:
            keep_groups(plan.process)
        for kind, fd in joined:
            _sys.setns(fd, namespace.KINDS[kind][0])
        # a mount namespace that begins with what the builder has mounted is made once that is there
        _sys.unshare(plan.namespaces.new & ~(namespace.CLONE_NEWNS if builds else 0))
        if procfs < 0:
            procfs = sysctl.new_procfs()
        if plan.network.attachments:
            ipv6 = any(one.subnet6 for one in plan.network.attachments)
            links.prepare_inside(procfs, ipv6=ipv6)
        channel.send(UNSHARED)  # 1

        phase = "root"
        if plan.namespaces.clocks.mode == "private":
            timens.enter(procfs, plan.namespaces.clocks.offsets)
        if builds:
            _await(builder, BUILT)
            tree, operations = staging.take(plan.root, procfs)
        else:
            tree, operations = _make_root(plan, procfs)
        root = tree.root
        tree.options = plan.root.options
        if mapped.is_owned(operations):
            tree.user = ids_of_user(root, plan.process.user)
        tree.sockets, tree.private = inherited.sockets, inherited.private
        tree.apply(operations)
        directory = tree.directory(plan.process.workdir, what="working directory")
        if plan.process.hostname:
            _sys.sethostname(plan.process.hostname)
        set_sysctls(procfs, plan.process.sysctls)

        phase = "process"
        who = resolve_user(root, procfs, plan.process)
        check_mapped(who, plan.namespaces.uids, plan.namespaces.gids)
        if inherited.private:
            inherited.private.give(who.uid, who.gid)
        env = _environment(plan.process, who, inherited.private)

        phase = "scope"
        # into the cgroups that systemd leaves alone; then wait for systemd to move it into the others
        if not builds:
            place(inherited.placement)
        _enter_root(root, directory, plan.process.workdir)
        addresses = channel.receive(SCOPED)[0]["addresses"]  # 2
        if plan.namespaces.new_cgroup:
            # only now: the cgroup it is in, its scope, becomes the root of the new namespace
            _sys.unshare(namespace.CLONE_NEWCGROUP)
        tree.apply(plan.root.late)

        phase = "network"
        links.configure_inside(plan.network, tuple(addresses))

        phase = "process"
        stdio = inherited.stdio
        if plan.process.tty:
            slave = open_terminal(root, channel, inherited.size)
            _bind_console(tree, slave)
            stdio = (slave, slave, slave)
        if plan.root.booted:
            # services of a systemd inside have mount namespaces of their own, and must see later mounts;
            # only now, since pivot_root(2) refuses a shared root, and nothing else is mounted
            _sys.mount(None, "/", None, mount.MS_REC | mount.MS_SHARED, None)
        null = tree.null if tree.null >= 0 else new_null()
        take_streams(stdio, null, inherited.owned, who.uid, tty=plan.process.tty)
        # the parent has written limits, and the record of the run, meanwhile
        channel.receive(PROCEED)  # 4
        forks = pid_namespace >= 0
        if forks:
            # takes effect for children: a process born there must have no more than the container
            _sys.setns(pid_namespace, namespace.CLONE_NEWPID)
        if plan.process.apparmor:
            # before the filter, which may refuse it, and no_new_privs
            apparmor.enter_at_exec(procfs, plan.process.apparmor)
        take_label(procfs, plan.process.label)
        # a descriptor of the host's must not reach the payload (CVE-2024-21626)
        passed = pass_sockets(plan.process.listening, channel)
        process.close_fds_except({channel.fileno(), *passed})
        drop_privileges(plan.process, who, inherited.seccomp, channel, forks=forks)
        if forks:
            fork_inside(plan.process, env, channel, attended=True)
        run_command(plan.process, env, channel)
    except BaseException as error:  # noqa: BLE001 (a child has no other way to tell)
        channel.report(phase, "set up the container", error)
    _sys.leave(FAILED)


def _make_root(plan: Plan, procfs: int) -> tuple[ops.Tree, tuple[Operation, ...]]:
    """As `staging.take`, with the rights of the host's root."""
    operations = plan.root.operations
    copies = sources.clone(operations)
    # from here on the host sees none of the mounts
    _sys.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE, None)
    root = driver.by_name(plan.root.driver).mount_root(plan.root)
    staging.map_own(operations, copies, root, lambda top: ids_of_user(top, plan.process.user))
    return ops.Tree(root, copies, procfs), operations


def _await(builder: int, message: bytes) -> None:
    """Wait for the builder; exit if it has failed, which it has reported."""
    if posix.read(builder, 1) != message:
        _sys.leave(FAILED)


def _environment(plan: ProcessPlan, who: Identity, private: Private | None) -> tuple[str, ...]:
    env = (*plan.env, *private.variables) if private else plan.env
    return environment.build_env(plan.image_env, env, who.home, plan.hostname, plan.tty)


def set_sysctls(procfs: int, settings: tuple[tuple[str, str], ...]) -> None:
    """Write sysctls; `procfs` was made before any mount of the container."""
    for path, value in settings:
        if path == "kernel/domainname":
            _sys.setdomainname(value)  # the file is for root of the host's user namespace only
            continue
        try:
            sysctl.write(procfs, path, value)
        except KernelError as error:
            if error.errno != errno.ENOENT or path not in sysctls.OPTIONAL:
                raise


def _bind_console(tree: ops.Tree, slave: int) -> None:
    """Bind the terminal, by descriptor, onto a file that we make in our own /dev (CVE-2025-52565)."""
    made = mount.clone_tree("", recursive=False, dirfd=slave)
    target = tree.file("/dev/console")
    mount.attach(made, target)
    posix.close(made)
    posix.close(target)


def _enter_root(root: int, directory: int, workdir: str) -> None:
    """pivot_root(2) with "." twice: the old root ends up mounted on top, and is unmounted."""
    posix.fchdir(root)
    _sys.pivot_root(".", ".")
    _sys.umount2(".", mount.MNT_DETACH)
    try:
        posix.fchdir(directory)
    except OSError as error:
        raise StartError(
            f"working directory {workdir}: {posix.strerror(error.errno or 0)}",
            phase="process",
            hint="root of the container must be able to enter it: --workdir names another",
        ) from None
    check_inside_root()
