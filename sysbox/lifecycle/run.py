"""The verbs that make or start a container: run, create, start."""

from __future__ import annotations

import _signal
import posix

from sysbox.base.errors import Conflict, Gone, Outrun, SpecError, SysboxError, interrupt
from sysbox.base.visible import for_terminal
from sysbox.container.status import read_status
from sysbox.host import probe
from sysbox.units.cgroup import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record
    from sysbox.plan import Plan
    from sysbox.run.foreground import Attended
    from sysbox.spec import ContainerSpec


class Notices:
    """Messages to the user during a run; the command line has a subclass that prints them."""

    def killing(self) -> None:
        """Ctrl-c was pressed for the third time, which kills a container without a terminal."""

    def detached(self, record: Record) -> None:
        """The keys to detach were pressed."""

    def replaced_by_none(self, name: str) -> None:
        """The container `name` was removed for a new one, which then could not be made or started."""

    def without_user_namespace(self, reason: str) -> None:
        """The container is in the host's user namespace for a reason that is no flag and no setting."""

    def with_less_landlock(self, reach: tuple[str, ...]) -> None:
        """The kernel's Landlock is too old to keep all of this from the container."""


SILENT = Notices()
_ENDING = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)  # they end a start


def run(
    spec: ContainerSpec, *, dry_run: bool = False, replace: bool = False, notices: Notices = SILENT
) -> int:
    """`sysbox run`: the exit status of the container's command, or 0 once it is detached.

    With `replace` the container that has its name is removed first.
    """
    if dry_run:
        return _describe(spec, replace=replace)
    if b"LISTEN_FDS" in posix.environ and (spec.detach or needs_service(spec)):
        _check_no_sockets()
    _end_start_by_signals()
    _settle_owners(spec)
    if replace:
        # here and below, not above: each path imports only what it needs
        from sysbox.lifecycle import replace as replacing

        with replacing.Replacement(spec, notices, starts=True):
            record, attended = _started(spec, notices)
    else:
        record, attended = _started(spec, notices)
    if attended:
        return attended.wait()
    if not spec.detach:
        return _attached(record, notices)
    print(record.id, flush=True)
    return 0


def _started(spec: ContainerSpec, notices: Notices) -> tuple[Record, Attended | None]:
    """(the new container, its run if this process supervises it). Nothing is left where it does not start."""
    from sysbox.lifecycle import create as creating

    record, plan = creating.create(spec, _hold_signals, notices)
    attended = None
    by_service = needs_service(record.spec)
    try:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _ENDING)
        tree.expect_move(probe())  # again: the verb may have begun long ago
        if by_service and not needs_service(spec):
            _check_of_image(record.spec)
        if spec.detach:
            _detach(record, new=True)
        elif by_service:
            _detach_expected(record, new=True)
        else:
            attended = _attend(record, notices, plan)
    except BaseException as error:
        _abandon(record)
        if isinstance(error, Gone) and error.container == record.id:
            raise Outrun(
                f"another command has removed the container {record.name} while it started"
            ) from None
        raise
    return record, attended


def _settle_owners(spec: ContainerSpec) -> None:
    """Record the ends of dead containers that have what it asks for; most ask for no port and no address."""
    if spec.ports or any(one.address or one.address6 for one in spec.networks):
        from sysbox.lifecycle import control

        control.settle_owners(spec)


def _describe(spec: ContainerSpec, *, replace: bool) -> int:
    from sysbox.lifecycle import create as creating

    owner = ""
    if replace:
        from sysbox.lifecycle import replace as replacing

        owner = replacing.checked(spec, starts=True)
    print(for_terminal(creating.describe(spec), 1))
    if owner:
        print(f"remove container {owner[:12]}")
    return 0


def _check_no_sockets() -> None:
    """Raise SpecError where systemd has opened sockets for this process: it starts no container itself."""
    from sysbox.run import listen

    if listen.fds():
        raise SpecError(
            "LISTEN_FDS: the container has a service of its own, to which these sockets cannot be passed",
            hint="leave out -d, -it and health checks, add --no-healthcheck where the image has one, or "
            "declare it: ListenStream= in [Container]",
        )


def _check_of_image(spec: ContainerSpec) -> None:
    """Raise SpecError where the health check of the image makes impossible what was asked of this process."""
    if spec.ready:
        raise SpecError(
            f"--sdnotify {spec.ready}: the image has a health check: the container has a service of its own",
            hint="add --no-healthcheck, or declare the container: Notify=healthy in [Container]",
        )
    if b"LISTEN_FDS" in posix.environ:
        _check_no_sockets()


def _end_start_by_signals() -> None:
    """Have SIGTERM and SIGHUP end a start as ctrl-c does, with all that was made for it undone.

    Once the command runs, it is sent these signals.
    """
    for number in (_signal.SIGTERM, _signal.SIGHUP):
        _signal.signal(number, interrupt)


def _hold_signals() -> None:
    """Have them wait while the container is made: what undoes that has no record of it before."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _ENDING)


def needs_service(spec: ContainerSpec) -> bool:
    """Whether the container needs a service: the command that starts it cannot supervise it.

    For one, the user of a terminal may detach, and the container goes on.
    """
    return (
        (spec.tty and spec.interactive)
        or spec.restart.name != "no"
        or spec.logging.driver == "json-file"
        or spec.detach_keys != ""
        or spec.attach != ()
        or not spec.sig_proxy
        or spec.health.command != ()
    )


def _detach(record: Record, *, new: bool = False) -> None:
    from sysbox.run import background

    background.start_detached(record, new=new)


def _detach_expected(record: Record, *, new: bool = False) -> None:
    """Start its service, which holds the output until this process has attached."""
    from sysbox.run import attach_socket, supervisor, terminal

    attach_socket.expect(record, terminal.size() if record.spec.tty else b"")
    _detach(record, new=new)
    # from now on the signals are the container's, and `attach` passes them on
    supervisor.hold_signals()


def _attend(record: Record, notices: Notices, plan: Plan | None = None) -> Attended:
    from sysbox.run import foreground

    return foreground.Attended(record, plan, notices.killing)


def _attached(record: Record, notices: Notices) -> int:
    """Attach to the container; its exit status, or 0 if the user has detached."""
    from sysbox.container import events
    from sysbox.run import attach, detach_keys

    spec = record.spec

    def kill() -> bool:
        notices.killing()
        return True

    options = attach.AttachOptions(
        interactive="stdin" in spec.attach if spec.attach else spec.interactive,
        outputs=_outputs(spec),
        pass_signals=spec.sig_proxy,
        closes_input=spec.interactive and not spec.tty,
        keys=detach_keys.parse(spec.detach_keys or detach_keys.DEFAULT, "--detach-keys"),
        on_third_interrupt=None if spec.tty else kill,
    )
    if not options.outputs:
        print(record.id, flush=True)  # as docker: nothing else is printed
    code = attach.attach(record, options)
    if code != attach.DETACHED:
        return code
    events.container("detach", record)
    notices.detached(record)
    return 0


def _outputs(spec: ContainerSpec) -> tuple[int, ...]:
    """The descriptors of the streams that are shown: both if none is chosen."""
    chosen = spec.attach or ("stdout", "stderr")
    return tuple(fd for fd, name in ((1, "stdout"), (2, "stderr")) if name in chosen)


def create(spec: ContainerSpec, notices: Notices = SILENT, *, replace: bool = False) -> str:
    """`sysbox create`: the new container's id. Raises SysboxError; nothing is left then."""
    from sysbox.lifecycle import create as creating

    if not replace:
        return creating.create(spec, lambda: None, notices)[0].id
    from sysbox.lifecycle import replace as replacing

    with replacing.Replacement(spec, notices, starts=False):
        return creating.create(spec, lambda: None, notices)[0].id


def _abandon(record: Record) -> None:
    """Remove a container that `run` has made and that has never run, --rm or not."""
    from sysbox.lifecycle.remove import remove
    from sysbox.run import attach_socket

    client = attach_socket.stand_in(record)
    try:
        remove(record, force=True, with_volumes=True)
        if record.spec.cidfile:
            from sysbox.lifecycle import cidfile

            cidfile.remove(record.spec.cidfile, record.id)
    except (SysboxError, OSError):
        pass  # ignoring: why it did not start is the better message
    finally:
        client.close()


def start(record: Record, *, attach: bool, interactive: bool, notices: Notices = SILENT) -> int:
    """`sysbox start`. A container that runs already is success, as in docker."""
    from sysbox.lifecycle import control

    control.settle_if_dead(record)
    _settle_owners(record.spec)
    current = read_status(record).state
    if current == "paused":
        raise Conflict(f"container {record.name} is paused", hint=f"`sysbox unpause {record.name}`")
    spec = record.spec.replace(interactive=interactive and record.spec.interactive, attach=())
    heard = record.replace(spec=spec)
    if current == "running":
        return _attached(heard, notices) if attach else 0
    if current == "restarting":
        from sysbox.run import again

        again.take_over(record)
    tree.expect_move(probe())
    if not attach:
        _detach(record)
        return 0
    if needs_service(record.spec):
        _detach_expected(record)
        return _attached(heard, notices)
    return _attend(heard, notices).wait()
