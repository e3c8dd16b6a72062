"""`sysbox container|image|network|volume|builder|system prune`: remove unused objects."""

from __future__ import annotations

import posix

from sysbox.base.errors import SysboxError
from sysbox.cli import standing
from sysbox.cli.output import emit
from sysbox.docker.human import human_size
from sysbox.lifecycle import prune
from sysbox.lifecycle.prune import Removed
from sysbox.parse.common import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysbox.cli.table.options import Values

CANCELLED = 1
_CONTAINERS = "all stopped containers"
_DANGLING = "all dangling images"
_UNUSED = "all images without at least one container associated to them"
_VOLUMES = "all anonymous volumes not used by at least one container"
_NETWORKS = "all networks not used by at least one container"
_CACHE = "unused build cache"
_KEYS = ("until", "label", "label!")
_ACCEPTED = {"volume": _KEYS[1:], "builder": _KEYS[:1]}


def main(values: Values) -> int:
    """0; 1 when the question was not answered with yes."""
    what = values.verb.name.partition(" ")[0]
    # a filter that is not valid is an error before the user is asked
    which = prune.wanted(values.filter, _ACCEPTED.get(what, _KEYS))
    if not values.force and not agreed(_warning(what, values)):
        raise SysboxError(f"{what} prune: cancelled, nothing was removed", status=CANCELLED)
    size, left = 0, []
    for title, removed in _prune(what, values, which):
        size += removed.size
        left += [(title.lower().removesuffix("s"), unit) for unit in removed.left]
        if removed.names:
            emit(f"Deleted {title}:\n" + "".join(f"{name}\n" for name in removed.names) + "\n")
    if what != "network":
        emit(f"Total reclaimed space: {human_size(size)}\n")
    standing.tell_left(left)
    return 0


def _prune(what: str, values: Values, which: prune.Wanted) -> Iterator[tuple[str, Removed]]:
    """Remove in docker's order: containers before the volumes and images that they use."""
    if what in ("container", "system"):
        yield "Containers", prune.containers(which)
    if what in ("network", "system"):
        from sysbox.lifecycle import network  # the other prunes do not need it

        yield "Networks", network.prune(which, standing.networks)
    if what == "volume":
        yield "Volumes", prune.unused_volumes(which, everything=values.all, needed=standing.volumes)
    if what == "system" and values.volumes:
        yield "Volumes", prune.unused_volumes(which.replace(until=0.0), everything=False)
    if what in ("image", "system"):
        yield "Images", prune.images(which, everything=values.all, needed=standing.images)
    if what == "builder" or (what == "system" and not (which.labels or which.unlabelled)):
        yield "build cache objects", _cache(what, values, which)


def _cache(what: str, values: Values, which: prune.Wanted) -> Removed:
    """What the build cache has; a step has no labels."""
    from sysbox.lifecycle import build_cache  # the other prunes do not need it

    text = values.keep_storage if what == "builder" else None
    keep = parse_size(text, "--keep-storage") if text else 0
    return build_cache.prune(which, everything=values.all, keep=keep)


def _warning(what: str, values: Values) -> str:
    """docker's warning."""
    if what == "container":
        return f"WARNING! This will remove {_CONTAINERS}."
    if what == "image":
        return f"WARNING! This will remove {_UNUSED if values.all else _DANGLING}."
    if what == "network":
        return f"WARNING! This will remove {_NETWORKS}."
    if what == "builder":
        return f"WARNING! This will remove {'all' if values.all else 'all dangling'} build cache."
    if what == "volume":
        all_of_them = "all local volumes not used by at least one container"
        return f"WARNING! This will remove {all_of_them if values.all else _VOLUMES}."
    lines = [
        _CONTAINERS,
        _NETWORKS,
        *([_VOLUMES] if values.volumes else []),
        _UNUSED if values.all else _DANGLING,
        _CACHE,
    ]
    if values.filter:
        lines += [f"only those that match {text}" for text in values.filter]
    return "WARNING! This will remove:\n" + "".join(f"  - {one}\n" for one in lines)


def agreed(warning: str) -> bool:
    """Print the warning and ask; whether standard input says y or yes."""
    emit(f"{warning}\nAre you sure you want to continue? [y/N] ")
    answer = b""
    while b"\n" not in answer and (piece := posix.read(0, 64)):
        answer += piece
    return answer.strip().lower() in (b"y", b"yes")
