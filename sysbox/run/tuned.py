"""What others set on a container's scope with `systemctl set-property`: read, and kept in its record.

systemd writes such a change of a transient unit below /run/systemd/transient, and removes it with the
unit. A service that supervises a container keeps the unit loaded until its end has been recorded (see
run/service.py); in the foreground the directory is watched, since nothing else keeps the unit.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import SysboxError
from sysbox.base.files import read_file
from sysbox.base.frozen import Frozen
from sysbox.container import store
from sysbox.host import probe
from sysbox.linux import inotify
from sysbox.units import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.container.store import Record
    from sysbox.host import HostFacts
    from sysbox.units.limits.properties import Property

TRANSIENT = "/run/systemd/transient"


class DropIn(Frozen):
    """One file that `set-property` made."""

    path: str
    changed: float  # seconds since the epoch
    text: str


def directory(container_id: str) -> str:
    """Where systemd puts what is changed of a container's scope."""
    return f"{TRANSIENT}/{names.scope_unit(container_id)}.d"


def drop_ins(container_id: str) -> tuple[DropIn, ...]:
    """What others, and `update`, have changed of its scope since it was started, the oldest first."""
    where = directory(container_id)
    try:
        files = sorted(name for name in posix.listdir(where) if name.endswith(".conf"))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    found = []
    for name in files:
        path = f"{where}/{name}"
        try:
            data = read_file(path)
            changed = posix.stat(path).st_mtime
        except (SysboxError, FileNotFoundError):
            continue  # systemd is removing them
        text = (data or b"").decode("utf-8", "surrogateescape")
        found.append(DropIn(path=path, changed=changed, text=text))
    # of two in one call in the order of their names: an old name counts less than the new one
    return tuple(sorted(found, key=lambda one: one.changed))


def collect(
    record: Record, facts: HostFacts | None = None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """(what others have set, as the record's `tuned`; the keys of what they set that is not kept)."""
    found = drop_ins(record.id)
    if not found:
        return record.tuned, ()
    from sysbox.units.limits import dropins  # a table that only a container that was tuned needs

    facts = facts or probe()
    merged = dropins.merge(one.text for one in found)
    defaults = host_defaults(tuple(dropins.HOST_DEFAULTS)) if "TasksMax" in merged else {}
    return dropins.sort_out(merged, requested(record, facts), record.tuned, facts, defaults)


def host_defaults(wanted: tuple[str, ...]) -> dict[str, Any]:
    """What systemd gives a scope that asks for none of these; empty when it cannot be asked."""
    from sysbox.units.bus import MANAGER, MANAGER_PATH, PROPERTIES, Bus
    from sysbox.units.limits.dropins import HOST_DEFAULTS

    found: dict[str, Any] = {}
    if not wanted:
        return found
    try:
        with Bus.connect() as bus:
            for name in wanted:
                args = (MANAGER, HOST_DEFAULTS[name])
                (found[name],) = bus.call(MANAGER_PATH, PROPERTIES, "Get", "ss", args)
    except SysboxError:
        pass  # ignoring: systemd is on its way down, and so is everything that it limits
    return found


def requested(record: Record, facts: HostFacts) -> tuple[Property, ...]:
    """The properties that run and update have asked for; none where they make no sense on this host."""
    from sysbox.units.limits.plan import plan_limits
    from sysbox.units.scopeplan import asked_properties

    try:
        properties, _ = plan_limits(record.spec.limits, facts)
        return asked_properties(properties, record.spec.properties, facts)
    except SysboxError:
        return ()


def harvest(record: Record) -> Record:
    """Write down what others have set; the record as it is then. The caller holds the lock."""
    now, _ = collect(record)
    if now != record.tuned:
        record = record.replace(tuned=now)
        store.save(record)
    return record


def prepare(container_id: str) -> str:
    """The directory where others leave what they set, made so that it can be watched.

    It is removed by `unwatch` or by systemd.
    """
    where = directory(container_id)
    try:
        posix.mkdir(where, 0o755)
    except OSError:
        pass  # ignoring: it is there, or the watch will say why not
    return where


def watch(container_id: str) -> int:
    """A descriptor that can be read when something was set on its scope; -1 if that cannot be told."""
    try:
        return inotify.watch(prepare(container_id), inotify.IN_MOVED_TO)
    except SysboxError:
        return -1


def watched() -> list[str]:
    """The containers for which there is such a directory."""
    try:
        found = posix.listdir(TRANSIENT)
    except FileNotFoundError:
        return []
    directories = [name.removesuffix(".d") for name in found if name.endswith(".scope.d")]
    return [one for one in map(names.container_of, directories) if one]


def unwatch(container_id: str) -> None:
    """Remove the directory that `prepare` made, if systemd has not put anything into it."""
    try:
        posix.rmdir(directory(container_id))
    except OSError:
        pass  # ignoring: systemd's to remove, or gone
