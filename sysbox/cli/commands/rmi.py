"""`sysbox rmi`: remove names of images, and the images that have no name left."""

from __future__ import annotations

from sysbox.base import program
from sysbox.base.errors import NotFound, SysboxError
from sysbox.cli import standing
from sysbox.cli.output import line, report
from sysbox.image.store import Store
from sysbox.lifecycle import prune

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values

_FAILED_ONE = 1  # docker's status when one of several failed


def main(values: Values) -> int:
    """0, 1 if one of them could not be removed; with -f a missing one is reported, but no failure."""
    store = Store()
    made = standing.makers(standing.IMAGE)
    known = {one: unit for one, unit in made.items() if _is_there(store, one)}
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
    for one, unit in known.items():
        if not _is_there(store, one):
            standing.tell_removed(standing.IMAGE, one, unit)
    return status


def _is_there(store: Store, name: str) -> bool:
    try:
        store.find(name)
    except SysboxError:
        return False
    return True
