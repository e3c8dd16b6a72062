"""One directory per container: what was asked (the record), what is running, how it ended; and names.

On disk, below paths.CONTAINERS/<id>/: `record.json`, `exit.json` of the last run, `lock`. Below
paths.RUN_CONTAINERS/<id>/ (volatile): `state.json`, and `exit`, which the monitor writes. A name is a
symbolic link to the id, so that claiming it is one atomic call. Every file is replaced by rename.

A record whose name does not lead back to it is being made or being removed; if nobody holds its lock,
that was interrupted, and `sysbox gc` removes the rest.
"""

from __future__ import annotations

import posix
import time

from sysbox.base import codec
from sysbox.base.errors import Conflict, FormatError, KernelError, NotFound, Unsupported
from sysbox.base.files import (
    LIMIT,
    is_directory,
    make_private,
    read_file,
    remove_tree,
    write_file,
)
from sysbox.base.paths import CONTAINERS, NAMES, RUN_CONTAINERS
from sysbox.container import identity
from sysbox.container.identity import HEX, is_id
from sysbox.container.locks import Doorway, Lock, advice
from sysbox.container.names import is_stale, owner_of, release_name, take_name
from sysbox.container.records import Final as Final
from sysbox.container.records import Record as Record
from sysbox.container.records import Runtime as Runtime
from sysbox.container.records import Status as Status
from sysbox.container.records import Usage as Usage
from sysbox.container.records import fitting, from_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


_DRAFT = ".new-"  # the directory of a container before it is one
_STATE_LIMIT = (
    4 * LIMIT
)  # a port that is published is longer here, by its address and number of the host


def prepare() -> None:
    """Make the directories; nobody but root may look into them (CVE-2021-41091)."""
    for path in (CONTAINERS, NAMES, RUN_CONTAINERS):
        if not is_directory(path):
            make_private(path)


def claim(record: Record, fill: Callable[[Record], None]) -> tuple[Record, Lock]:
    """Make the container's directory and take its name; the lock is held by the caller.

    `fill` makes what belongs to it. A record without a name gets a free one. Raises Conflict when the name
    is taken; nothing is left then but what `fill` made elsewhere.
    """
    fitting(record)
    prepare()
    # it appears with its lock held, so that `gc` cannot take it for something left behind
    draft = f"{CONTAINERS}/{_DRAFT}{record.id}"
    with Doorway():
        posix.mkdir(draft, 0o700)
        try:
            lock = Lock(f"{_DRAFT}{record.id}", create=True)
            posix.rename(draft, record.directory)
        except BaseException:
            remove_tree(draft)
            raise
    try:
        for attempt in range(100):
            name = record.name or identity.random_name() + (f"_{attempt}" if attempt > 3 else "")
            named = record.replace(name=name, spec=record.spec.replace(name=name))
            # the record first: a name must never lead to nothing
            save(named)
            if not attempt:
                # between the two: what has a name is complete, what is interrupted is known
                fill(named)
            if take_name(name, record.id):
                return named, lock
            if record.name:
                break
        owner = owner_of(name) or ""
        raise Conflict(
            f"the name '{name}' is in use by container {owner[:12]}",
            hint=f"remove it (`sysbox rm {name}`), rename it, or choose another name",
        )
    except BaseException:
        discard(record.id)
        lock.release()
        raise


def load(container_id: str) -> Record:
    """The record of a full id. Raises NotFound, FormatError."""
    data = read_file(f"{CONTAINERS}/{container_id}/record.json")
    if data is None:
        raise NotFound(f"no such container: {container_id[:12]}")
    where = f"the record of container {container_id[:12]}"
    try:
        record = from_file(data, where)
    except (ValueError, FormatError) as error:
        raise FormatError(f"{error}", hint=advice(container_id)) from None
    if record.id != container_id:
        raise FormatError(f"{where} names another container: {record.id[:12]}")
    return record


def ids() -> list[str]:
    """All full ids there are, readable or not."""
    try:
        return [name for name in posix.listdir(CONTAINERS) if is_id(name)]
    except FileNotFoundError:
        return []


def discard_drafts() -> list[str]:
    """Remove what was to become a container when its maker was killed; the ids."""
    left = _sweep(CONTAINERS, lambda name: name.startswith(_DRAFT))
    return [name.removeprefix(_DRAFT) for name in left]


def free_stale_names() -> list[str]:
    """Free all names that lead to no container; these."""
    return _sweep(NAMES, is_stale)


def forget_stale_runs() -> list[str]:
    """Forget the runs of containers that there are no more; their ids."""
    return _sweep(RUN_CONTAINERS, lambda name: not is_directory(f"{CONTAINERS}/{name}"))


def _sweep(directory: str, is_left: Callable[[str], bool]) -> list[str]:
    """Remove what nobody comes back for; nothing while somebody adds or removes a container."""
    try:
        with Doorway(alone=True, wait=False):
            left = [name for name in posix.listdir(directory) if is_left(name)]
            _remove_all(f"{directory}/{name}" for name in left)
    except (Conflict, FileNotFoundError, NotFound):
        return []
    return left


def _remove_all(paths: Iterable[str]) -> None:
    """Raises the first error, after all the others have been removed."""
    failed: list[KernelError] = []
    for path in paths:
        try:
            remove_tree(path)
        except KernelError as error:
            failed.append(error)
    if failed:
        raise failed[0]


def resolve(text: str) -> str:
    """The full id of a name, an id or a unique prefix of one. Raises NotFound, Conflict."""
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
    raise NotFound(f"no such container: {text}", hint="`sysbox ps -a` lists them")


def find(text: str) -> Record:
    """The record of a name, an id or a unique prefix. Raises NotFound, Conflict, FormatError."""
    container_id = resolve(text)
    try:
        return load(container_id)
    except NotFound:
        raise NotFound(f"no such container: {text}", hint="`sysbox ps -a` lists them") from None


def all_records() -> list[Record]:
    """Every readable record, newest first; those being made, removed or damaged are left out."""
    records = []
    for container_id in ids():
        try:
            record = load(container_id)
        except (NotFound, FormatError):
            continue
        if owner_of(record.name) == container_id:
            records.append(record)
    records.sort(key=lambda one: one.created_ns, reverse=True)
    return records


def save(record: Record) -> None:
    """Write the record down. Raises SpecError for one that is too large. The caller holds the lock."""
    write_file(f"{record.directory}/record.json", fitting(record))


def rename(record: Record, name: str) -> Record:
    """Give it another name. Raises Conflict. The caller holds the lock."""
    renamed = record.replace(name=name, spec=record.spec.replace(name=name))
    fitting(renamed)  # before the name is taken, which would stay so
    if not take_name(name, record.id):
        raise Conflict(f"the name '{name}' is in use by container {(owner_of(name) or '')[:12]}")
    save(renamed)
    release_name(record.name, record.id)
    return renamed


def discard(container_id: str) -> None:
    """Remove the container's directories from disk, its lock among them. The caller holds that."""
    with Doorway():
        for path in (f"{RUN_CONTAINERS}/{container_id}", f"{CONTAINERS}/{container_id}"):
            remove_tree(path)


def write_runtime(record: Record, runtime: Runtime) -> None:
    make_private(record.run_directory)
    _put(f"{record.run_directory}/state.json", codec.dumps(runtime.to_data()), _STATE_LIMIT)


def remove_run(record: Record) -> None:
    """Forget the run that is over."""
    remove_tree(record.run_directory)


def runtime(container_id: str) -> Runtime | None:
    """The run that is going on, or whose end was not recorded. Raises FormatError."""
    data = read_file(f"{RUN_CONTAINERS}/{container_id}/state.json", _STATE_LIMIT)
    if data is None:
        return None
    where = f"the state of container {container_id[:12]}"
    found: Runtime = _parse(Runtime, data, where, container_id)
    unit = f"docker-{container_id}.scope"
    # what it names is killed and removed
    if found.scope != unit or found.cgroup.rpartition("/")[2] not in ("", unit):
        raise FormatError(f"{where} names another unit: {found.scope}", hint=advice(container_id))
    return found


def started(record: Record) -> Runtime | None:
    """Its run, once a start that goes on has come to its end; None where the container is gone.

    Until then its first process may have the host's root, and what is to end it would be lost on it. The
    caller does not hold the lock. Raises FormatError.
    """
    try:
        with Lock(record.id):
            return runtime(record.id)
    except NotFound:
        return None


def write_final(record: Record, final: Final) -> None:
    _put(f"{record.directory}/exit.json", codec.dumps(final.to_data()))


def final(container_id: str) -> Final | None:
    """How the last run ended. Raises FormatError."""
    data = read_file(f"{CONTAINERS}/{container_id}/exit.json")
    return (
        None
        if data is None
        else _parse(Final, data, f"the end of container {container_id[:12]}", container_id)
    )


def _parse(kind: Any, data: bytes, where: str, container_id: str) -> Any:
    try:
        return kind.from_data(codec.loads(data, where), where)
    except (ValueError, FormatError) as error:
        raise FormatError(f"{error}", hint=advice(container_id)) from None


def _put(path: str, data: bytes, limit: int = LIMIT) -> None:
    """Replace a file, or whatever is in its place below a directory of ours."""
    if is_directory(path):
        remove_tree(path)
    write_file(path, data, limit=limit)


def now_ns() -> int:
    return time.time_ns()
