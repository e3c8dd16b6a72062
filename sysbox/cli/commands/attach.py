"""`sysbox attach`: connect this terminal to a container that runs in the background."""

from __future__ import annotations

from sysbox.base.errors import Conflict
from sysbox.cli import notices
from sysbox.cli.output import note
from sysbox.container import events, store
from sysbox.container.status import read_status
from sysbox.run import attach, detach_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """The exit status of the container, or 0 after the keys to detach."""
    record = store.find(values.container)
    if read_status(record).state == "paused":
        raise Conflict(f"container {record.name} is paused", hint=f"`sysbox unpause {record.name}`")
    keys = values.detach_keys
    if keys is None:
        keys = record.spec.detach_keys or detach_keys.DEFAULT
    options = attach.AttachOptions(
        interactive=not values.no_stdin,
        pass_signals=values.sig_proxy and not record.spec.tty,
        keys=detach_keys.parse(keys, "--detach-keys"),
        on_third_interrupt=None if record.spec.tty else _note_leaving,
    )
    events.container("attach", record)
    code = attach.attach(record, options)
    if code != attach.DETACHED:
        return code
    events.container("detach", record)
    notices.Notices().detached(record)
    return 0


def _note_leaving() -> bool:
    """Called at the third ctrl-c: print a note; False says not to kill the container."""
    note("ctrl-c three times: leaving the container running")
    return False
