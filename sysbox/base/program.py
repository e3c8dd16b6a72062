"""How this process was started, and third-party packages.

cli/dispatch.py sets the variables before a verb runs; service units that sysbox makes name the
launcher in ExecStart=.
"""

from __future__ import annotations

import sys

VERSION = "0.1.0"  # as in meson.build; a test compares them

launcher: str = "/usr/bin/sysbox"  # absolute path of the command that was called
debug: bool = False  # `sysbox --debug`: show tracebacks
# exit status of a failure: 1, as docker has it; 125 in verbs that otherwise pass on a command's status
failed: int = 1
_site_loaded = False


def load_site() -> None:
    """Make third-party packages importable, wherever this interpreter keeps them.

    The interpreter is started with -S, since reading every .pth file costs tens of milliseconds. Code that
    imports a package (click, pystemd, dbus_next, pyroute2, iptc) calls this first.
    """
    global _site_loaded
    if _site_loaded:
        return
    _site_loaded = True
    import site

    before = set(sys.path)
    site.main()
    # directories that `site` added come last: none may shadow the standard library
    sys.path[:] = [entry for entry in sys.path if entry in before] + [
        entry for entry in sys.path if entry not in before
    ]
