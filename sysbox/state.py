"""One directory per container: what was asked (the record), what is running, how it ended; and names.

On disk, below paths.CONTAINERS/<id>/: `record.json`, `exit.json` of the last run, `lock`. Below
paths.RUN_CONTAINERS/<id>/ (volatile): `state.json`, and `exit`, which the monitor writes. A name is a
symbolic link to the id, so that claiming it is one atomic call. Every file is replaced by rename.

A record whose name does not lead back to it is being made or being removed; if nobody holds its lock,
that was interrupted, and `sysbox gc` removes the rest.
"""

from __future__ import annotations

import errno
import fcntl
import posix
import time

from sysbox import codec, naming
from sysbox.errors import Conflict, FormatError, KernelError, NotFound, Unsupported
from sysbox.files import (
    NOT_THERE,
    is_directory,
    make_private,
    read_file,
    remove_tree,
    unlink,
    write_file,
)
from sysbox.host import probe
from sysbox.linux.freezer import frozen
from sysbox.paths import CONTAINERS, NAMES, RUN_CONTAINERS
from sysbox.records import Final as Final
from sysbox.records import Record as Record
from sysbox.records import Runtime as Runtime
from sysbox.records import Status as Status
from sysbox.records import Usage as Usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from sysbox.spec import Port

DRAFT = ".new-"  # the directory of a container before it is one
_NO_FILE = (
    errno.EISDIR,
    errno.ELOOP,
    errno.ENXIO,
)  # a directory, a link, a socket in a file's place
_HEX = frozenset("0123456789abcdef")


class Lock:
    """An exclusive flock on a container; held while anything about it is being changed.

    Its file is made with the container and by `gc` alone: in a directory that is just being removed it
    would be in the way. Raises NotFound, and Conflict without `wait`.
    """

    def __init__(self, container_id: str, *, wait: bool = True, create: bool = False) -> None:
        path = f"{CONTAINERS}/{container_id}/lock"
        flags = posix.O_RDWR | posix.O_CLOEXEC | posix.O_NOFOLLOW
        flags |= posix.O_CREAT if create else 0
        try:
            self._fd = posix.open(path, flags, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"no such container: {container_id[:12]}") from None
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise KernelError.of("open", path, error) from None
            raise FormatError(
                f"the lock of container {container_id[:12]}: {error.strerror}",
                hint=_advice(container_id),
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            posix.close(self._fd)
            raise Conflict(f"container {container_id[:12]} is in use by another command") from None

    def release(self) -> None:
        # unlocked by name: a child that was forked meanwhile has a copy of the descriptor
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        posix.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


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
    prepare()
    # it appears with its lock held, so that `gc` cannot take it for something left behind
    draft = f"{CONTAINERS}/{DRAFT}{record.id}"
    posix.mkdir(draft, 0o700)
    lock = Lock(f"{DRAFT}{record.id}", create=True)
    posix.rename(draft, record.directory)
    try:
        for attempt in range(100):
            name = record.name or naming.random_name() + (f"_{attempt}" if attempt > 3 else "")
            named = record.replace(name=name, spec=record.spec.replace(name=name))
            # the record first: a name must never lead to nothing
            save(named)
            if not attempt:
                # between the two: what has a name is complete, what is interrupted is known
                fill(named)
            if _take_name(name, record.id):
                return named, lock
            if record.name:
                break
        owner = _name_owner(name) or ""
        raise Conflict(
            f"the name '{name}' is in use by container {owner[:12]}",
            hint=f"remove it (`sysbox rm {name}`), rename it, or choose another name",
        )
    except BaseException:
        discard(record.id)
        lock.release()
        raise


def _take_name(name: str, container_id: str) -> bool:
    path = f"{NAMES}/{name}"
    for _ in range(3):
        try:
            posix.symlink(container_id, path)
            return True
        except FileExistsError:
            owner = _name_owner(name)
            if owner and is_directory(f"{CONTAINERS}/{owner}"):
                return False
            # what a removal that was interrupted left behind, or nothing of ours
            remove_tree(path)
    return False


def _name_owner(name: str) -> str | None:
    try:
        owner = posix.readlink(f"{NAMES}/{name}")
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise KernelError.of("read the name", name, error) from None
    return owner if is_id(owner) else None


def is_id(text: str) -> bool:
    """Whether it is a full container id; asked before a string touches a path."""
    return len(text) == 64 and _HEX.issuperset(text)


def load(container_id: str) -> Record:
    """The record of a full id. Raises NotFound, FormatError."""
    data = read_file(f"{CONTAINERS}/{container_id}/record.json")
    if data is None:
        raise NotFound(f"no such container: {container_id[:12]}")
    where = f"the record of container {container_id[:12]}"
    try:
        record = Record.from_data(codec.loads(data, where), where)
    except (ValueError, FormatError) as error:
        raise FormatError(f"{error}", hint=_advice(container_id)) from None
    if record.id != container_id:
        raise FormatError(f"{where} names another container: {record.id[:12]}")
    return record


def ids() -> list[str]:
    """All full ids there are, readable or not."""
    try:
        return [name for name in posix.listdir(CONTAINERS) if is_id(name)]
    except FileNotFoundError:
        return []


def drafts() -> list[str]:
    """Directories that were to become containers."""
    try:
        return [name for name in posix.listdir(CONTAINERS) if name.startswith(DRAFT)]
    except FileNotFoundError:
        return []


def resolve(text: str) -> str:
    """The full id of a name, an id or a unique prefix of one. Raises NotFound, Conflict."""
    if text and "/" not in text and (owner := _name_owner(text)):
        return owner
    if is_id(text):
        return text
    if text and _HEX.issuperset(text):
        found = [one for one in ids() if one.startswith(text)]
        if len(found) == 1:
            return found[0]
        if found:
            raise Conflict(
                f"'{text}' is the beginning of {len(found)} container ids",
                hint="give more of it: " + ", ".join(one[:12] for one in sorted(found)[:4]),
            )
    if posix.geteuid() != 0:
        raise Unsupported("containers are root's", hint="run it with sudo")
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
        if _name_owner(record.name) == container_id:
            records.append(record)
    records.sort(key=lambda one: one.created_ns, reverse=True)
    return records


def save(record: Record) -> None:
    """Write the record down. The caller holds the lock."""
    write_file(f"{record.directory}/record.json", codec.dumps(record.to_data()))


def rename(record: Record, name: str) -> Record:
    """Give it another name. Raises Conflict. The caller holds the lock."""
    if not _take_name(name, record.id):
        raise Conflict(f"the name '{name}' is in use by container {(_name_owner(name) or '')[:12]}")
    renamed = record.replace(name=name, spec=record.spec.replace(name=name))
    save(renamed)
    release_name(record.name, record.id)
    return renamed


def release_name(name: str, container_id: str) -> None:
    """Free a name if it leads to this container."""
    if _name_owner(name) == container_id:
        unlink(f"{NAMES}/{name}")


def named(record: Record) -> bool:
    """Whether the record's name leads back to it: false while it is being made or removed."""
    return _name_owner(record.name) == record.id


def names() -> dict[str, str]:
    """Every name that is taken, and the id it leads to ("" where that is not one)."""
    try:
        return {name: _name_owner(name) or "" for name in posix.listdir(NAMES)}
    except FileNotFoundError:
        return {}


def discard(container_id: str) -> None:
    """Remove the container's directories from disk."""
    for path in (f"{RUN_CONTAINERS}/{container_id}", f"{CONTAINERS}/{container_id}"):
        remove_tree(path)


def write_runtime(record: Record, runtime: Runtime) -> None:
    make_private(record.run_directory)
    _put(f"{record.run_directory}/state.json", codec.dumps(runtime.to_data()))


def remove_run(record: Record) -> None:
    """Forget the run that is over."""
    remove_tree(record.run_directory)


def runtime(container_id: str) -> Runtime | None:
    """The run that is going on, or whose end was not recorded. Raises FormatError."""
    data = read_file(f"{RUN_CONTAINERS}/{container_id}/state.json")
    if data is None:
        return None
    where = f"the state of container {container_id[:12]}"
    found: Runtime = _parse(Runtime, data, where, container_id)
    unit = f"docker-{container_id}.scope"
    # what it names is killed and removed
    if found.scope != unit or found.cgroup.rpartition("/")[2] not in ("", unit):
        raise FormatError(f"{where} names another unit: {found.scope}", hint=_advice(container_id))
    return found


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
        raise FormatError(f"{error}", hint=_advice(container_id)) from None


def _advice(container_id: str) -> str:
    return f"`sysbox rm -f {container_id[:12]}` removes it"


def _put(path: str, data: bytes) -> None:
    """Replace a file, or whatever is in its place below a directory of ours."""
    if is_directory(path):
        remove_tree(path)
    write_file(path, data)


def status(record: Record) -> Status:
    """The truth now: whether its first process is there, else how it ended. Raises FormatError."""
    running = runtime(record.id)
    if running is not None and running.started_ns and running.alive():
        # asked of the kernel: whoever has frozen it, it is
        state = "paused" if frozen(probe(), running.cgroup) else "running"
        return Status(state=state, pid=running.pid, started_at=running.started_ns / 1e9)
    ended = final(record.id)
    if running is not None and running.restarting and running.supervised() and ended:
        return Status(
            state="restarting", exit_code=ended.exit_code, finished_at=ended.finished_ns / 1e9
        )
    if ended is None:
        if running is not None and running.started_ns:
            # it has just ended, or its supervisor was killed: nobody has recorded it yet
            return Status(state="dead", started_at=running.started_ns / 1e9)
        return Status(state="created")
    return Status(
        state="exited" if ended.started_ns else "created",
        exit_code=ended.exit_code,
        oom_killed=ended.oom_killed,
        error=ended.error,
        started_at=ended.started_ns / 1e9,
        finished_at=ended.finished_ns / 1e9 if ended.started_ns else 0.0,
    )


def network(record: Record) -> tuple[str, str, tuple[Port, ...]]:
    """Address, MAC and published ports; empty when it does not run."""
    running = runtime(record.id)
    if running is None or not running.alive():
        return "", "", ()
    return running.address, running.mac, running.ports


def now_ns() -> int:
    return time.time_ns()
