"""The builder: a child that makes what the first process of a mapped container needs from the host.

It has the host's user namespace, and a mount namespace of its own. There it makes the container's first
process, in a new user namespace, as a child of its own parent. What the builder mounts the kernel copies into
the mount namespace of the container, with everything locked (`fs/staging.py`). When that is made the builder
exits. The rules for a child hold here too (see run/init.py).
"""

from __future__ import annotations

import _signal
import posix

from sysbox.base.errors import FAILED
from sysbox.fs import sources, staging
from sysbox.linux import _sys, capability, mount, namespace, process, sysctl, userns
from sysbox.run import init
from sysbox.run.handshake import BORN
from sysbox.run.process import become_root_inside, ids_of_user, keep_groups
from sysbox.run.streams import give_streams
from sysbox.units.cgroup.tree import place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sysbox.plan import Plan
    from sysbox.run.handshake import Channel
    from sysbox.run.init import Inherited


def main(
    inherited: Inherited, channel: Channel, joined: list[tuple[str, int]], pid_namespace: int
) -> NoReturn:
    """What the builder does after the fork; the namespaces are those of init.main. Never returns."""
    phase = "namespaces"
    try:
        spaces = inherited.plan.namespaces
        root = userns.root_of(spaces.uids, spaces.gids)
        given = {channel.fileno(), *inherited.stdio, *(fd for _, fd in joined), pid_namespace}
        given.update((*inherited.sockets.values(), *inherited.plan.process.listening))
        copies, procfs = _prepare(inherited, given, root)

        def make_first(flags: int) -> tuple[int, int]:
            others = [pair for pair in joined if pair[0] != "user"]
            return _make_first(inherited, channel, others, pid_namespace, procfs, flags)

        phase = "root"
        owner = next((fd for kind, fd in joined if kind == "user"), -1)
        # from here on with the ids of the container's root, and the capabilities of this process. That root
        # owns what is made, and is charged for what the user namespace uses: of inotify instances the host's
        # root would have none left. overlayfs keeps the rights of the process that mounts it, and its id
        capability.act_as(*root)
        if owner < 0:
            # as early as possible: systemd makes its scope meanwhile
            pid, gate = make_first(namespace.CLONE_NEWUSER | namespace.CLONE_NEWPID)
            userns.write_maps(pid, spaces.uids, spaces.gids)
            posix.write(gate, init.MAPPED)
            owner = namespace.open_ns(pid, "user")
            _build(inherited.plan, copies, owner)
        else:
            _build(inherited.plan, copies, owner)
            _sys.setns(owner, namespace.CLONE_NEWUSER)
            become_root_inside(inherited.plan.process)
            _, gate = make_first(namespace.CLONE_NEWPID if spaces.new_pid else 0)
            posix.write(gate, init.MAPPED)
        posix.write(gate, init.BUILT)
    except BaseException as error:  # noqa: BLE001 (a child has no other way to tell)
        channel.report(phase, "set up the container", error)
        _sys.leave(FAILED)
    _sys.leave(0)


def _build(plan: Plan, copies: dict[int, int], owner: int) -> None:
    """Make what the container needs from outside; `owner` is an fd of its user namespace."""
    spaces, user = plan.namespaces, plan.process.user
    staging.build(plan.root, copies, owner, lambda top: ids_of_user(top, user))
    staging.check_new_volumes(plan.root, (spaces.uids, spaces.gids))


def _prepare(
    inherited: Inherited, given: set[int], root: tuple[int, int]
) -> tuple[dict[int, int], int]:
    """The state in which the first process is born, who inherits it.

    Returns the copies of the sources of binds, and a procfs.
    """
    # first of all: every other open descriptor is the host's
    process.close_fds_except(given)
    process.reset_signals()
    posix.umask(0o022)
    _sys.prctl(process.PR_SET_DUMPABLE, 0)
    # limits that it may only lower, groups that are not mapped, streams to chown, its cgroups
    process.raise_limits(inherited.plan.process.rlimits)
    keep_groups(inherited.plan.process)
    give_streams(inherited.stdio, inherited.owned, root)
    place(inherited.placement)
    copies = sources.clone(inherited.plan.root.operations)
    # from here on the host sees none of the mounts
    _sys.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE, None)
    staging.enter(inherited.plan.root.directory, inherited.plan.root.options)
    return copies, sysctl.new_procfs()


def _make_first(
    inherited: Inherited,
    channel: Channel,
    joined: list[tuple[str, int]],
    pid_namespace: int,
    procfs: int,
    flags: int,
) -> tuple[int, int]:
    """Make the container's first process, a child of our parent: (its pid, the end of a pipe to it)."""
    reading, writing = posix.pipe2(posix.O_CLOEXEC)
    pid, pidfd = _sys.clone3(flags | namespace.CLONE_PARENT)
    if pid == 0:
        try:
            _sys.prctl(process.PR_SET_PDEATHSIG, _signal.SIGKILL)
            channel.check_peer()
            posix.close(writing)
            init.main(inherited, channel, joined, pid_namespace, reading, procfs)
        finally:
            _sys.leave(FAILED)
    posix.close(reading)
    posix.close(pidfd)
    channel.send(BORN, {"pid": pid})  # 0
    return pid, writing
