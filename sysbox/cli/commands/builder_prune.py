"""`sysbox builder prune`: remove what the build cache has."""

from __future__ import annotations

import posix

from sysbox.base.errors import SysboxError
from sysbox.cli.output import emit
from sysbox.docker.human import human_size
from sysbox.lifecycle import build_cache, prune
from sysbox.parse.common import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values

_CANCELLED = 1


def main(values: Values) -> int:
    """0; 1 when the question was not answered with yes."""
    which = prune.wanted(values.filter, ("until",))
    keep = parse_size(values.keep_storage, "--keep-storage") if values.keep_storage else 0
    what = "all build cache" if values.all else "all dangling build cache"
    if not values.force and not _agreed(f"WARNING! This will remove {what}."):
        raise SysboxError("builder prune: cancelled, nothing was removed", status=_CANCELLED)
    removed = build_cache.prune(which, everything=values.all, keep=keep)
    if removed.names:
        emit(
            "Deleted build cache objects:\n" + "".join(f"{name}\n" for name in removed.names) + "\n"
        )
    emit(f"Total reclaimed space: {human_size(removed.size)}\n")
    return 0


def _agreed(warning: str) -> bool:
    emit(f"{warning}\nAre you sure you want to continue? [y/N] ")
    answer = b""
    while b"\n" not in answer and (piece := posix.read(0, 64)):
        answer += piece
    return answer.strip().lower() in (b"y", b"yes")
