"""One directory per container: its record, its current run, how the last one ended; and names.

On disk, below paths.CONTAINERS/<id>/: `record.json`, `exit.json` of the last run, `lock`. Below
paths.RUN_CONTAINERS/<id>/ (volatile): `state.json`, and `exit`, which the monitor writes. A name is a
symbolic link to the id, so that claiming it is one atomic call. Every file is replaced by rename.

A container whose name does not lead to its id is being made or removed; if no process holds its lock, that
was interrupted, and `sysbox gc` removes the rest.
"""

from __future__ import annotations

import posix
import time

from sysbox.base import codec
from sysbox.base.errors import Conflict, FormatError, Gone, NotFound, Outrun, Unsupported
from sysbox.base.files import (
    LIMIT,
    is_directory,
    make_private,
    read_file,
    remove_tree,
    sync_directory,
    write_file,
)
from sysbox.base.paths import CONTAINERS, NAMES, RUN_CONTAINERS
from sysbox.container import identity
from sysbox.container.identity import HEX, is_id
from sysbox.container.locks import ContainersLock, Lock, advice
from sysbox.container.names import owner_of, release_name, take_name
from sysbox.container.records import Final as Final
from sysbox.container.records import Record as Record
from sysbox.container.records import Runtime as Runtime
from sysbox.container.records import Status as Status
from sysbox.container.records import Usage as Usage
from sysbox.container.records import from_file, to_checked_file
from sysbox.host import exists
from sysbox.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


DRAFT = ".new-"  # before the id: a container's directory until its lock is held
# bytes; a published port takes more than in the record, with its address and port of the host
_STATE_LIMIT = 4 * LIMIT


def prepare() -> None:
    """Make the directories; only root may read or enter them (CVE-2021-41091)."""
    for path in (CONTAINERS, NAMES, RUN_CONTAINERS):
        if not is_directory(path):
            make_private(path)


def claim(record: Record, fill: Callable[[Record], None]) -> tuple[Record, Lock]:
    """Make the container's directory and take its name; the caller then holds its lock.

    `fill` makes the other files of the container. A record without a name gets a free one. Raises Conflict
    when the name is taken, and SpecError; nothing is left then but what `fill` made elsewhere.
    """
    to_checked_file(record)
    prepare()
    lock = _appear(record)
    try:
        if not record.spec.remove:
            sync_directory(CONTAINERS)
        for attempt in range(100):
            name = record.name or identity.random_name() + (f"_{attempt}" if attempt > 3 else "")
            named = record.replace(name=name, spec=record.spec.replace(name=name))
            # the record first: a name must never lead to nothing
            save(named)
            if not attempt:
                # before the name: a container with a name is complete, and gc knows an interrupted one
                fill(named)
            if take_name(name, record.id):
                return named, lock
            if record.name:
                break
        raise taken(name)
    except BaseException:
        discard(record.id)
        lock.release()
        raise


def taken(name: str) -> Outrun:
    """The error for a name that a container has; of a declared one it names the service."""
    owner = owner_of(name) or ""
    try:
        unit = load(owner).spec.unit if owner else ""
    except (FormatError, NotFound):
        unit = ""  # ignoring: the container goes, or is damaged
    if unit:
        return Outrun(
            f"the name '{name}' is in use by the container of {unit}",
            hint=f"`systemctl stop {unit}` frees it; ContainerName= of [Container] gives it another",
        )
    return Outrun(
        f"the name '{name}' is in use by container {owner[:12]}",
        hint=f"remove it (`sysbox rm {name}`, or `run --replace`), rename it, or choose another name",
    )


def _appear(record: Record) -> Lock:
    """Make a container's directory; its lock is held before it has its final name, so that `gc` never takes
    it for an interrupted one.
    """
    draft = f"{CONTAINERS}/{DRAFT}{record.id}"
    with ContainersLock():
        posix.mkdir(draft, 0o700)
        try:
            lock = Lock(f"{DRAFT}{record.id}", create=True)
            posix.rename(draft, record.directory)
        except BaseException:
            remove_tree(draft)
            raise
    return lock


def load(container_id: str) -> Record:
    """The record of a full id. Raises NotFound, FormatError."""
    where = f"the record of container {container_id[:12]}"
    try:
        data = read_file(f"{CONTAINERS}/{container_id}/record.json") or _not_lost(container_id)
        record = from_file(data, where)
        if record.id != container_id:
            raise FormatError(f"{where} names another container: {record.id[:12]}")
    except (ValueError, FormatError) as error:
        raise FormatError(f"{error}", hint=advice(container_id)) from None
    return record


def _not_lost(container_id: str) -> bytes:
    """The content of a record.json that was missing or empty: it may just have been written.

    Raises NotFound where there is none, and FormatError where a run shows that the record was lost: a run
    begins after the record was written, and is removed before it. An empty one is what a power cut leaves of
    a container with --rm, whose record is not synced, and which has no recorded end.
    """
    begun = exists(f"{RUN_CONTAINERS}/{container_id}/state.json")
    data = read_file(f"{CONTAINERS}/{container_id}/record.json")
    if data or (data is not None and exists(f"{CONTAINERS}/{container_id}/exit.json")):
        return data
    if begun:
        raise FormatError(f"the record of container {container_id[:12]} is missing")
    raise Gone(container_id)


def ids() -> list[str]:
    """The full ids of all containers, even of those with a damaged record."""
    try:
        return [name for name in posix.listdir(CONTAINERS) if is_id(name)]
    except FileNotFoundError:
        return []


def resolve(text: str) -> str:
    """The full id of a name, an id or a unique prefix of one.

    Raises NotFound, Conflict; Unsupported unless the caller is root.
    """
    if text and "/" not in text and (owner := owner_of(text)):
        return owner
    if is_id(text):
        return text
    if text and HEX.issuperset(text):
        found = [one for one in ids() if one.startswith(text)]
        if len(found) == 1:
            return found[0]
        if found:
            raise Conflict(
                f"'{text}' is the beginning of {len(found)} container ids",
                hint="give more of it: " + ", ".join(one[:12] for one in sorted(found)[:4]),
            )
    if posix.geteuid() != 0:
        raise Unsupported("only root can see containers", hint="run it with sudo")
    raise _not_found(text)


def _not_found(text: str) -> NotFound:
    from sysbox.units.declares import hint  # only for those who look for one that is not there

    return NotFound(f"no such container: {text}", hint=hint(text, "`sysbox ps -a` lists them"))


def find(text: str) -> Record:
    """The record of a name, an id or a unique prefix. Raises NotFound, Conflict, FormatError."""
    container_id = resolve(text)
    try:
        return load(container_id)
    except NotFound:
        raise _not_found(text) from None


def all_records(damaged: Callable[[FormatError], object] | None = None) -> list[Record]:
    """All records, newest first, without containers that are being made or removed.

    `damaged` is called with the error of each record that cannot be read.
    """
    records = []
    for container_id in ids():
        try:
            record = _named(load(container_id))
        except NotFound:
            continue
        except FormatError as error:
            if damaged:
                damaged(error)
            continue
        records.append(record)
    records.sort(key=lambda one: one.created_ns, reverse=True)
    return records


def is_named(record: Record) -> bool:
    """Whether the container's name, or the one that it has got since, leads to its id: false while it is
    being made or removed.
    """
    try:
        _named(record)
    except (FormatError, NotFound):
        return False
    return True


def _named(record: Record) -> Record:
    """The record; where the container was renamed since, as it is now.

    Of a container that is being made or removed no name leads to the id. But a rename frees the name that
    was read a moment ago: a container that seems to have none would be hidden, and what it needs removed.
    Raises NotFound, FormatError.
    """
    while owner_of(record.name) != record.id:
        now = load(record.id)
        if now.name == record.name:
            raise NotFound(f"no such container: {record.name}")
        record = now
    return record


def save(record: Record) -> None:
    """Write the record, so that it survives a power cut (except with --rm, where it need not).

    Raises SpecError for one that is too large. The caller holds the lock.
    """
    path, durable = f"{record.directory}/record.json", not record.spec.remove
    write_file(path, to_checked_file(record), durable=durable)


def rename(record: Record, name: str) -> Record:
    """Give a container another name. Raises Conflict, SpecError. The caller holds the lock."""
    renamed = record.replace(name=name, spec=record.spec.replace(name=name))
    to_checked_file(renamed)  # checked before the name is taken: it would stay taken
    if not take_name(name, record.id):
        raise taken(name)
    save(renamed)
    release_name(record.name, record.id)
    return renamed


def discard(container_id: str) -> None:
    """Remove the container's directories, its lock among them, which the caller holds."""
    with ContainersLock() as containers:
        # the run first: where there is one without a record, the record was lost
        remove_tree(f"{RUN_CONTAINERS}/{container_id}")
        containers.remove(container_id)


def write_runtime(record: Record, runtime: Runtime) -> None:
    """Write the current run. Raises FormatError where it is too large, KernelError."""
    make_private(record.run_directory)
    runtime = runtime.replace(pid_namespace=process.pid_namespace())
    _put(f"{record.run_directory}/state.json", codec.dumps(runtime.to_data()), _STATE_LIMIT)


def remove_run(record: Record) -> None:
    """Remove the files of a run that is over."""
    remove_tree(record.run_directory)


def runtime(container_id: str) -> Runtime | None:
    """The current run, or one whose end was not recorded; None without one.

    Raises FormatError, and Unsupported in another pid namespace than that of its supervisor: there its
    processes seem to be gone, and what is gone is cleaned up.
    """
    data = _read(f"{RUN_CONTAINERS}/{container_id}/state.json", container_id, _STATE_LIMIT)
    if data is None:
        return None
    where = f"the state of container {container_id[:12]}"
    found: Runtime = _parse(Runtime, data, where, container_id)
    unit = f"docker-{container_id}.scope"
    # checked, as the scope and cgroup that it names are killed and removed
    if found.scope != unit or found.cgroup.rpartition("/")[2] not in ("", unit):
        raise FormatError(f"{where} names another unit: {found.scope}", hint=advice(container_id))
    if found.pid_namespace not in (0, process.pid_namespace()):
        raise Unsupported(
            f"container {container_id[:12]} was started in another pid namespace than this one",
            hint="run sysbox where its containers run, not below `unshare --pid` or in a container",
        )
    return found


def await_start(record: Record) -> Runtime | None:
    """Wait for a start in progress, then return the run; None where there is none, or no container.

    During a start the first process may have the host's root, and a signal to it would be lost. The caller
    does not hold the lock. Raises FormatError.
    """
    try:
        with Lock(record.id):
            return runtime(record.id)
    except NotFound:
        return None


def write_final(record: Record, final: Final) -> None:
    """Write how the last run ended; it survives a power cut, except with --rm. Raises KernelError."""
    durable = not record.spec.remove
    _put(f"{record.directory}/exit.json", codec.dumps(final.to_data()), durable=durable)


def final(container_id: str) -> Final | None:
    """How the last run ended; None before the first end. Raises FormatError."""
    data = _read(f"{CONTAINERS}/{container_id}/exit.json", container_id)
    return (
        None
        if data is None
        else _parse(Final, data, f"the end of container {container_id[:12]}", container_id)
    )


def _read(path: str, container_id: str, limit: int = LIMIT) -> bytes | None:
    try:
        return read_file(path, limit)
    except FormatError as error:
        raise FormatError(f"{error}", hint=advice(container_id)) from None


def _parse(kind: Any, data: bytes, where: str, container_id: str) -> Any:
    try:
        return kind.from_data(codec.loads(data, where), where)
    except (ValueError, FormatError) as error:
        raise FormatError(f"{error}", hint=advice(container_id)) from None


def _put(path: str, data: bytes, limit: int = LIMIT, *, durable: bool = False) -> None:
    """Replace a file of sysbox's, even if a directory has its name."""
    if is_directory(path):
        remove_tree(path)
    write_file(path, data, limit=limit, durable=durable)


def now_ns() -> int:
    """The time in nanoseconds since 1970."""
    return time.time_ns()
