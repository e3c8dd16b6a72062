"""Of the two names of a limit that others have changed, the one that was used last acts."""

from __future__ import annotations

from sysbox.base.errors import SysboxError
from sysbox.container import store
from sysbox.container.locks import Lock
from sysbox.linux import inotify
from sysbox.run import tuned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record
    from sysbox.host import HostFacts

_TWO_NAMES = ("CPUShares", "CPUWeight", "Memory", "BlockIO", "IO")


def apply_newest(record: Record, facts: HostFacts | None = None) -> bool:
    """See to it that the name of a limit that was used last acts; whether there was anything to do.

    For a container that runs. Raises SysboxError.
    """
    if not any(_has_two_names(one.path) for one in tuned.drop_ins(record.id)):
        return False
    from sysbox.run import translate  # which only a container that was tuned needs

    return translate.translate(record, facts)


def _has_two_names(path: str) -> bool:
    """Whether a drop-in is of a kind of which there are two names."""
    return path.rpartition("/50-")[2].removeprefix("Startup").startswith(_TWO_NAMES)


def handle(container_id: str, fd: int = -1) -> None:
    """Something was set on its scope: `tuned.watch`'s descriptor says so, or the monitor."""
    if fd >= 0:
        inotify.drain(fd)
    try:
        with Lock(container_id):
            record = store.load(container_id)
            if not record.spec.remove:
                record = tuned.harvest(record)
            apply_newest(record)
    except SysboxError:
        pass  # ignoring: the container is being removed, or its record is damaged
