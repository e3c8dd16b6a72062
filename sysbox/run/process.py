"""The last steps of a process that becomes a container's, the same for `run` and `exec`.

A process that can be seen inside a pid namespace has, from its first instruction, no more rights than the
container: its root, mounts, capabilities, filter and descriptors. In a new pid namespace no other process
can see it. In an existing one (`exec`, `--pid container:X`) all can, so everything is done outside first, and
only a child without privileges is born inside (`fork_inside`).

Nothing here opens a path by name: the file system around this process is the container's by now.
"""

from __future__ import annotations

import _signal
import errno
import fcntl
import posix

from sysbox.base.errors import FAILED, NOT_EXECUTABLE, NOT_FOUND, KernelError, StartError
from sysbox.linux import _sys, capability, keyring, lsm, mount, namespace, process, seccomp, userns
from sysbox.run.handshake import BORN, LISTENING, STARTING, WAITING, Channel
from sysbox.security import environment, identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sysbox.container.process_plan import ProcessPlan
    from sysbox.linux.landlock import Domain
    from sysbox.linux.userns import IdMap
    from sysbox.security.identity import Identity
    from sysbox.security.seccomp import Filter

_TIOCSCTTY = 0x540E  # asm-generic/ioctls.h
_NPROC = "nproc"
PROFILE_REFUSES = "the seccomp profile refuses what sysbox does between loading it and the command"
PROFILE_HINT = (
    "allow prctl, setgroups, setresgid, setresuid, capset, poll, write, execve and exit_group (clone and "
    "setsid too for exec, read and close with a listenerPath); with --security-opt no-new-privileges the "
    "first five are not needed"
)


def resolve_user(root: int, procfs: int, plan: ProcessPlan) -> Identity:
    """The user and groups of the process. Raises SpecError, StartError."""
    return _look_up(root, procfs, plan.user, plan.group_add)


def ids_of_user(root: int, user: str) -> tuple[int, int]:
    """The ids in the container of a user as in --user, before anything is mounted in its root.

    Raises as `resolve_user`.
    """
    procfs = mount.open_procfs()
    who = _look_up(root, procfs, user, ())
    posix.close(procfs)
    return who.uid, who.gid


def _look_up(root: int, procfs: int, user: str, group_add: tuple[str, ...]) -> Identity:
    """Of a file that is too large the beginning is used, as long as no name has to be looked up."""
    databases = []
    for path in ("/etc/passwd", "/etc/group"):
        data = read_database(root, procfs, path)
        if len(data) > identity.MAX_FILE:
            if identity.has_names(user, group_add):
                limit = f"{identity.MAX_FILE >> 20} MiB"
                raise StartError(f"the image's {path} is larger than {limit}", phase="process")
            data = data[: data.rfind(b"\n", 0, identity.MAX_FILE) + 1]
        databases.append(data)
    return identity.resolve_user(user, group_add, *databases)


def check_mapped(who: Identity, uids: tuple[IdMap, ...], gids: tuple[IdMap, ...]) -> None:
    """Raise SpecError for a user or group that the container's user namespace lacks."""
    name = who.name or who.uid
    userns.outside(uids, who.uid, f"user {name}")
    for gid in (who.gid, *who.groups):
        userns.outside(gids, gid, f"a group of user {name}")


def read_database(root: int, procfs: int, path: str) -> bytes:
    """The content of a regular file of the image, through the root fd; empty if there is none.

    Of a larger file slightly more than identity.MAX_FILE is read, so that the caller can tell.

    Its type is checked before it is opened: reading a link to /proc/kmsg would drain the kernel's log.
    `procfs` is the host's.
    """
    try:
        found = mount.open_in_root(root, path, posix.O_PATH | posix.O_CLOEXEC)
    except KernelError:
        return b""
    try:
        if not mount.is_plain_file(found):
            return b""
        fd = mount.reopen(procfs, found, posix.O_RDONLY)
    finally:
        posix.close(found)
    chunks, size = [], 0
    while size <= identity.MAX_FILE and (chunk := posix.read(fd, 1 << 16)):
        chunks.append(chunk)
        size += len(chunk)
    posix.close(fd)
    return b"".join(chunks)


def check_inside_root() -> None:
    """Raises StartError when the working directory is not below the root (CVE-2024-21626)."""
    try:
        outside = posix.getcwd().startswith("(")
    except OSError:
        outside = True
    if outside:
        raise StartError("the working directory is outside of the container", phase="process")


def become_root_inside(plan: ProcessPlan) -> None:
    """Become root in a user namespace that this process has just entered, with all capabilities there."""
    if plan.kept_groups is None:
        posix.setgroups([])
    posix.setresgid(0, 0, 0)
    posix.setresuid(0, 0, 0)
    # a change of credentials has cleared them (prctl(2))
    _sys.prctl(process.PR_SET_DUMPABLE, 0)
    _sys.prctl(process.PR_SET_PDEATHSIG, _signal.SIGKILL)


def drop_privileges(
    plan: ProcessPlan,
    who: Identity,
    filtered: Filter | None,
    channel: Channel,
    *,
    forks: bool = False,
) -> None:
    """Become the container's user with its capabilities and filter, and nothing more.

    `filtered` None is unconfined. A process that `forks` counts against its user's RLIMIT_NPROC:
    `run_command` sets that after the fork.
    """
    # before the filter, which may refuse it or only pretend
    posix.umask(plan.umask)
    for name, soft, hard in plan.rlimits:
        if forks and name == _NPROC:
            # as high as possible without CAP_SYS_RESOURCE, or as high as it is asked for
            _, most = process.rlimit_of(0, name) or (-1, -1)
            soft = hard = -1 if -1 in (most, hard) else max(most, hard)
        process.set_rlimit(name, soft, hard)
    keyring.join_session(None)
    if plan.landlock:
        _confine(plan.landlock)
    if filtered is None or plan.no_new_privileges:
        _become(plan, who)
    else:
        # without no_new_privs a filter needs CAP_SYS_ADMIN, which is dropped next (seccomp(2))
        _load(filtered, channel)
        try:
            _become(plan, who)
        except (OSError, KernelError) as error:
            raise refused_by_profile(error) from None
    if plan.no_new_privileges:
        _sys.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
        if filtered is not None:
            _load(filtered, channel)


def _load(filtered: Filter, channel: Channel) -> None:
    """Load the filter, after that of the recorder if there is one: the stricter answer of the two counts."""
    if filtered.listener:
        flags = filtered.flags | seccomp.NEW_LISTENER
        _pass_listener(seccomp.load(filtered.program, flags), channel)
        return
    if filtered.recorder:
        _pass_listener(seccomp.listen(filtered.recorder), channel)
    if filtered.program:
        seccomp.load(filtered.program, filtered.flags)


def _pass_listener(fd: int, channel: Channel) -> None:
    """Who answers our calls gets the descriptor through our parent; the container never has it."""
    channel.send_once(LISTENING, {"fd": fd})
    channel.await_answer()
    try:
        # a process that is born beside others would show it to them
        posix.close(fd)
    except OSError:
        pass  # ignoring: the profile refuses close(2), and execve(2) closes it


def _confine(domain: Domain) -> None:
    """Give up what is outside of the root: before the filter, and while there is CAP_SYS_ADMIN.

    From here on a descriptor of the host's procfs, too, leads nowhere.
    """
    from sysbox.linux import landlock  # imported with the plan

    root = mount.open_root()
    landlock.confine(root, domain)
    posix.close(root)


def take_label(procfs: int, label: str) -> None:
    """Have execve(2) give the process its SELinux label, and its session keyring the same; "" does nothing.

    `procfs` is the host's. Before the filter is loaded, which could refuse it; a fork keeps both. Raises
    StartError.
    """
    if not label:
        return
    try:
        for name in ("keycreate", "exec"):
            fd = lsm.open_attribute(procfs, name)
            lsm.write(fd, label)
            posix.close(fd)
    except KernelError as error:
        hint = "the policy must let sysbox start processes with it: `make install-selinux`"
        raise StartError(error.message, phase="process", hint=hint) from None


def keep_groups(plan: ProcessPlan) -> None:
    """Take the groups of `--group-add keep-groups`.

    Before a user namespace is entered: inside, a group that is not mapped can be kept, but not set.
    """
    if plan.kept_groups is not None:
        posix.setgroups(plan.kept_groups)


def _become(plan: ProcessPlan, who: Identity) -> None:
    sets = plan.capabilities if who.uid == 0 else plan.user_capabilities
    capability.drop_bounding(sets.bounding)
    if who.uid and sets.permitted:
        capability.keep_caps()
    if plan.kept_groups is None:
        posix.setgroups(list(who.groups))
    posix.setresgid(who.gid, who.gid, who.gid)
    posix.setresuid(who.uid, who.uid, who.uid)
    # at once what execve(2) would leave
    capability.apply(sets)
    # dropping a capability may have made the process dumpable again (prctl(2))
    _sys.prctl(process.PR_SET_DUMPABLE, 0)
    _check_became(sets, who)


def _check_became(sets: capability.Sets, who: Identity) -> None:
    """Verify the result: a filter can replace a system call by a return of 0, success. Raises KernelError."""
    more = 0
    try:
        more = _sys.capget()[1] & ~sets.permitted
    except OSError:
        pass  # refused, which proves nothing
    if more or (who.uid and posix.getuid() == 0) or (who.gid and posix.getgid() == 0):
        raise KernelError("become the container's user", "", errno.EPERM)


def refused_by_profile(error: OSError | KernelError) -> StartError:
    """The error for a step that fails under the filter, and not without it."""
    why = error.message if isinstance(error, KernelError) else error.strerror
    return StartError(f"{PROFILE_REFUSES}: {why}", phase="process", hint=PROFILE_HINT)


def fork_inside(
    plan: ProcessPlan, env: tuple[str, ...], channel: Channel, *, attended: bool
) -> NoReturn:
    """Have a child born in the joined pid namespace, with the rights this process has left, and exit.

    It is a child of our parent, which learns its pid through the channel. Made with clone(2): filters cannot
    check the arguments of clone3(2), and mostly refuse it.

    Raises StartError: the container's filter may allow no new process, or its limit may be reached.
    """
    try:
        pid = _sys.clone(namespace.CLONE_PARENT)
    except OSError as error:
        raise StartError(
            f"make a process in the container: {error.strerror}",
            phase="process",
            hint=_birth_hint(error.errno or 0),
        ) from None
    if pid:
        channel.send_once(BORN, {"pid": pid})
        _sys.leave(0)
    run_command(plan, env, channel, attended=attended, born=True)


def _birth_hint(number: int) -> str:
    if number == errno.EAGAIN:
        return "it has reached its process limit: raise --pids-limit, or TasksMax of its slice"
    if number in (errno.EPERM, errno.ENOSYS):
        return "its seccomp profile must allow clone(2)"
    return ""


def run_command(
    plan: ProcessPlan,
    env: tuple[str, ...],
    channel: Channel,
    *,
    attended: bool = True,
    born: bool = False,
    gate: int = -1,
) -> NoReturn:
    """Execute the command; an `attended` one dies with its supervisor. Never returns.

    With a `gate`, a listening socket, the process waits for a connection first.
    """
    phase = "process"
    try:
        if born:
            posix.setsid()
            for name, soft, hard in plan.rlimits:
                if name == _NPROC:
                    process.set_rlimit(name, soft, hard)
        if plan.tty:
            fcntl.ioctl(0, _TIOCSCTTY, 0)
        if gate >= 0:
            channel = await_start(gate, channel)
        elif attended:
            # last, since a change of credentials clears it (prctl(2))
            _sys.prctl(process.PR_SET_PDEATHSIG, _signal.SIGKILL)
        # the parent may have died before the prctl(2)
        channel.check_peer()
        phase = "exec"
        if plan.pid_variables:
            env = (*env, *(f"{name}={posix.getpid()}" for name in plan.pid_variables))
        execute(plan.argv, env)
    except BaseException as error:  # noqa: BLE001 (a child has no other way to tell)
        channel.report(phase, "run the command", error)
    _sys.leave(FAILED)


def await_start(gate: int, channel: Channel) -> Channel:
    """Report that only the execve(2) is left, and wait for the starter; the channel to it.

    The parent may exit meanwhile, and this process lives on (OCI runtime spec, runtime.md, "Create").
    Raises OSError.
    """
    _sys.prctl(process.PR_SET_PDEATHSIG, 0)
    channel.send_once(WAITING, {})
    channel.close()
    starter = Channel.accept(gate)
    starter.send_once(STARTING, {})
    return starter


def execute(argv: tuple[str, ...], env: tuple[str, ...]) -> NoReturn:
    """execve(2), with PATH searched in the container. Raises StartError with docker's exit statuses."""
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
        hint=_missing_hint(command),
    )


def _missing_hint(command: str) -> str:
    if command.startswith("-"):
        return "flags go before the image's name, or before that of the container"
    if "/" in command:
        return "it, or the interpreter that it names, does not exist in the image"
    return ""


def _exec_hint(number: int) -> str:
    return {
        errno.EACCES: "it is a directory, not marked executable, or SELinux or AppArmor forbids it",
        errno.ENOEXEC: "it is a script without #!, or made for another architecture",
        errno.E2BIG: "the arguments and the environment are too large",
    }.get(number, "")
