"""`sysbox rm`: remove containers."""

from __future__ import annotations

from sysbox.base.errors import FormatError, NotFound, UsageError
from sysbox.base.files import is_directory
from sysbox.base.paths import CONTAINERS
from sysbox.cli.commands.stop import seconds, stop_all
from sysbox.cli.each import each, for_each, ignoring, named
from sysbox.cli.output import line, note
from sysbox.container import store
from sysbox.lifecycle import control
from sysbox.lifecycle.remove import Killed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.cli.table.options import Values

_ABREAST = 32  # containers that end at the same time; each has an open file meanwhile


def main(values: Values) -> int:
    """0, 1 if one of them could not be removed; with -f a missing one is reported, but no failure."""
    timeout = seconds(values)
    if timeout is not None and not values.force:
        raise UsageError("--time is for running containers, which need --force", hint="add -f")
    if not values.force:
        names = named(values, ignoring(values))
        return for_each(names, lambda record: _remove(record, values), ignore=values.ignore)

    def missing(error: NotFound) -> None:
        if not values.ignore:
            note(error.message)

    # the ids once and for all: while others end, a name may become another container's
    ids: dict[str, str] = {}
    for name in named(values, missing):
        if container_id := _existing(name, missing):
            ids[name] = container_id
    names = [name for name in ids if not _remove_if_damaged(name, ids[name], values)]
    status = 0
    if timeout is not None:
        # one that is gone then, by its --rm, was removed as asked
        status = stop_all([ids[name] for name in names], timeout, None, ignore=True)
    for at in range(0, len(names), _ABREAST):
        some = names[at : at + _ABREAST]
        with Killed([ids[name] for name in some]):
            status |= each(some, lambda name: _remove_by_force(ids[name], values), line)
    return status


def _remove_by_force(container_id: str, values: Values) -> None:
    """Remove a container that was there when the command began."""
    try:
        record = store.load(container_id)
    except NotFound:
        return  # --rm: its end was recorded; or another command was faster
    _remove(record, values)


def _remove(record: store.Record, values: Values) -> None:
    try:
        control.remove(record, force=values.force, volumes=values.volumes)
    except FormatError:
        if not values.force:
            raise
        _remove_damaged(record.id, values)


def _existing(name: str, missing: Callable[[NotFound], None]) -> str:
    """The id of a container; calls `missing` where there is none."""
    try:
        container_id = store.resolve(name)
        if is_directory(f"{CONTAINERS}/{container_id}"):
            return container_id
        missing(NotFound(f"no such container: {name}"))
    except NotFound as error:
        missing(error)
    return ""


def _remove_if_damaged(name: str, container_id: str, values: Values) -> bool:
    """Remove a container whose record cannot be read, and print its name; whether that was so."""
    try:
        store.load(container_id)
    except (FormatError, NotFound):
        # NotFound: a directory without a record
        _remove_damaged(container_id, values)
        line(name)
        return True
    return False


def _remove_damaged(container_id: str, values: Values) -> None:
    from sysbox.lifecycle.remove import remove_damaged  # rarely needed

    remove_damaged(container_id, with_volumes=values.volumes)
