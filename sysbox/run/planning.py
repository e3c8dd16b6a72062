"""The plan of one start, from a container's record: with what volumes and other containers add to it."""

from __future__ import annotations

import posix

from sysbox.base.errors import Conflict, SpecError
from sysbox.container import store
from sysbox.container.hostname import hostname_of
from sysbox.container.status import read_status
from sysbox.fs import volumes
from sysbox.plan import make_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record
    from sysbox.host import HostFacts
    from sysbox.image.model import Image
    from sysbox.plan import Plan
    from sysbox.spec import Namespaces


def plan_of(record: Record, image: Image, facts: HostFacts, service: str) -> Plan:
    """The plan of one start. Raises what make_plan raises, NotFound for a shared container that is gone."""
    spec = record.spec
    if spec.namespaces.uts == "private" and not spec.hostname:
        spec = spec.replace(hostname=hostname_of(record))
    return make_plan(
        record.id,
        spec,
        image,
        facts,
        directory=record.directory,
        volumes=volume_directories(record),
        fresh=fresh_volumes(record),
        joins=joins_of(spec.namespaces),
        service=service,
        tuned=record.tuned,
    )


def volume_directories(record: Record) -> dict[str, str]:
    """Where each volume mount's content is, by its target."""
    return {
        mount.target: volumes.directory(mount.source or record.anonymous_volumes[mount.target])
        for mount in record.spec.mounts
        if mount.kind == "volume"
    }


def fresh_volumes(record: Record) -> dict[str, str]:
    """The marks of those volumes that have never been mounted, by the target."""
    fresh = {
        mount.target: volumes.mark(name)
        for mount in record.spec.mounts
        if mount.kind == "volume"
        and volumes.is_new(name := mount.source or record.anonymous_volumes[mount.target])
    }
    if fresh:
        # before the fork: the child, which fills them, imports nothing
        import sysbox.fs.copyup  # noqa: F401
    return fresh


def joins_of(asked: Namespaces) -> dict[str, str]:
    """The paths of the namespaces that are another's. Raises Conflict when that container does not run."""
    joins: dict[str, str] = {}
    for kind in ("network", "pid", "ipc", "uts", "cgroup"):
        mode: str = getattr(asked, kind)
        if mode.startswith("ns:"):
            joins[kind] = mode[3:]
        elif mode.startswith("container:"):
            joins[kind] = f"/proc/{_running_pid(mode[10:])}/ns/{_FILES.get(kind, kind)}"
    if "pid" in joins:
        joins["proc"] = f"/proc/{_process_in(joins['pid'])}/ns/mnt"
    return joins


def _process_in(path: str) -> int:
    """A process in the pid namespace at a path: that of the path, else the first one there is.

    Raises SpecError when nothing runs there.
    """
    parts = path.split("/")
    if (
        len(parts) == 5
        and parts[1] == "proc"
        and parts[2].isdecimal()
        and parts[3:] == ["ns", "pid"]
    ):
        return int(parts[2])
    try:
        wanted = posix.stat(path).st_ino
    except OSError as error:
        raise SpecError(
            f"cannot join the pid namespace {path}: {posix.strerror(error.errno or 0)}"
        ) from None
    for name in sorted(filter(str.isdecimal, posix.listdir("/proc")), key=int):
        try:
            if posix.stat(f"/proc/{name}/ns/pid").st_ino == wanted:
                return int(name)
        except OSError:
            continue  # it has ended, or is a kernel thread
    raise SpecError(
        f"cannot join the pid namespace {path}: no process is in it",
        hint="a pid namespace ends with its first process",
    )


_FILES = {"network": "net"}


def _running_pid(container_id: str) -> int:
    other = store.find(container_id)
    status = read_status(other)
    if status.state not in ("running", "paused"):
        raise Conflict(
            f"container {other.name}, whose namespace it shares, is not running",
            hint=f"`sysbox start {other.name}`",
        )
    return status.pid
