"""Choose the host that SYSBOX_HOST asks for, and run on it.

Hot: every ordinary verb calls this on a machine whose PID 1 is not systemd.
"""

from __future__ import annotations

import posix

from sysbox.base import errors
from sysbox.embedded import join, state
from sysbox.host import booted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def chosen_host() -> str:
    """The embedded host that SYSBOX_HOST asks for; "" for the machine's own systemd.

    The variable is auto (the default), system, embedded or embedded:NAME. Raises Unsupported if neither can
    be used, UsageError for an invalid value.
    """
    kind, name = state.wish_from_environment()
    if kind != "embedded" and booted():
        return ""
    if kind == "system":
        raise errors.Unsupported(
            "PID 1 is not systemd, and SYSBOX_HOST=system forbids the embedded host",
            hint="boot this machine with systemd, or use SYSBOX_HOST=embedded as root",
        )
    if posix.geteuid() != 0:
        raise errors.Unsupported(
            "PID 1 is not systemd, and only root can use the embedded host",
            hint="run it as root, or on a machine that is booted with systemd",
        )
    return state.check_name(name or state.DEFAULT)


def run_on_host(main: Callable[[], int], name: str = "") -> int:
    """Run `main` where SYSBOX_HOST says, or on the embedded host `name`; returns its exit status.

    Starts the host if it is not up, and says so on standard error. Raises Unsupported without a usable
    systemd. Like fork(2) it returns in two processes: with what `main` returned (or raised) in the one
    that is on the host, and with the same exit status in the one that waits for it.
    """
    target = name or chosen_host()
    if not target:
        return main()
    host = state.load_running(target)
    if host is None:
        from sysbox.embedded.boot import start

        host = start(target, say=_say)
    return join.call(host, main)


def _say(text: str) -> None:
    try:
        posix.write(2, f"sysbox: {text}\n".encode("utf-8", "surrogateescape"))
    except OSError:
        pass  # ignoring: standard error is closed
