"""The state of a container: derived from its run and its end, never stored."""

from __future__ import annotations

from sysbox.container.records import (
    Record,
    Runtime,
    Status,
    await_exit,
)
from sysbox.container.store import final, runtime
from sysbox.host import exists, probe
from sysbox.linux.freezer import is_frozen
from sysbox.units import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.netns.attachment import Attachment
    from sysbox.spec import Port

HIERARCHY = "name=systemd"  # of the host's controllers: on cgroup v2 the unified one


def read_status(record: Record) -> Status:
    """The state now: by the first process, if it exists, else by how it ended. Raises FormatError."""
    running = runtime(record.id)
    if running is not None and running.started_ns and running.alive():
        # the kernel knows, whichever program has frozen the container
        state = "paused" if is_frozen(probe(), running.cgroup) else "running"
        return Status(state=state, pid=running.pid, started_at=running.started_ns / 1e9)
    if running is not None and running.started_ns and running.supervised():
        return await_exit(record, running, lambda: runtime(record.id)) or read_status(record)
    ended = final(record.id)
    if running is not None and ended is not None and ended.finished_ns < running.started_ns:
        ended = None  # the end of an earlier run
    if running is not None and running.restarting and running.supervised() and ended:
        return Status(
            state="restarting",
            exit_code=ended.exit_code,
            started_at=ended.started_ns / 1e9,
            finished_at=ended.finished_ns / 1e9,
        )
    if ended is None:
        if running is not None and running.started_ns:
            # the run has just ended, or its supervisor was killed: the end is not recorded yet
            return Status(state="dead", started_at=running.started_ns / 1e9)
        return Status(state="created")
    return Status(
        state="exited" if ended.started_ns else "created",
        exit_code=ended.exit_code,
        oom_killed=ended.oom_killed,
        error=ended.error,
        started_at=ended.started_ns / 1e9,
        finished_at=ended.finished_ns / 1e9 if ended.started_ns else 0.0,
        left=running is not None and _is_left(running),
    )


def _is_left(running: Runtime) -> bool:
    """Whether nobody forgets a run whose end is recorded, or begins the one that was waited for."""
    return bool(running.started_ns or running.restarting) and not running.supervised()


def has_scope(record: Record) -> bool:
    """Whether the cgroup of its scope exists: while it runs, and for a moment before and after."""
    scope = names.in_slice(record.spec.slice, names.scope_unit(record.id))
    return exists(f"{probe().controllers.get(HIERARCHY, '')}{scope}")


def read_networks(record: Record) -> tuple[tuple[Attachment, ...], tuple[Port, ...]]:
    """The container's ends of networks and its published ports, or its pod's; empty when it does not run."""
    running = runtime(record.id)
    if running is None or not running.alive():
        return (), ()
    if record.spec.pod and not running.networks:
        from sysbox.container import pods  # few containers are in one

        of_pod = pods.run_of(record.spec.pod)
        return (of_pod.networks, of_pod.ports) if of_pod else ((), ())
    return running.attachments(), running.ports
