"""`sysbox gc`: finish what a killed command or monitor left half done.

Everything here is decided from records, locks and what lives; what somebody is working on right now is
locked, and left to him.
"""

from __future__ import annotations

import posix

from sysbox import detaching, ending, restarting, scope, state
from sysbox.errors import Conflict, FormatError, NotFound, SysboxError
from sysbox.files import is_directory, remove_tree, stale_files, unlink
from sysbox.fs import volumes
from sysbox.host import exists, probe
from sysbox.image.store import Store
from sysbox.linux import cgroup
from sysbox.linux.freezer import doomed, frozen
from sysbox.netns import firewall, leases
from sysbox.paths import CONTAINERS, NAMES, NETWORK, RUN, RUN_CONTAINERS
from sysbox.units import cgroups, journal, names
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.state import Record

_ABOUT_NOW = 60_000_000_000  # nanoseconds
_ON_ITS_WAY = 1.0  # seconds for a scope to end by itself


def collect() -> list[str]:
    """Put everything right; a line for each thing that was."""
    done: list[str] = []
    for name in state.drafts():
        done += _draft(name)
    for container_id in state.ids():
        try:
            done += _container(container_id)
        except FormatError as error:
            done.append(f"left alone: {error.message}")
    done += _names()
    done += _runs()
    done += _scopes()
    done += _cgroups()
    done += [f"gave back the address of {one[:12]}" for one in leases.reclaim(_has_run)]
    done += [f"removed the port rules of {one[:12]}" for one in firewall.reclaim(_has_run)]
    detaching.forget_reports(_known)
    for container_id in restarting.installed():
        if not _known(container_id):
            restarting.uninstall(container_id)
            done.append(f"removed the unit file of {container_id[:12]}")
    done += Store().gc(images_in_use)
    stale = [path for directory in (NETWORK, RUN) for path in stale_files(directory)]
    for path in (*stale, *journal.drafts()):
        unlink(path)
        done.append(f"removed {path}")
    return done


def at_boot() -> int:
    """`sysbox-boot.service`: finish what the last boot left, and start what should be up and is not."""
    collect()
    with Bus.connect() as bus:
        for record in state.all_records():
            if restarting.restore(record):
                scope.request_start(bus, names.service_unit(record.id))
    return 0


def images_in_use(image_id: str) -> list[str]:
    """The names of the containers that were made from an image."""
    return [record.name for record in state.all_records() if record.image_id == image_id]


def _draft(name: str) -> list[str]:
    try:
        with state.Lock(name, wait=False, create=True):
            state.discard(name)
    except (Conflict, NotFound):
        return []
    return [f"removed what was left of {name.removeprefix(state.DRAFT)[:12]}"]


def _container(container_id: str) -> list[str]:
    try:
        # what is locked is being worked on
        lock = state.Lock(container_id, wait=False, create=True)
    except (Conflict, NotFound):
        return []
    with lock:
        try:
            record = state.load(container_id)
        except NotFound:
            record = None
        if record is None or not state.named(record):
            for name in record.anonymous_volumes.values() if record else ():
                volumes.remove(name)
            ending.remove_damaged(container_id)
            return [f"removed what was left of {container_id[:12]}"]
    return _run(record)


def _run(record: Record) -> list[str]:
    runtime = state.runtime(record.id)
    if runtime is None:
        final = state.final(record.id) if record.spec.remove else None
        if final is not None and not _comes_back(final):
            ending.remove(record, force=True, with_volumes=True)
            return [f"removed {record.name} (--rm)"]
        return []
    if runtime.supervised():
        if not (frozen(probe(), runtime.cgroup) and doomed(runtime.pid)):
            return []
        ending.kill_now(record, runtime)
        return [f"thawed {record.name}, which was killed while it was paused"]
    if runtime.alive():
        ending.kill_now(record, runtime)
        done = f"ended {record.name}, whose supervisor was killed"
    else:
        done = f"recorded the end of {record.name}"
    ending.settle(record.id)
    return [done]


def _comes_back(final: state.Final) -> bool:
    """Whether it has asked for a restart just now, and somebody is about to see to that."""
    return final.rebooted and state.now_ns() - final.finished_ns < _ABOUT_NOW


def _known(container_id: str) -> bool:
    """Asked of each thing after it was found: a container made meanwhile has its record first."""
    return is_directory(f"{CONTAINERS}/{container_id}")


def _names() -> list[str]:
    done = []
    for name, owner in state.names().items():
        try:
            if owner and state.load(owner).name == name:
                continue
        except FormatError:
            continue
        except NotFound:
            pass
        if owner:
            state.release_name(name, owner)
        else:
            remove_tree(f"{NAMES}/{name}")
        done.append(f"freed the name {name}")
    return done


def _runs() -> list[str]:
    try:
        left = [name for name in posix.listdir(RUN_CONTAINERS) if not _known(name)]
    except FileNotFoundError:
        return []
    for name in left:
        remove_tree(f"{RUN_CONTAINERS}/{name}")
    return [f"forgot the run of {name[:12]}" for name in left]


def _scopes() -> list[str]:
    """Scopes of ours that nobody knows any more; docker's have the same names, but not our description."""
    with Bus.connect() as bus:
        units = scope.list_units(bus, names.scope_unit("*"))
        done = []
        for unit in units:
            ours = unit.description.startswith("sysbox container ")
            container_id = names.container_of(unit.name)
            if not ours or (_known(container_id) and not _forgotten(container_id, unit)):
                continue
            # that of a container which was just removed is on its way out
            if not scope.await_inactive(bus, unit.name, _ON_ITS_WAY):
                ending.stop_scope(unit.name)
                done.append(f"stopped {unit.name}")
            else:
                scope.reset_failed(bus, unit.name)
        for unit in scope.list_units(bus, "sysbox-*.service"):
            container_id = names.container_of(unit.name)
            if unit.active_state == "failed" and container_id and not _known(container_id):
                # of one with a restart policy it stays loaded, though its file is gone
                scope.reset_failed(bus, unit.name)
                done.append(f"forgot the failure of {unit.name}")
    return done


def _forgotten(container_id: str, unit: scope.UnitStatus) -> bool:
    """Whether nothing is written down of a run that goes on: a file was lost."""
    if unit.active_state != "active":
        return False
    try:
        with state.Lock(container_id, wait=False):
            return not _has_run(container_id)
    except SysboxError:
        return False


def _cgroups() -> list[str]:
    """Empty directories of scopes in the hierarchies that systemd leaves to us, where it has no such scope.

    docker's have the same names, but they are empty only when docker has forgotten them.
    """
    facts, done = probe(), []
    for path in cgroups.left_in_ours(facts):
        container_id = names.container_of(path.rpartition("/")[2])
        known_to_systemd = exists(cgroup.directory(facts, "name=systemd", path))
        if known_to_systemd or _has_run(container_id) or not cgroups.remove_if_empty(path, facts):
            continue
        done.append(f"removed the cgroups of {container_id[:12]}")
    return done


def _has_run(container_id: str) -> bool:
    try:
        return state.runtime(container_id) is not None
    except FormatError:
        return True
