"""Remove what is no longer needed: containers that do not run, images, volumes."""

from __future__ import annotations

import posix
import time

from sysbox import scope
from sysbox.base.errors import Conflict, FormatError, NotFound, SpecError, SysboxError, UsageError
from sysbox.base.frozen import Frozen
from sysbox.base.suggest import suggest
from sysbox.container import events, pods
from sysbox.container.store import all_records, ids, load
from sysbox.content import layer
from sysbox.fs import volumes
from sysbox.image import rebuild
from sysbox.image.store import Store
from sysbox.lifecycle import control, gc
from sysbox.parse.filters import has_label
from sysbox.parse.time import parse_moment
from sysbox.run import restart
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sysbox.container.store import Record
    from sysbox.image.catalog import Entry
    from sysbox.image.model import Image
    from sysbox.spec import ContainerSpec

    Needed = Mapping[str, str]  # what belongs to active units: name -> unit

_ENDED = ("created", "exited", "dead")


class Wanted(Frozen):
    """The filters of one prune; the default matches everything."""

    until: float = 0.0  # seconds since 1970: only what was made before; 0 is any time
    labels: tuple[str, ...] = ()  # KEY or KEY=VALUE, all of them
    unlabelled: tuple[str, ...] = ()  # none of these

    def matches(self, created: float, labels: dict[str, str]) -> bool:
        if self.until and created >= self.until:
            return False
        return all(has_label(labels, one) for one in self.labels) and not any(
            has_label(labels, one) for one in self.unlabelled
        )


class Removed(Frozen):
    """What a prune has removed."""

    names: tuple[str, ...] = ()  # container ids, volume names, or docker's lines about images
    size: int = 0  # bytes
    left: tuple[str, ...] = ()  # active units: to each belongs one that would have been removed


def wanted(filters: Sequence[str], keys: Sequence[str]) -> Wanted:
    """Parse `--filter` flags, whose keys must be in `keys`. Raises UsageError, SpecError."""
    until = 0.0
    labels: dict[bool, list[str]] = {True: [], False: []}
    for text in filters:
        key, equals, value = text.partition("=")
        if key not in keys or not equals or not value:
            raise UsageError(
                f"--filter {text}: {'not KEY=VALUE' if key in keys else f'unknown key {key}'}",
                hint=suggest(key, keys),
            )
        if key == "until":
            moment = parse_moment(value, "--filter until=", time.time())
            until = min(until or moment, moment)
        else:
            labels[key == "label"].append(value)
    return Wanted(until=until, labels=tuple(labels[True]), unlabelled=tuple(labels[False]))


def containers(which: Wanted) -> Removed:
    """Remove containers that do not run, with their writable layers; volumes stay, as in docker.

    One that a service has made, and is about to start, is left: a removal would stop the service.
    """
    gone: list[str] = []
    size = 0
    for record in all_records():
        try:
            control.settle_if_dead(record)
            if restart.status(record).state not in _ENDED or not which.matches(
                record.created, record.spec.labels
            ):
                continue
            if record.spec.unit and _is_at_work(record.spec.unit):
                continue
            freed = _size(lambda record=record: layer.size_of(record))  # type: ignore[misc]
            control.remove(record, force=False, volumes=False)
        except (Conflict, NotFound, FormatError):
            continue  # started or removed meanwhile; or damaged, which `rm -f` is for
        gone.append(record.id)
        size += freed
    events.pruned("container", size)
    return Removed(names=tuple(gone), size=size)


def _is_at_work(service: str) -> bool:
    with Bus.connect() as bus:
        return scope.active_state(bus, service) not in scope.ENDED


def images(which: Wanted, *, everything: bool, needed: Callable[[], Needed] = dict) -> Removed:
    """Remove images that no container needs: those without a name, or all.

    The built-in `host` stays: it would only be made again. `needed` tells which belong to active units.
    """
    store = Store()
    before = _layers(store)
    lines: list[str] = []
    left: list[str] = []
    kept = {entry.image_id for entry in store.entries() if _is_host(entry)}
    listed = store.list()
    # read after the images: a service that makes one meanwhile is known
    units = _units_of_images(store, needed())
    for image in listed:
        if image.id in kept or (image.names and not everything) or gc.images_in_use(image.id):
            continue
        if not which.matches(_created(image), image.config.labels):
            continue
        if image.id in units:
            left.append(units[image.id])
            continue
        try:
            done = remove_image(store, image.id, force=True)
        except (Conflict, NotFound):
            continue  # another command was faster
        lines += [f"{line[:1].lower()}{line[1:]}" for line in done]
    size = max(before - _layers(store), 0)
    events.pruned("image", size)
    return Removed(names=tuple(lines), size=size, left=tuple(left))


def _units_of_images(store: Store, needed: Needed) -> dict[str, str]:
    """The id of each image that a name in `needed` means -> its unit."""
    found: dict[str, str] = {}
    for name, unit in needed.items():
        try:
            found.setdefault(store.find(name)[1].id, unit)
        except (Conflict, NotFound, SpecError):
            continue  # it is gone, or was never made
    return found


def users_of_volumes(*, damaged: bool = False) -> dict[str, list[str]]:
    """Volume -> names of the containers that have it, also while they are made or removed, and of the pods.

    An unreadable record may have any volume: raises FormatError, unless `damaged`.
    """
    users = pods_of_volumes(damaged=damaged)
    for container_id in ids():
        try:
            record = load(container_id)
        except NotFound:
            continue
        except FormatError:
            if damaged:
                continue
            raise
        for name in volumes_of(record):
            users.setdefault(name, []).append(record.name)
    return users


def pods_of_volumes(*, damaged: bool = False) -> dict[str, list[str]]:
    """Volume -> names of the pods whose next container gets it. Raises FormatError, unless `damaged`."""
    unreadable: list[FormatError] = []
    users: dict[str, list[str]] = {}
    for pod in pods.all_pods(unreadable.append):
        for name in _named(pod.spec):
            users.setdefault(name, []).append(pod.name)
    if unreadable and not damaged:
        raise unreadable[0]
    return users


def volumes_of(record: Record) -> set[str]:
    """The volumes that a container has."""
    return _named(record.spec) | set(record.anonymous_volumes.values())


def _named(spec: ContainerSpec) -> set[str]:
    return {one.source for one in spec.mounts if one.kind == "volume" and one.source}


def unused_volumes(
    which: Wanted, *, everything: bool, needed: Callable[[], Needed] = dict
) -> Removed:
    """Remove volumes that no container and no pod has: the anonymous ones, or all. Raises FormatError.

    `needed` tells which belong to active units.
    """
    gone: list[str] = []
    left: list[str] = []
    size = 0
    seen = _made_at()
    # after the names: see `images`; before the lock, which others wait for, since systemd may not answer
    units = needed()
    with volumes.Lock():
        users = users_of_volumes()
        for name, created in _made_at().items():
            if name in users or not (everything or volumes.is_anonymous(name)):
                continue
            # one that was made since may be of a service that has begun since
            if seen.get(name) != created or not which.matches(created, volumes.labels(name)):
                continue
            if name in units:
                left.append(units[name])
                continue
            size += _size(lambda name=name: volume_size(name))  # type: ignore[misc]
            drop_volume(name)
            gone.append(name)
    events.pruned("volume", size)
    return Removed(names=tuple(gone), size=size, left=tuple(left))


def _made_at() -> dict[str, float]:
    """The time of creation of each volume, without those that are removed meanwhile."""
    found = {}
    for name in volumes.names():
        try:
            found[name] = volumes.created(name)
        except NotFound:
            continue
    return found


def drop_volume(name: str) -> None:
    """Remove a volume that no container has; the caller holds the lock on volumes."""
    volumes.remove(name)
    events.emit("volume", "destroy", name, {"driver": "local"})


def volume_size(name: str) -> int:
    """The bytes of the files in a volume. Raises OSError, FormatError."""
    flags = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
    fd = posix.open(volumes.directory(name), flags)
    try:
        return layer.tree_size(fd)
    finally:
        posix.close(fd)


def _size(measure: Callable[[], int]) -> int:
    """The size to report; 0 for what cannot be measured, and is removed all the same."""
    try:
        return measure()
    except (OSError, SysboxError):
        return 0


def remove_image(store: Store, name: str, *, force: bool) -> list[str]:
    """Untag or delete an image; lines as `docker rmi` prints them. Raises NotFound, Conflict."""
    done = store.remove(name, gc.images_in_use, force=force)
    for one in done:
        events.image(one.action, one.image_id, one.labels, one.name)
    return [str(one) for one in done]


def _is_host(entry: Entry) -> bool:
    return entry.builtin.startswith("host:")


def _layers(store: Store) -> int:
    """The bytes of the files of all layers that some image needs."""
    names = {name for image in store.list() for name in image.layers}
    return sum(_size(lambda name=name: rebuild.read_layer(store, name).size) for name in names)  # type: ignore[misc]


def _created(image: Image) -> float:
    try:
        return max(parse_moment(image.created, "created", 0.0), 0.0)
    except SysboxError:
        return 0.0
