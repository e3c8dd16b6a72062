"""What others set on a container's scope with `systemctl set-property`: read, and kept in its record.

systemd writes such a change of a transient unit below /run/systemd/transient, and removes it with the
unit. A service that supervises a container keeps the unit loaded until its end has been recorded (see
run/service.py); in the foreground nothing keeps the unit, so the directory is watched.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import SysboxError
from sysbox.base.files import read_dated
from sysbox.base.frozen import Frozen
from sysbox.container import store
from sysbox.host import probe
from sysbox.linux import inotify
from sysbox.units import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from sysbox.container.store import Record
    from sysbox.host import HostFacts
    from sysbox.units.limits.dropins import Tuning
    from sysbox.units.limits.properties import Property

TRANSIENT = "/run/systemd/transient"


class DropIn(Frozen):
    """One file that `set-property` made."""

    path: str
    changed: float  # seconds since the epoch
    text: str


def directory(container_id: str) -> str:
    """The directory in which systemd leaves changes of a container's scope."""
    return f"{TRANSIENT}/{names.scope_unit(container_id)}.d"


def drop_ins(container_id: str) -> tuple[DropIn, ...]:
    """The changes of its scope since it was started, by others and by `update`, the oldest first."""
    where = directory(container_id)
    try:
        files = sorted(name for name in posix.listdir(where) if name.endswith(".conf"))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    found = []
    for name in files:
        path = f"{where}/{name}"
        try:
            data, changed = read_dated(path)
        except SysboxError:
            data = None
        if data is None:
            continue  # systemd is removing them
        text = data.decode("utf-8", "surrogateescape")
        found.append(DropIn(path=path, changed=changed, text=text))
    # those of one call stay in the order of their names: the new name of a limit follows the old one
    return tuple(sorted(found, key=lambda one: one.changed))


def collect(
    record: Record, facts: HostFacts | None = None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """(what others have set, as the record's `tuned` has it; the keys they have set that are not kept)."""
    found = drop_ins(record.id)
    if not found:
        return record.tuned, ()
    from sysbox.units.limits import dropins  # only a tuned container needs this table

    facts = facts or probe()
    return dropins.sort_out(tuning(found, facts), requested(record, facts), record.tuned)


def tuning(
    found: tuple[DropIn, ...], facts: HostFacts, about: Collection[str] = frozenset()
) -> Tuning:
    """What drop-ins say, with the host's defaults of what is in them, and of the properties `about`."""
    from sysbox.units.limits import dropins

    merged = dropins.merge(one.text for one in found)
    names = tuple(name for name in dropins.HOST_DEFAULTS if name in merged or name in about)
    return dropins.Tuning(facts=facts, found=merged, defaults=_host_defaults(names))


def _host_defaults(wanted: tuple[str, ...]) -> dict[str, Any]:
    """systemd's defaults for a scope that sets none of these; empty if systemd cannot be asked."""
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
        pass  # ignoring: systemd is shutting down, and with it everything that it limits
    return found


def requested(record: Record, facts: HostFacts) -> tuple[Property, ...]:
    """The properties that run and update have asked for; none where they make no sense on this host."""
    from sysbox.units.cgroup.blockdev import disks_of
    from sysbox.units.limits.plan import plan_limits
    from sysbox.units.scopeplan import asked_properties

    spec = record.spec
    disks = disks_of(spec, facts)
    try:
        properties, _ = plan_limits(spec.limits, facts, disks)
        return asked_properties(properties, spec.properties, facts, disks)
    except SysboxError:
        return ()


def harvest(record: Record) -> Record:
    """Save in the record what others have set; the new record. The caller holds the lock."""
    now, _ = collect(record)
    if now != record.tuned:
        record = record.replace(tuned=now)
        store.save(record)
    return record


def prepare(container_id: str) -> str:
    """Make the directory in which systemd leaves what others set, so that it can be watched; its path.

    `unwatch` or systemd removes it.
    """
    where = directory(container_id)
    try:
        posix.mkdir(where, 0o755)
    except OSError:
        pass  # ignoring: it exists, or watching it fails too
    return where


def watch(container_id: str) -> int:
    """A descriptor that becomes readable when something is set on its scope; -1 if that cannot be watched."""
    try:
        return inotify.watch(prepare(container_id), inotify.IN_MOVED_TO)
    except SysboxError:
        return -1


def watched() -> list[str]:
    """The ids of the containers that have such a directory."""
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
        pass  # ignoring: systemd will remove it, or it is gone
