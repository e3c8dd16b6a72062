"""After `systemctl set-property` on a scope: save what was set; of a limit's two names the last set acts."""

from __future__ import annotations

from sysbox.base.errors import Conflict, SysboxError
from sysbox.container import store
from sysbox.container.locks import Lock
from sysbox.linux import inotify
from sysbox.run import tuned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record
    from sysbox.host import HostFacts

_PATIENCE, _POLL = 3.0, 0.01  # seconds
_TWO_NAMES = ("CPUShares", "CPUWeight", "Memory", "BlockIO", "IO")


def apply_newest(record: Record, facts: HostFacts | None = None) -> bool:
    """Make the name of a limit that was set last take effect; whether anything had to be done.

    For a running container. The caller holds the lock: systemd writes the drop-ins of one call one after the
    other, and who read them in between took a name that is being unset for a limit that was taken off.
    Raises SysboxError.
    """
    if not any(_has_two_names(one.path) for one in tuned.drop_ins(record.id)):
        return False
    from sysbox.run import translate  # only a container with such a drop-in needs it

    return translate.translate(record, facts)


def apply_missed(record: Record, facts: HostFacts) -> None:
    """`apply_newest` for a verb that only looks: waits a moment for whoever works on the container.

    Most often that is the monitor, which does just this; that of an early version does not. Raises
    SysboxError.
    """
    if not any(_has_two_names(one.path) for one in tuned.drop_ins(record.id)):
        return
    from sysbox.base import wait
    from sysbox.run import translate

    def is_done() -> bool:
        if not translate.is_due(record, facts):
            return True
        try:
            with Lock(record.id, wait=False):
                translate.translate(record, facts)
        except Conflict:
            return False
        return True

    wait.until(is_done, _PATIENCE, _POLL)


def _has_two_names(path: str) -> bool:
    """Whether the drop-in at `path` sets a limit that has two names."""
    return path.rpartition("/50-")[2].removeprefix("Startup").startswith(_TWO_NAMES)


def _is_of_packets(path: str) -> bool:
    """Whether the drop-in at `path` is a list of the networks that it may exchange packets with."""
    return path.rpartition("/50-")[2].startswith("IPAddress")


def handle(container_id: str, fd: int = -1) -> None:
    """A property of the scope was set: the monitor says so, or `fd`, the descriptor of `tuned.watch`."""
    if fd >= 0:
        inotify.drain(fd)
    try:
        with Lock(container_id):
            record = store.load(container_id)
            if not record.spec.remove:
                record = tuned.harvest(record)
            if record.spec.unit:
                from sysbox.run import service_settings

                service_settings.propagate(record)
            apply_newest(record)
            if any(_is_of_packets(one.path) for one in tuned.drop_ins(record.id)):
                from sysbox.run import packet_lists  # only a container with such a drop-in needs it

                packet_lists.renew(record)
    except SysboxError:
        pass  # ignoring: the container is being removed, or its record is damaged
