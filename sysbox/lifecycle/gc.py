"""`sysbox gc`: finish what a killed command or monitor left half done.

Everything here is decided from records, locks and live processes. What another command is working on is
locked, and left alone.
"""

from __future__ import annotations

from sysbox import scope
from sysbox.base.errors import Conflict, FormatError, NotFound, SysboxError
from sysbox.base.files import is_directory, stale_files, unlink
from sysbox.base.paths import CONTAINERS, NETWORK, NETWORKS, RUN, SECRETS, STATE
from sysbox.container import id_ranges, leftovers, levels, pods, store
from sysbox.container.locks import Lock
from sysbox.container.names import owns_name, release_name, taken_names
from sysbox.container.status import has_scope
from sysbox.fs import mapping_attempts, volumes
from sysbox.host import probe
from sysbox.image.store import Store
from sysbox.lifecycle import lost_state, way_back
from sysbox.lifecycle.remove import discard_by_id
from sysbox.linux.freezer import has_pending_kill, is_frozen
from sysbox.netns import firewall, leases, members, networks
from sysbox.run import background, resolver_units, restart, tuned
from sysbox.run.exit import kill_now, settle
from sysbox.run.teardown import discard, stop_scope
from sysbox.units import journal, listing, names, unit_file
from sysbox.units.bus import Bus
from sysbox.units.cgroup import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sysbox.container.store import Record, Runtime

_ABOUT_NOW = 60_000_000_000  # nanoseconds in which a requested restart happens
_ON_ITS_WAY = 1.0  # seconds for a scope to end by itself


def collect() -> tuple[list[str], list[str]]:
    """Repair everything: (a line for each repair, a line for each failure).

    A step that fails does not stop the others: one container's leftovers must not keep the others down.
    """
    done: list[str] = []
    failed: list[str] = []
    for what, step in _STEPS:
        try:
            for line in step():
                done.append(line)  # noqa: PERF402 (what was done before a step failed is returned too)
        except Exception as error:  # noqa: BLE001 (whatever it is, the next step is due)
            failed.append(f"{what}: {_reason(error)}")
    return done, failed


def at_boot() -> list[str]:
    """`sysbox-boot.service`: finish what the last boot left, and start containers that should run and do not.

    Returns a line for each failure.
    """
    failed = collect()[1]
    with Bus.connect() as bus:
        # the oldest first: a container that joins another's namespaces was made after that one, and waits
        # for its start, which has then been requested
        for record in reversed(store.all_records()):
            try:
                if unit_file.restore(record):
                    scope.request_start(bus, names.service_unit(record.id))
            except Exception as error:  # noqa: BLE001 (the others must start all the same)
                failed.append(f"{record.name} is not started: {_reason(error)}")
    return failed


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, SysboxError) else f"{type(error).__name__}: {error}"


def at_halt() -> list[str]:
    """When `sysbox-boot.service` is stopped: save what an administrator has enabled or disabled at boot.

    Returns a line for each failure.
    """
    failed = []
    for record in store.all_records():
        try:
            unit_file.save_boot_choice(record)
        except SysboxError as error:
            failed.append(f"{record.name}: {error.message}")
    return failed


def images_in_use(image_id: str) -> list[str]:
    """The names of the containers that were made from an image, or may go back to it."""
    made = [record.name for record in store.all_records() if record.image_id == image_id]
    return [*made, *(name for name in way_back.users_of(image_id) if name not in made)]


def _rest(container_id: str) -> str:
    return f"removed what was left of {container_id[:12]}"


def _drafts() -> Iterator[str]:
    for container_id in leftovers.discard_drafts():
        yield _rest(container_id)
    if mapping_attempts.discard():
        yield "removed what was left of an attempt to map ids"


def _containers() -> Iterator[str]:
    failed: list[Exception] = []
    for container_id in store.ids():
        try:
            yield from _container(container_id)
        except FormatError as error:
            yield f"left alone: {error.message}"
        except Exception as error:  # noqa: BLE001 (raised below; the other containers come first)
            failed.append(error)
    if failed:
        raise failed[0]


def _container(container_id: str) -> list[str]:
    try:
        lock = Lock(container_id, wait=False)
    except (Conflict, NotFound):
        return []  # locked: another command is working on it
    with lock:
        try:
            record = store.load(container_id)
        except NotFound:
            record = None
        if record is None or not owns_name(record):
            for name in record.anonymous_volumes.values() if record else ():
                volumes.remove(name)
            discard_by_id(container_id)
            return [_rest(container_id)]
        if has_scope(record) and lost_state.record_again(record):
            return [f"recorded the run of {record.name} again"]
        runtime = store.runtime(record.id)
        if runtime is None:
            return _ended(record)
    return _run(record, runtime)


def _ended(record: Record) -> list[str]:
    """A container that does not run. The caller holds its lock."""
    lost = lost_state.record_end(record)
    final = store.final(record.id) if record.spec.remove else None
    if final is None or _comes_back(final):
        return [f"recorded the end of {record.name}"] if lost else []
    discard(record)
    return [f"removed {record.name} (--rm)"]


def _run(record: Record, runtime: Runtime) -> list[str]:
    if runtime.supervised():
        if not (is_frozen(probe(), runtime.cgroup) and has_pending_kill(runtime.pid)):
            return []
        kill_now(record, runtime)
        return [f"thawed {record.name}, which was killed while it was paused"]
    if runtime.alive():
        kill_now(record, runtime)
        done = f"ended {record.name}, whose supervisor was killed"
    elif _service_is_ending(record.id):
        return []  # its ExecStopPost= records the end
    else:
        done = f"recorded the end of {record.name}"
    if settle(record.id):
        return [done]
    if runtime.restarting and not _has_run(record.id):
        return [f"gave up the restart of {record.name}, for which nobody waits"]
    return []


def _service_is_ending(container_id: str) -> bool:
    with Bus.connect() as bus:
        return scope.active_state(bus, names.service_unit(container_id)) == "deactivating"


def _comes_back(final: store.Final) -> bool:
    """Whether it has asked for a restart just now, which its supervisor is about to do."""
    return final.rebooted and store.now_ns() - final.finished_ns < _ABOUT_NOW


def _known(container_id: str) -> bool:
    """Whether the container exists; asked after its thing was found, since its directory is made first."""
    return is_directory(f"{CONTAINERS}/{container_id}")


def _runs() -> Iterator[str]:
    for container_id in leftovers.forget_stale_runs():
        yield f"forgot the run of {container_id[:12]}"


def _network() -> Iterator[str]:
    for container_id in members.reclaim(_is_up):
        yield f"released the address of {container_id[:12]}"
    for one in networks.all_networks():
        if members.remove_stale(one):
            yield f"removed the link {one.bridge or one.parent} of the network {one.name}"


def _pods() -> Iterable[str]:
    if not pods.is_there():
        return ()
    from sysbox.lifecycle import pod

    return pod.collect()


def _name_files() -> Iterator[str]:
    for container_id in resolver_units.reclaim(_is_up):
        yield f"removed {container_id[:12]} from the names of its networks"
    for unit in resolver_units.stop_stale():
        yield f"stopped {unit}, of a network without containers"


def _ids() -> Iterator[str]:
    from sysbox.lifecycle import user_namespace

    for container_id in id_ranges.reclaim():
        yield f"released the ids of {container_id[:12]}"
    records = store.all_records()
    for record in _locked(records):
        if user_namespace.lease_again(record, records):
            yield f"leased the ids of {record.name} again"


def _levels() -> Iterator[str]:
    """Categories of SELinux; without it there are none."""
    for container_id in levels.reclaim():
        yield f"released the SELinux level of {container_id[:12]}"
    if probe().selinux:
        from sysbox.run import labels

        for record in _locked(store.all_records()):
            if labels.restore(record):
                yield f"leased the SELinux level of {record.name} again"


def _locked(records: Sequence[Record]) -> Iterator[Record]:
    """Each record as it is now, the oldest first, with the lock of its container: whoever removes a container
    gives its leases back. One that joins another was made after it, and shares its lease.
    """
    for one in reversed(records):
        try:
            with Lock(one.id, wait=False):
                yield store.load(one.id)
        except (Conflict, FormatError, NotFound):
            continue  # another command is working on it, or `_containers` tells of it


def _port_rules() -> Iterator[str]:
    for container_id in firewall.reclaim(_is_up):
        yield f"removed the port rules of {container_id[:12]}"


def _services() -> Iterator[str]:
    background.forget_reports(_known)
    for container_id in unit_file.list_installed():
        if not _known(container_id) and unit_file.uninstall(container_id):
            yield f"removed the unit file of {container_id[:12]}"


def _images() -> list[str]:
    return Store().gc(images_in_use)


def _files() -> Iterator[str]:
    directories = (NETWORK, RUN, STATE, NETWORKS, SECRETS, *map(leases.directory, leases.in_use()))
    stale = [path for directory in directories for path in stale_files(directory)]
    for path in (*stale, *journal.drafts()):
        if unlink(path):
            yield f"removed {path}"
    for container_id in tuned.watched():
        if not _has_run(container_id):
            tuned.unwatch(container_id)


def _names() -> list[str]:
    freed = leftovers.free_stale_names()
    freed += [name for name, owner in taken_names().items() if _half_renamed(name, owner)]
    return [f"freed the name {name}" for name in freed]


def _half_renamed(name: str, owner: str) -> bool:
    """Free a name whose container has another, unless a rename is going on; whether it was freed."""
    try:
        if store.load(owner).name == name:
            return False
        with Lock(owner, wait=False):
            return store.load(owner).name != name and release_name(name, owner)
    except (Conflict, FormatError, NotFound):
        return False


def _scopes() -> list[str]:
    """Stop scopes without a record of their run; docker's have the same names, but another description."""
    with Bus.connect() as bus:
        units = listing.list_units(bus, names.scope_unit("*"))
        done = []
        for unit in units:
            ours = unit.description.startswith("sysbox container ")
            container_id = names.container_of(unit.name)
            if not ours or (_known(container_id) and not _forgotten(container_id, unit)):
                continue
            # the scope of a container that was just removed ends by itself
            if not scope.await_inactive(bus, unit.name, _ON_ITS_WAY):
                stop_scope(unit.name)
                done.append(f"stopped {unit.name}")
            else:
                scope.reset_failed(bus, unit.name)
        return done + restart.forget_gone(bus, _known)


def _forgotten(container_id: str, unit: listing.UnitStatus) -> bool:
    """Whether an active scope has no record of its run: a file was lost."""
    if unit.active_state != "active":
        return False
    try:
        with Lock(container_id, wait=False):
            return not _has_run(container_id)
    except SysboxError:
        return False


def _cgroups() -> list[str]:
    """Remove empty cgroups of scopes that systemd does not know: those that sysbox has made, and those that
    systemd forgot, as when it is reloaded while a process joins a scope that ends.

    docker's have the same names, but systemd knows them. The cgroups are listed before the units: systemd
    loads a scope before its cgroup is made.
    """
    facts, done = probe(), []
    if not (found := tree.find_scope_cgroups(facts)):
        return []
    with Bus.connect() as bus:
        loaded = {unit.name for unit in listing.list_units(bus, names.scope_unit("*"))}
    for path in found:
        unit = path.rpartition("/")[2]
        container_id = names.container_of(unit)
        if not container_id or unit in loaded or _has_run(container_id):
            continue
        if tree.remove_if_empty(path, facts):
            done.append(f"removed the cgroups of {container_id[:12]}")
    return done


def _is_up(one: str) -> bool:
    """Whether an id is that of a container with a run, or of a pod that is up."""
    return _has_run(one) or pods.is_up(one)


def _has_run(container_id: str) -> bool:
    try:
        return store.runtime(container_id) is not None
    except FormatError:
        return True


_STEPS: tuple[tuple[str, Callable[[], Iterable[str]]], ...] = (
    ("what was half made or removed", _drafts),
    ("containers", _containers),
    ("names", _names),
    ("runs", _runs),
    ("scopes", _scopes),
    ("cgroups", _cgroups),
    ("pods", _pods),
    ("names on networks", _name_files),
    ("addresses", _network),
    ("port rules", _port_rules),
    ("ranges of ids", _ids),
    ("levels of SELinux", _levels),
    ("unit files", _services),
    ("images", _images),
    ("files", _files),
)
