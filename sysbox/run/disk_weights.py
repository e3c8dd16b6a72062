"""Keep the weights of single disks on cgroup v1.

The kernel forgets a scope's weights for single disks whenever the weight for all disks is written, and
systemd writes that at each daemon-reload. A path unit watches that file; the service of the same name,
`sysbox _weights ID`, then writes the single weights again. Both units end with the scope.
"""

from __future__ import annotations

import time

from sysbox import scope
from sysbox.base import program
from sysbox.base.errors import NotFound, SystemdError
from sysbox.container import store
from sysbox.container.locks import Lock
from sysbox.host import exists, probe
from sysbox.linux import cgroup
from sysbox.units import names
from sysbox.units.bus import MANAGER, MANAGER_PATH, SYSTEMD, TIMEOUT
from sysbox.units.cgroup import blockdev
from sysbox.units.limits.plan import plan_limits
from sysbox.units.limits.properties import CgroupWrite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.host import HostFacts
    from sysbox.units.bus import Bus

    _Properties = list[tuple[str, tuple[str, Any]]]

FILE = "blkio.bfq.weight_device"
_WATCHED = "blkio.bfq.weight"
# the path unit misses a change while the service runs, and several reloads often follow each other
_PASSES = 2
_PAUSE = 1.0  # seconds
_NAME_IS_FREED = 2.0  # seconds
_STEP = 0.01
_EXISTS = f"{SYSTEMD}.UnitExists"
_SIGNATURE = "ssa(sv)a(sa(sv))"


def keep(bus: Bus, unit: str, path: str, writes: tuple[CgroupWrite, ...], facts: HostFacts) -> None:
    """Have the weights among `writes`, if any, kept in the scope's cgroup at `path`.

    When all are removed, the path unit is stopped. Raises SystemdError.
    """
    found = [one.value for one in writes if one.file == FILE]
    if not found:
        return
    stem = f"sysbox-weights-{names.container_of(unit)}"
    if all(value.endswith(" default") for value in found):
        scope.stop(bus, f"{stem}.path")
        return
    watched = f"{cgroup.directory(facts, 'blkio', path)}/{_WATCHED}"
    _watch(bus, stem, _path(unit, watched), _service(names.container_of(unit)))


def _watch(bus: Bus, stem: str, path: _Properties, service: _Properties) -> None:
    """Start the path unit with its service. An active one will do: its service reads the record."""
    watcher, helper = f"{stem}.path", f"{stem}.service"
    args = (watcher, "fail", path, ((helper, service),))
    deadline = time.monotonic() + _NAME_IS_FREED
    while True:
        try:
            (job,) = bus.call(MANAGER_PATH, MANAGER, "StartTransientUnit", _SIGNATURE, args)
            return scope.wait_job(bus, watcher, job, "start", TIMEOUT)
        except SystemdError as error:
            if error.dbus_name != _EXISTS or time.monotonic() > deadline:
                raise
        if scope.active_state(bus, watcher) == "active":
            return None
        # left over from an earlier run, or from before the weights were removed
        for unit in (watcher, helper):
            scope.stop(bus, unit)
            scope.reset_failed(bus, unit)
        time.sleep(_STEP)


def _path(unit: str, watched: str) -> _Properties:
    return [
        ("Description", ("s", f"The weight of {unit}")),
        ("BindsTo", ("as", [unit])),
        ("After", ("as", [unit])),
        ("CollectMode", ("s", "inactive-or-failed")),
        ("Paths", ("a(ss)", [("PathModified", watched)])),
    ]


def _service(container: str) -> _Properties:
    argv = [program.launcher, "_weights", container]
    return [
        ("Description", ("s", "The weights of single disks, written again")),
        ("Type", ("s", "oneshot")),
        ("CollectMode", ("s", "inactive-or-failed")),
        ("StartLimitIntervalUSec", ("t", 0)),
        ("ExecStart", ("a(sasb)", [(program.launcher, argv, False)])),
    ]


def rewrite(container: str) -> int:
    """Write the weights of the record again; 0, also if the container is gone. Raises KernelError."""
    for turn in range(_PASSES):
        if turn:
            time.sleep(_PAUSE)
        try:
            with Lock(container):  # an update may be about to change them
                _write(container)
        except NotFound:
            return 0
    return 0


def _write(container: str) -> None:
    record, runtime, facts = store.load(container), store.runtime(container), probe()
    if runtime is None:
        return
    directory = cgroup.directory(facts, "blkio", runtime.cgroup)
    if not exists(f"{directory}/{FILE}"):
        return
    disks = blockdev.disks_of(record.spec, facts)
    for one in plan_limits(record.spec.limits, facts, disks)[1]:
        if one.file == FILE:
            cgroup.write(directory, FILE, one.value)
