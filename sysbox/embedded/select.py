"""Which systemd to use: the machine's own, or the embedded one.

SYSBOX_HOST is auto (the default), system, embedded or embedded:NAME.
"""

from __future__ import annotations

import posix

from sysbox import errors
from sysbox.embedded.state import DEFAULT, check_name
from sysbox.host import booted


def chosen() -> str:
    """The name of the embedded host to run on; "" for the machine's own systemd.

    Raises Unsupported where neither can serve, UsageError for a value of SYSBOX_HOST that has no meaning.
    """
    wish = posix.environ.get(b"SYSBOX_HOST", b"auto").decode("utf-8", "replace") or "auto"
    kind, _, name = wish.partition(":")
    if kind not in ("auto", "system", "embedded") or (name and kind != "embedded"):
        raise errors.UsageError(
            f"SYSBOX_HOST={wish} has no meaning", hint="auto, system, embedded or embedded:NAME"
        )
    if kind == "system" or (kind == "auto" and booted()):
        if not booted():
            raise errors.Unsupported(
                "PID 1 is not systemd, and SYSBOX_HOST=system forbids the embedded host",
                hint="boot this machine with systemd, or use SYSBOX_HOST=embedded as root",
            )
        return ""
    if posix.geteuid() != 0:
        raise errors.Unsupported(
            "PID 1 is not systemd, and the embedded host can be used by root only",
            hint="run it as root, or on a machine that is booted with systemd",
        )
    return check_name(name or DEFAULT)
