"""`sysbox rmi`: remove names of images, and the images that have no name left."""

from __future__ import annotations

from sysbox.base import program
from sysbox.base.errors import NotFound, SysboxError
from sysbox.cli import standing
from sysbox.cli.output import line, report
from sysbox.image.catalog import meanings
from sysbox.image.reference import parse
from sysbox.image.store import Store
from sysbox.lifecycle import prune

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values

_FAILED_ONE = 1  # docker's status when one of several failed


def main(values: Values) -> int:
    """0, 1 if one of them could not be removed; with -f a missing one is reported, but no failure."""
    store = Store()
    before = _names(store)
    status = 0
    for name in values.image:
        try:
            for text in prune.remove_image(store, name, force=values.force):
                line(text)
        except SysboxError as error:
            if program.debug:
                raise
            report(error)
            if not (values.force and isinstance(error, NotFound)):
                status = _FAILED_ONE
    # only now: a systemd that does not answer delays no removal
    standing.tell_gone(standing.IMAGE, before - _names(store), _meant)
    return status


def _names(store: Store) -> set[str]:
    """The full names of all images."""
    try:
        return {entry.name for entry in store.entries() if entry.name}
    except SysboxError:
        return set()  # ignoring: what is removed has said so, and this is for a hint


def _meant(name: str) -> set[str]:
    """The full names that a unit's name for an image may mean."""
    try:
        return {one.full() for one in (parse(name), *meanings(name))}
    except SysboxError:
        return set()  # ignoring: no image has that name
