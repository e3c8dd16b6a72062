"""What the verbs do: run, create, start, stop, kill, pause, unpause, restart, rm, rename."""

from __future__ import annotations

from sysbox import ending, events, finals, restarting, state
from sysbox.errors import Conflict, SysboxError
from sysbox.files import unlink
from sysbox.host import probe
from sysbox.image.store import Store
from sysbox.linux.freezer import frozen
from sysbox.units import freezer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.attending import Attended
    from sysbox.image.model import Image
    from sysbox.spec import ContainerSpec, RestartPolicy
    from sysbox.state import Record


def run(spec: ContainerSpec, *, dry_run: bool = False) -> int:
    """`sysbox run`: the exit status of the container's command, or 0 once it is detached."""
    # imported here: to stop and to remove a container takes none of it
    from sysbox import creating

    if dry_run:
        print(creating.describe(spec))
        return 0
    record, image = creating.create(spec)
    attended = None
    by_service = needs_service(record.spec)
    try:
        if spec.detach:
            _detach(record, new=True)
        elif by_service:
            _expect(record)
            _detach(record, new=True)
        else:
            attended = _attend(record, image)
    except BaseException:
        _abandon(record)
        raise
    if attended:
        return attended.wait()
    if by_service and not spec.detach:
        return _attached(record)
    print(record.id, flush=True)
    return 0


def needs_service(spec: ContainerSpec) -> bool:
    """Whether it takes more to look after it than the command that starts it can do."""
    return (
        spec.restart.name != "no"
        or spec.logging.driver == "json-file"
        or spec.detach_keys != ""
        or spec.health.command != ()
    )


def _detach(record: Record, *, new: bool = False) -> None:
    from sysbox import detaching

    detaching.start_detached(record, new=new)


def _attend(record: Record, image: Image) -> Attended:
    from sysbox import attending  # what runs in the background needs none of it

    return attending.Attended(record, image)


def _expect(record: Record) -> None:
    from sysbox import attaching

    attaching.expect(record)


def _attached(record: Record) -> int:
    """Be attached to one that was just started for that; its exit status, or 0 when its user left it."""
    from sysbox import attaching

    spec = record.spec
    wishes = attaching.Wishes(
        interactive=spec.interactive,
        closes_input=spec.interactive and not spec.tty,
        keys=attaching.parse_keys(spec.detach_keys or attaching.KEYS, "--detach-keys"),
    )
    code = attaching.attach(record, wishes)
    return 0 if code == attaching.DETACHED else code


def create(spec: ContainerSpec) -> str:
    """`sysbox create`: the new container's id. Raises SysboxError; nothing is left then."""
    from sysbox import creating

    return creating.create(spec)[0].id


def _abandon(record: Record) -> None:
    """A container that `run` made and that never ran is removed, --rm or not: nothing half-made is left."""
    try:
        ending.remove(record, force=True, with_volumes=True)
        if record.spec.cidfile:
            unlink(record.spec.cidfile)
    except SysboxError:
        pass  # ignoring: why it did not start is the better message


def start(record: Record, *, attach: bool, interactive: bool) -> int:
    """`sysbox start`. One that runs already is success, as docker has it."""
    settle_if_dead(record)
    current = state.status(record).state
    if current == "paused":
        raise Conflict(f"container {record.name} is paused", hint=f"`sysbox unpause {record.name}`")
    if current == "running":
        if attach:
            raise Conflict(
                f"container {record.name} runs already", hint="`sysbox logs -f` shows its output"
            )
        return 0
    if not attach:
        _detach(record)
        return 0
    if needs_service(record.spec):
        _expect(record)
        _detach(record)
        spec = record.spec.replace(interactive=interactive and record.spec.interactive)
        return _attached(record.replace(spec=spec))
    image = Store().resolve(record.image_id)
    spec = record.spec.replace(interactive=interactive and record.spec.interactive)
    return _attend(record.replace(spec=spec), image).wait()


def settle_if_dead(record: Record) -> None:
    """Record the end of a run that nobody recorded: its supervisor was killed."""
    runtime = state.runtime(record.id)
    if runtime is None or runtime.supervised():
        return
    if runtime.alive():
        ending.kill_now(record, runtime)
    ending.settle(record.id)


def stop(record: Record, timeout: int | None) -> None:
    """`sysbox stop`: its stop signal, and SIGKILL when the timeout (seconds, -1 never) is over."""
    settle_if_dead(record)
    restarting.stopped(record)
    by_systemd = restarting.end(record)
    runtime = state.runtime(record.id)
    if runtime is None or not runtime.alive():
        ending.await_end(record)
        if by_systemd:
            restarting.await_service(record)
        return
    patience = record.spec.stop_timeout if timeout is None else timeout
    if not by_systemd:
        # its service has the monitor do it
        runtime.send(ending.stop_signal(record))
        if frozen(probe(), runtime.cgroup):
            freezer.thaw(runtime.scope, runtime.cgroup, probe())
    if not ending.await_end(record, None if patience < 0 else float(patience)):
        finals.will_time_out(record)
        ending.kill_now(record, runtime)
    if by_systemd:
        restarting.await_service(record)
    events.container("stop", record)


def kill(record: Record, signal: int) -> None:
    """`sysbox kill`. Raises Conflict when it does not run."""
    runtime = state.runtime(record.id)
    if runtime is None or not runtime.alive():
        raise Conflict(f"container {record.name} does not run")
    if signal != 9 and frozen(probe(), runtime.cgroup):
        raise Conflict(
            f"container {record.name} is paused: it takes no signal but SIGKILL",
            hint=f"`sysbox unpause {record.name}` first; `sysbox stop` and `rm -f` work as it is",
        )
    if restarting.has_policy(record) and signal in (9, ending.stop_signal(record)):
        # one that its user has killed is not started again
        restarting.stopped(record)
        restarting.end(record)
    if signal == 9:
        ending.kill_now(record, runtime)
    else:
        runtime.send(signal)
    events.container("kill", record, signal=str(signal))


def pause(record: Record) -> None:
    """`sysbox pause`. Raises Conflict when it does not run, or is paused."""
    settle_if_dead(record)
    with state.Lock(record.id):  # a start that goes on comes to its end first
        runtime = _of_running(record)
        if frozen(probe(), runtime.cgroup):
            raise Conflict(f"container {record.name} is already paused")
        freezer.freeze(runtime.scope, runtime.cgroup, probe())
    events.container("pause", record)


def unpause(record: Record) -> None:
    """`sysbox unpause`. Raises Conflict when it does not run, or is not paused."""
    settle_if_dead(record)
    runtime = _of_running(record)
    if not frozen(probe(), runtime.cgroup):
        raise Conflict(f"container {record.name} is not paused")
    freezer.thaw(runtime.scope, runtime.cgroup, probe())
    events.container("unpause", record)


def _of_running(record: Record) -> state.Runtime:
    runtime = state.runtime(record.id)
    if runtime is None or not runtime.alive():
        raise Conflict(f"container {record.name} does not run")
    return runtime


def restart(record: Record, timeout: int | None) -> None:
    """`sysbox restart`: stop it, if it runs, and start it detached."""
    stop(record, timeout)
    _detach(record)
    events.container("restart", record)


def remove(record: Record, *, force: bool, volumes: bool) -> None:
    """`sysbox rm`. Raises Conflict for a container that runs, without `force`."""
    settle_if_dead(record)
    ending.remove(record, force=force, with_volumes=volumes)


def set_policy(record: Record, policy: RestartPolicy) -> None:
    """`sysbox update --restart`. Raises Conflict for a container with --rm."""
    with state.Lock(record.id):
        current = state.load(record.id)
        if current.spec.remove and policy.name != "no":
            raise Conflict(f"container {record.name} is removed when it stops (--rm)")
        changed = current.replace(spec=current.spec.replace(restart=policy))
        state.save(changed)
        restarting.change(changed)
    events.container("update", changed)


def rename(record: Record, name: str) -> None:
    """`sysbox rename`. Raises Conflict when the name is taken."""
    with state.Lock(record.id):
        renamed = state.rename(state.load(record.id), name)
    events.container("rename", renamed, oldName=record.name)
