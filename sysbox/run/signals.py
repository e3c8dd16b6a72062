"""The signals that ask a container to end, and how those of its supervisor are passed on."""

from __future__ import annotations

import _signal

from sysbox.base.errors import (
    KernelError,
    NotFound,
)
from sysbox.container import systemd_mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record, Runtime
    from sysbox.image.model import Image


def send(runtime: Runtime, signal: int) -> None:
    """A signal to its first process; one that is gone meanwhile is fine."""
    try:
        runtime.send(signal)
    except KernelError:
        pass  # ignoring: it is gone


def stop_signal(record: Record, image: Image | None = None) -> int:
    """The signal that asks it to end: the user's, the image's, systemd's if that is what runs, SIGTERM."""
    from sysbox.image.store import Store  # to remove one takes none of it
    from sysbox.parse.time import parse_signal

    asked = record.spec.stop_signal
    default = systemd_mode.stop_signal(record.spec, record.argv)
    if not asked:
        try:
            asked = (image or Store().resolve(record.image_id)).config.stop_signal
        except NotFound:
            asked = ""
    return parse_signal(asked or default, "stop signal")


def passed_on(record: Record, image: Image | None = None) -> dict[int, int]:
    """The signals that reach the container as others: of SIGTERM systemd makes something else."""
    if not systemd_mode.applies(record.spec, record.argv):
        return {}
    return {_signal.SIGTERM: stop_signal(record, image)}
