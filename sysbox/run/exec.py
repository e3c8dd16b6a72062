"""`sysbox exec`: another process in a running container, inside its scope and limits.

After the fork the same rules hold as for a start (see run/init.py). The container can see the process from
its first moment. So a helper outside of the pid namespace does everything that needs privileges, and the
process that is born inside has no more than the container's (see run/process.py, CVE-2016-9962).
"""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import FAILED, NOT_EXECUTABLE, Conflict, KernelError, StartError
from sysbox.base.frozen import Frozen
from sysbox.base.undo import Undo
from sysbox.container import events, store, systemd_plan
from sysbox.container.hostname import own_hostname
from sysbox.container.process_plan import Asked, ProcessPlan, plan_process
from sysbox.host import landlock_abi, probe
from sysbox.image.resolved import resolved_of
from sysbox.linux import (
    _sys,
    apparmor,
    capability,
    cgroup,
    mount,
    namespace,
    process,
    timens,
    userns,
)
from sysbox.linux.freezer import freezing_file, is_frozen
from sysbox.run import parent
from sysbox.run.process import (
    become_root_inside,
    check_inside_root,
    check_mapped,
    drop_privileges,
    fork_inside,
    keep_groups,
    resolve_user,
    take_label,
)
from sysbox.run.stdio import Streams, for_caller
from sysbox.run.streams import give_streams, new_null, open_null, open_terminal, take_streams
from sysbox.security import environment, seccomp
from sysbox.units.cgroup import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from sysbox.container.store import Record
    from sysbox.linux.userns import IdMap
    from sysbox.run.handshake import Channel

_ENTERED = (
    namespace.CLONE_NEWNS
    | namespace.CLONE_NEWPID  # takes effect for children
    | namespace.CLONE_NEWUTS
    | namespace.CLONE_NEWIPC
    | namespace.CLONE_NEWNET
    | namespace.CLONE_NEWCGROUP
)
DETACHED = -1  # in place of an exit status
_NAMESPACES = "namespaces"  # the phase of the helper before it is in them
_GOING = 0.5  # seconds in which a container that is ending has ended


class ExecSpec(Frozen):
    """What one `exec` asked for."""

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""  # "" is the container's
    workdir: str = ""  # "" is the container's
    tty: bool = False
    interactive: bool = False
    detach: bool = False
    keys: bytes = b""  # the key sequence that detaches; b"" for none
    privileged: bool = False
    emits_events: bool = True


class ExecContext:
    """What sysbox itself adds to a process that no user has asked for, such as a health check."""

    def __init__(self) -> None:
        self.streams: Streams | None = None  # None: those of this process
        self.watches: dict[int, Callable[[], None]] = {}  # of monitor.Foreground
        self.group = ""  # the directory of a cgroup below the container's, for the process


class Entering(Frozen):
    """What the helper needs; the one object that crosses the fork."""

    init: int  # pidfd of the container's first process
    namespaces: int  # CLONE_NEW*: those of the first process that are joined
    cgroups: tuple[str, ...]
    process: ProcessPlan
    stdio: tuple[int, int, int]
    owned: tuple[int, ...]
    spare: int  # a null device for a container without one, or -1
    size: bytes  # struct winsize of its terminal; b"" is unknown
    seccomp: seccomp.Filter | None
    uids: tuple[IdMap, ...]  # the maps of the container's user namespace; () is the host's
    gids: tuple[IdMap, ...]
    outlives: bool  # the process may outlive this command, which can detach from it


def exec_in(record: Record, spec: ExecSpec, context: ExecContext | None = None) -> int:
    """Run a process in the container; its exit status, 0 once it runs detached, DETACHED if its user leaves.

    Raises Conflict, KernelError, StartError.
    """
    runtime = _running(record)
    try:
        return _run(record, spec, runtime, context or ExecContext())
    except (KernelError, StartError) as error:
        # the container may be ending: its cgroups and namespaces go one after the other
        if not runtime.await_end(_GOING if _may_be_its_end(error) else 0):
            raise
        raise Conflict(_ended(record)) from None


def _may_be_its_end(error: KernelError | StartError) -> bool:
    """Whether the container's end explains the error: its cgroups or namespaces are gone, or the helper was
    killed with it, while its first process still exists.
    """
    if isinstance(error, KernelError):
        return error.errno == errno.ESRCH
    return error.phase in ("handshake", _NAMESPACES)


def _ended(record: Record) -> str:
    return f"container {record.name} has just ended"


def _run(record: Record, spec: ExecSpec, runtime: store.Runtime, context: ExecContext) -> int:
    paths = cgroup.paths_of(runtime.pid)
    _check_held(record, paths)
    wired = context.streams or (
        Streams()
        if spec.detach
        else for_caller(tty=spec.tty, interactive=spec.interactive, log=None)
    )
    unified, others = tree.open_entry(paths, probe(), context.group)
    entering = _entering(record, spec, runtime, wired, others)
    # the pid may have been reused: the cgroups would be those of another process
    if not runtime.alive():
        raise Conflict(_ended(record))
    pass_on = parent.listening(record, entering.seccomp, runtime.pid)
    # the child inherits it: the container sees the child at once
    _sys.prctl(process.PR_SET_DUMPABLE, 0)
    parked = parent.fork_helper(lambda channel: main(entering, channel), unified)
    parked.meanwhile = lambda: _check_held(record, paths)
    parked.on_listener = pass_on
    with Undo() as undo:
        undo.add(lambda _: wired.close())
        with parked:
            wired.close_child_ends()
            # the helper goes on meanwhile
            if spec.emits_events:
                events.container("exec_create", record, command=" ".join(spec.argv))
            if not spec.detach:
                from sysbox.run import supervisor  # noqa: F401 (`_attend` needs it)
            master = parked.await_console() if entering.process.tty else -1  # 3
            parked.await_birth()
            parked.await_exec()  # 5
    if spec.emits_events:
        command = " ".join(spec.argv)
        events.container("exec_start", record, execPid=str(parked.pid), command=command)
    if spec.detach:
        return 0
    return _attend(record, spec, parked, wired, master, context)


def _attend(
    record: Record,
    spec: ExecSpec,
    parked: parent.Parked,
    wired: Streams,
    master: int,
    context: ExecContext,
) -> int:
    """Supervise the process until it ends or its user detaches; its exit status, or DETACHED."""
    from sysbox.run import supervisor

    keys = spec.keys if spec.interactive else b""
    foreground = supervisor.Foreground(parked.pid, parked.pidfd, wired, master, keys=keys)
    foreground.watches = context.watches
    code = foreground.wait(None).code
    action, attributes = "exec_die", {"execPid": str(parked.pid), "exitCode": str(code)}
    if foreground.detached:
        from sysbox.run import terminal

        terminal.hold(master)
        code = DETACHED
        action = "exec_detach"
        attributes = {"execPid": str(parked.pid), "command": " ".join(spec.argv)}
    if spec.emits_events:
        events.container(action, record, **attributes)
    return code


def _running(record: Record) -> store.Runtime:
    runtime = store.await_start(record)
    if runtime is None or not runtime.started_ns or not runtime.alive():
        raise Conflict(
            f"container {record.name} is not running", hint=f"`sysbox start {record.name}`"
        )
    if is_frozen(probe(), runtime.cgroup):
        # a process that enters is frozen too, and this command would wait for it
        raise Conflict(f"container {record.name} is paused", hint=f"`sysbox unpause {record.name}`")
    return runtime


def _check_held(record: Record, paths: dict[str, str]) -> None:
    """Raises Conflict if a process that enters these cgroups would be frozen before its command runs."""
    if file := freezing_file(probe(), paths.get(cgroup.UNIFIED, "/")):
        raise Conflict(
            f"container {record.name} has frozen itself",
            hint=f"to let it go on: echo 0 >{file}",
        )


def _entering(
    record: Record,
    spec: ExecSpec,
    runtime: store.Runtime,
    wired: Streams,
    directories: tuple[str, ...],
) -> Entering:
    plan = _plan(record, spec, _profile(record, spec, runtime.pid))
    security = record.spec.security.replace(
        privileged=spec.privileged or record.spec.security.privileged
    )
    return Entering(
        init=process.pidfd(runtime.pid),
        # it is an error to join the user namespace that one is in
        namespaces=_ENTERED | timens.joinable() | (namespace.CLONE_NEWUSER if record.uids else 0),
        cgroups=directories,
        process=plan,
        stdio=(wired.child[0], wired.child[1], wired.child[2]),
        owned=tuple(wired.owned),
        spare=_spare_null() if -1 in wired.child and not plan.tty else -1,
        size=_terminal_size() if plan.tty else b"",
        seccomp=seccomp.filter_for(security, plan.capabilities.bounding, apparmor=plan.apparmor),
        uids=record.uids,
        gids=record.gids,
        outlives=spec.detach or (plan.tty and spec.interactive and spec.keys != b""),
    )


def _terminal_size() -> bytes:
    from sysbox.run import terminal  # few need it

    return terminal.size()


def _profile(record: Record, spec: ExecSpec, pid: int) -> str:
    """The AppArmor profile; docker's rule: `--privileged` is without."""
    if spec.privileged or not probe().apparmor:
        return ""
    from sysbox.run import apparmor as ours  # few hosts need it

    return ours.of_running(record, pid)


def _plan(record: Record, spec: ExecSpec, profile: str) -> ProcessPlan:
    return plan_process(
        record,
        resolved_of(record),
        Asked(
            argv=spec.argv,
            env=(*_secrets(record), *spec.env),
            user=spec.user,
            workdir=spec.workdir,
            tty=spec.tty and not spec.detach,
            privileged=spec.privileged,
        ),
        systemd_plan.decide(record),
        hostname=own_hostname(record),
        held=capability.grantable(own_namespace=bool(record.uids)),
        landlock=landlock_abi() if record.spec.security.landlock else 0,
        label=record.process_label if probe().selinux else "",
    ).replace(apparmor=profile)


def _secrets(record: Record) -> tuple[str, ...]:
    """The variables of its secrets, with the values that these have now, as podman does."""
    if not record.spec.secrets:
        return ()
    from sysbox.container import secrets  # few containers need it

    return secrets.variables(record.spec.secrets)


def main(entering: Entering, channel: Channel) -> NoReturn:
    """What the helper does after the fork. Never returns."""
    phase = _NAMESPACES
    try:
        plan = entering.process
        # first of all: every other open descriptor is the host's
        process.close_fds_except({channel.fileno(), entering.init, entering.spare, *entering.stdio})
        process.reset_signals()
        posix.umask(0o022)
        keep_groups(plan)
        cgroup.enter(entering.cgroups)
        process.set_oom_score_adj(0, plan.oom_score_adj)
        procfs = mount.open_procfs()  # the host's; the one inside is the container's to change
        if entering.uids:
            _prepare(entering)
        _enter(entering)

        phase = "process"
        root = mount.open_root()
        who = resolve_user(root, procfs, plan)
        check_mapped(who, entering.uids, entering.gids)
        env = environment.build_env(plan.image_env, plan.env, who.home, plan.hostname, plan.tty)
        stdio = entering.stdio
        if plan.tty:
            slave = open_terminal(root, channel, entering.size)
            stdio = (slave, slave, slave)
        null = open_null(root, procfs, entering.spare) if -1 in stdio else -1
        _change_directory(root, plan.workdir)
        if plan.apparmor:
            apparmor.enter_at_exec(procfs, plan.apparmor)
        take_label(procfs, plan.label)
        take_streams(stdio, null, entering.owned, who.uid, tty=plan.tty)
        process.close_fds_except({channel.fileno()})
        drop_privileges(plan, who, entering.seccomp, channel, forks=True)
        fork_inside(plan, env, channel, attended=not entering.outlives)
    except BaseException as error:  # noqa: BLE001 (a child has no other way to tell)
        channel.report(phase, "enter the container", error)
    _sys.leave(FAILED)


def _spare_null() -> int:
    """A null device made here: in the container's cgroups its unit's list of devices may allow none, not even
    this one. -1 where this process may make no device, as inside a user namespace.
    """
    try:
        return new_null()
    except KernelError:
        return -1


def _prepare(entering: Entering) -> None:
    """What a process of the container's user namespace may not do."""
    process.raise_limits(entering.process.rlimits)
    owner = userns.root_of(entering.uids, entering.gids)
    give_streams(entering.stdio, entering.owned, owner)
    if entering.spare >= 0:
        posix.fchown(entering.spare, *owner)


def _enter(entering: Entering) -> None:
    """Join the container's namespaces; the pid namespace takes effect for children only (setns(2))."""
    try:
        _sys.setns(entering.init, entering.namespaces)
        if entering.uids:
            become_root_inside(entering.process)
    except OSError as error:
        raise KernelError.of("enter the container's namespaces", "", error) from None


def _change_directory(root: int, path: str) -> None:
    """Through a descriptor that was opened without magic links (CVE-2024-21626)."""
    try:
        directory = mount.open_in_root(
            root, path, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
        )
        posix.fchdir(directory)
    except KernelError as error:
        raise StartError(
            f"working directory {path}: {error.message}", phase="process", status=NOT_EXECUTABLE
        ) from None
    check_inside_root()
