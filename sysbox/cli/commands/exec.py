"""`sysbox exec`: run a command in a running container."""

from __future__ import annotations

import posix

from sysbox.base.errors import UsageError
from sysbox.cli.output import note
from sysbox.cli.request import env
from sysbox.container import store
from sysbox.parse.common import bad, clean_path
from sysbox.parse.process import parse_user
from sysbox.run.exec import DETACHED, ExecSpec, exec_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """The command's own status; 0 with -d once it runs."""
    record = store.find(values.container)
    if values.tty and values.interactive and not values.detach and not posix.isatty(0):
        raise UsageError(
            "the input device is not a terminal", hint="leave out -t, or run it from a terminal"
        )
    if values.workdir and not values.workdir.startswith("/"):
        bad("--workdir", values.workdir, "must be an absolute path in the container")
    code = exec_in(
        record,
        ExecSpec(
            argv=tuple(values.command),
            env=env.build(values.env_file, values.env),
            user=parse_user(values.user, "--user") if values.user else "",
            workdir=clean_path(values.workdir) if values.workdir else "",
            tty=values.tty,
            interactive=values.interactive,
            detach=values.detach,
            keys=_keys(values, record) if values.tty and values.interactive else b"",
            privileged=values.privileged,
        ),
    )
    if code != DETACHED:
        return code
    note(f"detached; the command is still running in {record.name}", "\n")
    return 0


def _keys(values: Values, record: store.Record) -> bytes:
    from sysbox.run import detach_keys  # needed only for a terminal

    text = values.detach_keys
    if text is None:
        text = record.spec.detach_keys or detach_keys.DEFAULT
    return detach_keys.parse(text, "--detach-keys")
