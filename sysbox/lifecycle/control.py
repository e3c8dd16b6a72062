"""What the verbs do to an existing container: stop, kill, pause, unpause, restart, rm, rename."""

from __future__ import annotations

import time

from sysbox.base.errors import Conflict, NotFound, SysboxError
from sysbox.container import events, store
from sysbox.container.locks import Lock
from sysbox.container.names import owner_of
from sysbox.container.status import has_scope
from sysbox.host import probe
from sysbox.lifecycle.remove import remove as removing
from sysbox.linux.freezer import is_frozen
from sysbox.run import background, exit_record, signals
from sysbox.run.exit import await_end, kill_now, settle
from sysbox.run.restart import await_service, change, end_start, end_wait, request_stop
from sysbox.units import unit_file
from sysbox.units.cgroup import freezer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record
    from sysbox.spec import ContainerSpec, RestartPolicy

_FOR_EVER = float("inf")
_STARTS = 5  # how many starts in a row `stop` ends that nobody has asked for


def settle_if_dead(record: Record) -> None:
    """Record the end of a run whose supervisor was killed before it could; record a run that was lost."""
    runtime = store.runtime(record.id)
    if runtime is None and has_scope(record):
        runtime = _lost_runtime(record)
    if runtime is None or runtime.supervised():
        return
    if runtime.alive():
        kill_now(record, runtime)
    settle(record.id)


def frees(name: str) -> bool:
    """Record the end of the container of that name, if its supervisor was killed before it could.

    Whether the name is free now: a --rm container is removed at its end, perhaps by another command.
    """
    owner = owner_of(name)
    if owner is None:
        return True
    try:
        settle_if_dead(store.load(owner))
    except SysboxError:
        pass  # ignoring: if the name is taken still, that is what is said
    return owner_of(name) != owner


def settle_owners(spec: ContainerSpec) -> None:
    """`settle_if_dead` of the containers that have a port or an address which it asks for.

    Nobody may have looked at one since its supervisor was killed, as by a stop of the caller's service.
    """
    from sysbox.netns import taken  # few containers ask for one

    try:
        for owner in taken.owners(spec):
            settle_if_dead(store.load(owner))
    except SysboxError:
        pass  # ignoring: if it is taken still, the start says so


def _lost_runtime(record: Record) -> store.Runtime | None:
    """The run of a container whose state was lost; None where nothing runs, or the container is gone."""
    from sysbox.lifecycle import lost_state  # rarely needed

    try:
        with Lock(record.id):
            lost_state.record_again(record)
        return store.runtime(record.id)
    except NotFound:
        return None


class Stop:
    """The stop of a container, which is asked for; `end` waits for it. So several stop at the same time."""

    def __init__(self, record: Record, timeout: int | None, signal: int | None = None) -> None:
        """Send the stop signal, or `signal`; it has `timeout` seconds from now on (-1 is for ever)."""
        self._record = record
        self._signal = signal
        settle_if_dead(record)
        unit_file.note_stopped(record)
        # not with a given signal: the service has the monitor send the container's own stop signal
        self._by_systemd = signal is None and request_stop(record)
        self._runtime = runtime = _to_stop(record)
        if runtime is None and not self._by_systemd:
            self._by_systemd = end_start(record)
        patience = record.spec.stop_timeout if timeout is None else timeout
        self.deadline = _FOR_EVER if patience < 0 else time.monotonic() + patience  # on that clock
        if runtime is None or self._by_systemd:
            return  # the monitor sends the signal, and thaws
        exit_record.mark_stopped(record)
        signals.send(runtime, signals.stop_signal(record) if signal is None else signal)
        if is_frozen(probe(), runtime.cgroup):
            freezer.thaw(runtime.scope, runtime.cgroup, probe())

    def end(self) -> None:
        """Wait until it has ended; SIGKILL when the time is over."""
        record, runtime = self._record, self._runtime
        if runtime is None:
            if self._by_systemd:
                await_service(record, self._runs_again)
            return
        try:
            ended = self._runs_again() or await_end(record, self._left())
        except BaseException:
            self.give_up()
            raise
        if not ended:
            exit_record.mark_timed_out(record)
            kill_now(record, runtime)
        if not self._runs_again() and (
            self._by_systemd or (self._signal is not None and request_stop(record))
        ):
            await_service(record, self._runs_again)
        events.container("stop", record)

    def give_up(self) -> None:
        """Wait no more, as after ctrl-c: it goes on, and a reboot much later is none of a stop's."""
        exit_record.forget_stop(self._record)

    def _left(self) -> float | None:
        return None if self.deadline == _FOR_EVER else max(0.0, self.deadline - time.monotonic())

    def _runs_again(self) -> bool:
        """Whether somebody has started it meanwhile: that run is not the one to stop."""
        current = store.runtime(self._record.id)
        own = self._runtime.pid if self._runtime else 0
        return current is not None and current.pid not in (0, own)


def stop(record: Record, timeout: int | None, signal: int | None = None) -> None:
    """`sysbox stop` of one container, with the arguments of `Stop`."""
    Stop(record, timeout, signal).end()


def _to_stop(record: Record) -> store.Runtime | None:
    """The run that a stop ends; None if it does not run, and is not started again by itself."""
    for _ in range(_STARTS):
        runtime = store.await_start(record)
        if runtime is not None and runtime.alive():
            return runtime
        if runtime is not None and runtime.restarting:
            # who waits gives up, unless it was just about to start it
            end_wait(record)
        await_end(record, 0.0)  # not of a run that has begun since
        if not _is_to_reboot(record):
            break
    return None


def _is_to_reboot(record: Record) -> bool:
    """Whether somebody is about to start a container that has just rebooted; who comes later is not to."""
    from sysbox.run import again

    try:
        with Lock(record.id):
            if not again.is_wanted(record):
                return False
            if store.runtime(record.id) is not None:
                return True
            again.give_up(record)
    except NotFound:
        pass  # --rm: it was removed
    return False


def kill(record: Record, signal: int) -> None:
    """`sysbox kill`. Raises Conflict when it does not run."""
    runtime = store.runtime(record.id) if signal == 9 else store.await_start(record)
    if runtime is None and has_scope(record):
        runtime = _lost_runtime(record)
    if runtime is None or not runtime.alive():
        raise Conflict(f"container {record.name} is not running")
    if signal != 9 and is_frozen(probe(), runtime.cgroup):
        raise Conflict(
            f"container {record.name} is paused: it takes no signal but SIGKILL",
            hint=f"`sysbox unpause {record.name}` first; `sysbox stop` and `rm -f` work as it is",
        )
    by_systemd = False
    if unit_file.has_policy(record) and signal in (9, signals.stop_signal(record)):
        # a container that its user has killed is not started again
        unit_file.note_stopped(record)
        if signal == 9:
            # first: systemd begins with the stop signal, and the container might end by that
            signals.send(runtime, 9)
        by_systemd = request_stop(record)
    if signal == 9:
        kill_now(record, runtime)
        if by_systemd:
            await_service(record)
    elif not by_systemd:  # else the monitor sends it
        signals.send(runtime, signal)
    events.container("kill", record, signal=str(signal))


def pause(record: Record) -> None:
    """`sysbox pause`. Raises Conflict when it does not run, or is paused."""
    settle_if_dead(record)
    with Lock(record.id):  # a start in progress ends first
        runtime = _of_running(record)
        if is_frozen(probe(), runtime.cgroup):
            raise Conflict(f"container {record.name} is already paused")
        freezer.freeze(runtime.scope, runtime.cgroup, probe())
    events.container("pause", record)


def is_paused(record: Record) -> bool:
    """Whether it runs and is frozen."""
    runtime = store.runtime(record.id)
    return runtime is not None and runtime.alive() and is_frozen(probe(), runtime.cgroup)


def unpause(record: Record) -> None:
    """`sysbox unpause`. Raises Conflict when it does not run, or is not paused."""
    settle_if_dead(record)
    runtime = _of_running(record)
    if not is_frozen(probe(), runtime.cgroup):
        raise Conflict(f"container {record.name} is not paused")
    freezer.thaw(runtime.scope, runtime.cgroup, probe())
    events.container("unpause", record)


def _of_running(record: Record) -> store.Runtime:
    runtime = store.runtime(record.id)
    if runtime is None or not runtime.alive():
        raise Conflict(f"container {record.name} is not running")
    return runtime


def restart(record: Record, timeout: int | None, signal: int | None = None) -> None:
    """`sysbox restart`: stop it, if it runs, and start it detached.

    Raises Conflict, before it is stopped, where a container whose namespace it joins does not run any more.
    """
    from sysbox.run import planning

    planning.joins_of(record)
    if record.spec.remove:
        exit_record.mark_kept(record)
    stop(record, timeout, signal)
    try:
        background.start_detached(record)
    except BaseException:
        if record.spec.remove:
            removing(record, force=True, with_volumes=True)
        raise
    events.container("restart", record)


def remove(record: Record, *, force: bool, volumes: bool) -> None:
    """`sysbox rm`. Raises Conflict for a container that runs, without `force`."""
    settle_if_dead(record)
    removing(record, force=force, with_volumes=volumes)


def set_policy(record: Record, policy: RestartPolicy) -> bool:
    """`sysbox update --restart`; False if it takes effect at the next start only.

    Raises Conflict for a container with --rm.
    """
    if record.spec.unit:
        raise Conflict(
            f"container {record.name} is declared by {record.spec.unit}",
            hint=f"`systemctl edit {record.spec.unit}`: Restart= of [Service] decides",
        )
    with Lock(record.id):
        current = store.load(record.id)
        if current.spec.remove and policy.name != "no":
            raise Conflict(f"container {record.name} is removed when it stops (--rm)")
        changed = current.replace(spec=current.spec.replace(restart=policy))
        store.save(changed)
        at_once = change(changed)
    events.container("update", changed)
    return at_once


def rename(record: Record, name: str) -> None:
    """`sysbox rename`. Raises Conflict when the name is taken, and for a container that is declared."""
    if record.spec.unit:
        raise Conflict(
            f"container {record.name} is declared by {record.spec.unit}",
            hint="ContainerName= of [Container] in its declaration decides",
        )
    with Lock(record.id):
        renamed = store.rename(store.load(record.id), name)
        runtime = store.runtime(record.id)
        if runtime and runtime.alive() and any(one.dns for one in runtime.attachments()):
            from sysbox.run import resolver_units

            resolver_units.publish(renamed, runtime)
    events.container("rename", renamed, oldName=record.name)
