"""What the verbs do with the containers of a pod: start, stop, restart, pause, unpause, kill."""

from __future__ import annotations

from sysbox.base.errors import Conflict
from sysbox.container import pods, store
from sysbox.lifecycle import control
from sysbox.lifecycle import run as starting
from sysbox.lifecycle.abreast import abreast
from sysbox.lifecycle.pod import id_of
from sysbox.run import pods as running
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record


def up(name: str) -> None:
    """Bring a pod up, without its containers. Raises SysboxError; it is down then."""
    with pods.Lock(name):
        running.bring_up(pods.load(name))


def start(name: str) -> None:
    """Bring a pod up, and start its containers. Raises SysboxError, that of the first that does not start."""
    up(name)
    members = [one for one in pods.records_of(name) if not one.spec.unit]
    abreast(members, lambda one: starting.start(one, attach=False, interactive=False))


def stop(name: str, timeout: int | None) -> None:
    """Stop its containers, all at once, and take it down. Raises Conflict where one is started."""
    abreast(pods.records_of(name), lambda one: control.stop(one, timeout))
    with pods.Lock(name):
        if left := running.running(name):
            raise Conflict(f"container {left[0][:12]} of pod {name} was started meanwhile")
        running.take_down(name, id_of(name))


def restart(name: str) -> None:
    """Stop its containers and start them again; of a declared pod systemd does so. Raises SysboxError."""
    unit = pods.load(name).unit
    if not unit:
        stop(name, None)
        start(name)
        return
    from sysbox.lifecycle import unit_jobs  # few pods are declared

    with Bus.connect() as bus:
        unit_jobs.restart(bus, unit)


def pause(name: str) -> None:
    """Freeze its containers, but those that are frozen. Raises Conflict where there is none to freeze."""
    found = _running(name)
    thawed = [one for one in found if not control.is_paused(one)]
    if not thawed:
        raise Conflict(f"all containers of pod {name} are already paused")
    abreast(thawed, control.pause)


def unpause(name: str) -> None:
    """Thaw its containers. Raises Conflict where none is frozen."""
    frozen = [one for one in _running(name) if control.is_paused(one)]
    if not frozen:
        raise Conflict(f"no container of pod {name} is paused")
    abreast(frozen, control.unpause)


def _running(name: str) -> list[Record]:
    """Its containers that run. Raises Conflict if none does."""
    found = [one for one in pods.records_of(name) if _runs(one)]
    if not found:
        raise Conflict(f"no container of pod {name} runs")
    return found


def kill(name: str, signal: int) -> None:
    """Send a signal to the first process of each of its containers. Raises Conflict if none runs."""
    found = _running(name)

    def kill_one(record: Record) -> None:
        try:
            control.kill(record, signal)
        except Conflict:
            if _runs(record):
                raise  # it has not just ended

    abreast(found, kill_one)


def _runs(record: Record) -> bool:
    run = store.runtime(record.id)
    return run is not None and run.alive()
