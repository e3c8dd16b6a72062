"""Runs of which nothing is below /run: one that goes on is recorded anew, one that has ended gets its end."""

from __future__ import annotations

import posix
import time

from sysbox.base.errors import KernelError, SysboxError
from sysbox.container import store
from sysbox.container.status import HIERARCHY
from sysbox.host import probe, read_text
from sysbox.linux import cgroup, process
from sysbox.netns import leases, ports, topology
from sysbox.run import exit_record, planning
from sysbox.units import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record
    from sysbox.netns.attachment import Attachment
    from sysbox.spec import Port


def record_again(record: Record) -> bool:
    """Write the state of a run that has none; False where there is one, or no run.

    The kernel knows the processes, files beside the lost one the address and the ports. The caller holds the
    container's lock: it is not just being started. Raises SysboxError.
    """
    if store.runtime(record.id) is not None:
        return False
    unit = names.scope_unit(record.id)
    path = names.in_slice(record.spec.slice, unit)
    pid = _first_process(f"{probe().controllers.get(HIERARCHY, '')}{path}", record)
    start = process.start_time(pid) if pid else 0
    if not start:
        return False
    parent = int(_status(pid).get("PPid", "0"))
    supervisor = (
        parent if parent > 1 else 0
    )  # of a supervisor that was killed, PID 1 takes the children
    bridged = record.spec.namespaces.network == "bridge"
    attached = _attachments(record) if bridged else ()
    runtime = store.Runtime(
        pid=pid,
        start_time=start,
        supervisor=supervisor,
        supervisor_start=process.start_time(supervisor) if supervisor else 0,
        scope=unit,
        cgroup=path,
        started_ns=_moment_of(start),
        networks=attached,
        ports=_ports(record.id) if bridged else (),
    )
    store.write_runtime(record, runtime)
    return True


def record_end(record: Record) -> bool:
    """Record the end of a run that only the files of its start tell of, as after a power cut.

    False where there was none, or its end is recorded. The caller holds the container's lock, and the
    container does not run. Raises SysboxError.
    """
    begun, final = _begun(record), store.final(record.id)
    if not begun or (final is not None and begun <= max(final.started_ns, _ended(record))):
        return False
    store.write_final(record, exit_record.unseen(begun, "the host stopped, or /run was lost"))
    return True


def _begun(record: Record) -> int:
    """When it was started last, in nanoseconds since 1970; 0 where it never was.

    Each start makes these files anew. The container may have written to one of them since.
    """
    names = ("hosts", "hostname", "resolv.conf")
    try:
        return min(posix.stat(f"{record.directory}/{name}").st_mtime_ns for name in names)
    except FileNotFoundError:
        return 0


def _ended(record: Record) -> int:
    """When its last end was recorded: the clock may have been set during the run."""
    try:
        return posix.stat(f"{record.directory}/exit.json").st_mtime_ns
    except FileNotFoundError:
        return 0


def _first_process(directory: str, record: Record) -> int:
    """The container's first process: the oldest in its scope whose parent is not in it; 0 where none is.

    One that `exec` brought in may end after the first one: in a pid namespace of the container's own, the
    first one is its PID 1.
    """
    try:
        pids = cgroup.processes(directory)
    except KernelError as error:
        if error.errno in cgroup.GONE:
            return 0
        raise
    found = [(start, pid) for pid in pids if (start := process.start_time(pid))]
    for _, pid in sorted(found):
        status = _status(pid)
        if int(status.get("PPid", "0")) in pids:
            continue
        inside = status.get("NSpid", "").split()[-1:]
        return pid if record.spec.namespaces.pid != "private" or inside == ["1"] else 0
    return 0


def _status(pid: int) -> dict[str, str]:
    """The lines of /proc/PID/status (proc(5)); empty where the process has ended."""
    lines = (line.partition(":") for line in read_text(f"/proc/{pid}/status").splitlines())
    return {name: value.strip() for name, _, value in lines}


def _moment_of(start: int) -> int:
    """Nanoseconds since 1970, from clock ticks since boot."""
    ago = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return time.time_ns() - ago + start * 1_000_000_000 // posix.sysconf("SC_CLK_TCK")


def _ports(container_id: str) -> tuple[Port, ...]:
    # one that is published in both families has two entries
    return tuple(dict.fromkeys(one.port for one in ports.load() if one.id == container_id))


def _attachments(record: Record) -> tuple[Attachment, ...]:
    """Its ends of networks, as they are planned now, with the addresses that it has."""
    try:
        around = planning.networks_around(record.spec)
        plan = topology.plan_network(record.id, record.spec.replace(ports=()), *around)
        return tuple(
            one.replace(
                address=leases.all(one.network_id).get(record.id, ""),
                address6=leases.all(one.network_id, 6).get(record.id, "") if one.subnet6 else "",
            )
            for one in plan.attachments
        )
    except SysboxError:
        return ()  # ignoring: `inspect` shows no networks then
