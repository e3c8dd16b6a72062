"""`sysbox system df`: what images, containers and volumes take on disk, as `docker system df` shows it.

Images are counted as du(1) counts the store, containers and volumes by the bytes of their files.
"""

from __future__ import annotations

import time

from sysbox.base.errors import SysboxError, UsageError
from sysbox.build import cache
from sysbox.cli.commands import images as images_verb
from sysbox.cli.commands import ps
from sysbox.cli.output import line, print_list, warn
from sysbox.docker.human import human_duration, human_size
from sysbox.docker.known_images import KnownImages
from sysbox.docker.sizes import layer_size
from sysbox.fs import volumes
from sysbox.fs.drivers.driver import driver_of
from sysbox.image.reference import parse
from sysbox.image.store import Store
from sysbox.image.usage import measure
from sysbox.lifecycle import build_cache, prune
from sysbox.lifecycle.repair import all_repaired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.cli.table.options import Values
    from sysbox.container.store import Record, Status
    from sysbox.image.reference import Reference
    from sysbox.image.usage import StoreUsage

    Row = dict[str, Any]
    Containers = list[tuple[Record, Status, int]]  # with the bytes of the writable layer
    Volumes = dict[str, tuple[int, int]]  # name -> (containers that have it, bytes)

_TOTALS = (
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
)
_IMAGES = (
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
    ("SHARED SIZE", "SharedSize"),
    ("UNIQUE SIZE", "UniqueSize"),
    ("CONTAINERS", "Containers"),
)
_CONTAINERS = (
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("LOCAL VOLUMES", "LocalVolumes"),
    ("SIZE", "Size"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("NAMES", "Names"),
)
_VOLUMES = (("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size"))
_CACHE = (
    ("CACHE ID", "ID"),
    ("CACHE TYPE", "CacheType"),
    ("SIZE", "Size"),
    ("CREATED", "CreatedSince"),
    ("LAST USED", "LastUsedSince"),
    ("USAGE", "UsageCount"),
    ("SHARED", "Shared"),
)
_ACTIVE = ("running", "paused", "restarting")


def main(values: Values) -> int:
    """0, whatever was found."""
    if values.verbose and values.format:
        raise UsageError("system df: the verbose and the format options conflict")
    usage = measure(Store())
    containers = [
        (record, status, layer_size(driver_of(record).writable(record.directory)))
        for record, status in all_repaired(warn)
    ]
    users = prune.users_of_volumes(damaged=True)
    sizes = {name: (len(users.get(name, ())), _volume_size(name)) for name in volumes.names()}
    if values.verbose:
        _print_all(usage, containers, sizes)
    else:
        rows = [_image_total(usage, containers), *_other_totals(containers, sizes, usage)]
        print_list(
            rows, _TOTALS, headers={key: title for title, key in _TOTALS}, format=values.format
        )
    return 0


def _volume_size(name: str) -> int:
    """Bytes of its files; 0 for one that cannot be measured, or is removed meanwhile."""
    try:
        return prune.volume_size(name)
    except (OSError, SysboxError):
        return 0


def _image_total(usage: StoreUsage, containers: Containers) -> Row:
    used = {record.image_id for record, _, _ in containers} & usage.needs.keys()
    # the index and the like stay, whatever images are removed
    free = usage.total - usage.other - usage.of(used)
    return _total("Images", len(usage.images), len(used), usage.total, free)


def _other_totals(containers: Containers, sizes: Volumes, usage: StoreUsage) -> list[Row]:
    active = [status.state in _ACTIVE for _, status, _ in containers]
    written = sum(size for _, _, size in containers)
    idle = sum(size for (_, _, size), busy in zip(containers, active, strict=True) if not busy)
    linked = sum(1 for links, _ in sizes.values() if links)
    filled = sum(size for _, size in sizes.values())
    unused = sum(size for links, size in sizes.values() if not links)
    return [
        _total("Containers", len(containers), sum(active), written, idle),
        _total("Local Volumes", len(sizes), linked, filled, unused),
        _total("Build Cache", usage.cached, 0, usage.cache, usage.cache),
    ]


def _total(what: str, count: int, active: int, size: int, free: int) -> Row:
    share = f" ({free * 100 // size}%)" if size and what != "Build Cache" else ""
    return {
        "Type": what,
        "TotalCount": str(count),
        "Active": str(active),
        "Size": human_size(size),
        "Reclaimable": f"{human_size(free)}{share}",
    }


def _print_all(usage: StoreUsage, containers: Containers, sizes: Volumes) -> None:
    now = time.time()
    line("Images space usage:\n")
    _table(_image_rows(usage, containers, now), _IMAGES)
    line(
        f"\nUnique {human_size(sum(one.unique for one in usage.images))}, shared "
        f"{human_size(usage.shared)} counted once, index and leftovers {human_size(usage.other)}: "
        f"{human_size(usage.total)}"
    )
    line("\nContainers space usage:\n")
    known = KnownImages()
    _table(
        [
            {**ps.row(record, status, now, known, full=False), "Size": human_size(size)}
            for record, status, size in containers
        ],
        _CONTAINERS,
    )
    line("\nLocal Volumes space usage:\n")
    _table(
        [
            {"Name": name, "Links": str(links), "Size": human_size(size)}
            for name, (links, size) in sizes.items()
        ],
        _VOLUMES,
    )
    line(f"\nBuild cache usage: {human_size(usage.cache)}\n")
    _table(_cache_rows(now), _CACHE)


def _cache_rows(now: float) -> list[Row]:
    """A line for each step that the build cache has, and for each directory of RUN --mount=type=cache."""
    rows = []
    for key, made, used in cache.all_of(Store().root):
        rows.append(
            {
                "ID": key[:12],
                "CacheType": "regular",
                "Size": human_size(made.size),
                "CreatedSince": f"{human_duration(now - made.created_ns / 1e9)} ago",
                "LastUsedSince": f"{human_duration(now - used)} ago",
                "UsageCount": "1",
                "Shared": "false",
            }
        )
    for name, size in build_cache.size_of_mounts(Store().root).items():
        row = {"ID": name[:12], "CacheType": "exec.cachemount", "Size": human_size(size)}
        rows.append({**dict.fromkeys((key for _, key in _CACHE), ""), **row, "Shared": "false"})
    return rows


def _image_rows(usage: StoreUsage, containers: Containers, now: float) -> list[Row]:
    """A line for each name, as `images` has them."""
    rows = []
    for one in usage.images:
        count = sum(record.image_id == one.image.id for record, _, _ in containers)
        sizes = {
            "Size": human_size(one.unique + one.shared),
            "SharedSize": human_size(one.shared),
            "UniqueSize": human_size(one.unique),
            "Containers": str(count),
        }
        names: list[Reference | None] = [parse(name) for name in one.image.names]
        names = names or [None]
        rows += [images_verb.row(one.image, name, now, full=False) | sizes for name in names]
    return rows


def _table(rows: list[Row], columns: tuple[tuple[str, str], ...]) -> None:
    print_list(rows, columns, headers={})
