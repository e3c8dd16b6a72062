"""`sysbox attach`: connect this terminal to a container that runs in the background."""

from __future__ import annotations

from sysbox import attaching, events, state
from sysbox.cli.output import emit
from sysbox.errors import Conflict, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.options import Values

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def main(values: Values) -> int:
    """The exit status of the container, or 0 when it was left."""
    record = state.find(values.container)
    proxy = values.sig_proxy or "true"
    if proxy not in _BOOLEANS:
        raise UsageError(f"--sig-proxy {proxy}: true or false")
    if state.status(record).state == "paused":
        raise Conflict(f"container {record.name} is paused", hint=f"`sysbox unpause {record.name}`")
    keys = values.detach_keys
    if keys is None:
        keys = record.spec.detach_keys or attaching.KEYS
    wishes = attaching.Wishes(
        interactive=not values.no_stdin,
        pass_signals=_BOOLEANS[proxy] and not record.spec.tty,
        keys=attaching.parse_keys(keys, "--detach-keys"),
    )
    events.container("attach", record)
    code = attaching.attach(record, wishes)
    if code != attaching.DETACHED:
        return code
    events.container("detach", record)
    emit("\nread escape sequence\n", 2)
    return 0
