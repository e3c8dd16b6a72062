"""The image to which an `auto-update` may go back: until it has ended nobody removes it.

While a service starts with the newer image, no name and no container needs the older one.
"""

from __future__ import annotations

import posix

from sysbox.base import codec
from sysbox.base.errors import FormatError
from sysbox.base.files import make_private, read_file, unlink, write_file
from sysbox.base.frozen import Frozen
from sysbox.base.paths import RUN
from sysbox.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PATH = f"{RUN}/way-back.json"


class _Way(Frozen):
    """Who may go back to what."""

    image: str  # its id
    containers: tuple[str, ...]  # names
    pid: int  # of the command
    started: int  # its start time: a killed command keeps nothing


class Kept:
    """A context manager: within it the containers may go back to the image.

    The caller holds the lock on updates. Raises KernelError.
    """

    def __init__(self, image: str, containers: Sequence[str]) -> None:
        pid = posix.getpid()
        self._way = _Way(
            image=image,
            containers=tuple(containers),
            pid=pid,
            started=process.start_time(pid),
        )

    def __enter__(self) -> None:
        make_private(RUN)
        write_file(PATH, codec.dumps(self._way.to_data()))

    def __exit__(self, *_: object) -> None:
        unlink(PATH)


def users_of(image: str) -> tuple[str, ...]:
    """The names of the containers that may go back to an image."""
    try:
        data = read_file(PATH)
        if data is None:
            return ()
        way = _Way.from_data(codec.loads(data, PATH), PATH)
    except (FormatError, ValueError):
        return ()  # ignoring: no update has written that
    is_going_on = process.start_time(way.pid) == way.started
    return way.containers if way.image == image and is_going_on else ()
