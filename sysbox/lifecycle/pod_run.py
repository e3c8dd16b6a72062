"""Bring pods up with their containers, and take them down: what the verbs start, stop and kill do."""

from __future__ import annotations

from sysbox.base.errors import Conflict
from sysbox.container import pods, store
from sysbox.lifecycle import control
from sysbox.lifecycle import run as starting
from sysbox.lifecycle.abreast import abreast
from sysbox.lifecycle.pod import id_of
from sysbox.run import pods as running

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


def kill(name: str, signal: int) -> None:
    """Send a signal to the first process of each of its containers. Raises Conflict if none runs."""
    found = [one for one in pods.records_of(name) if _runs(one)]
    if not found:
        raise Conflict(f"no container of pod {name} runs")

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
