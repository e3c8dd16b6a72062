"""`sysbox version`: the versions of sysbox and Python, or docker's keys with a format."""

from __future__ import annotations

import posix
import sys

from sysbox.base import program
from sysbox.cli.output import line, print_object
from sysbox.docker.shapes import Struct
from sysbox.host import architecture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.cli.table.options import Values

API = "1.41"  # of docker 20.10; `inspect`, `info` and other verbs print its keys


def main(values: Values) -> int:
    """0."""
    if values.format:
        print_object(collect(), values.format)
    else:
        line(f"sysbox {program.VERSION} (Python {_python()})")
    return 0


def collect() -> dict[str, Any]:
    """docker's keys. There is no server: the command itself is shown as both client and server."""
    system = posix.uname()
    common = {"Version": program.VERSION, "ApiVersion": API}
    built = {"GitCommit": "", "GoVersion": "", "Os": "linux", "Arch": architecture()}
    platform = {"Name": "sysbox"}
    client = {
        "Platform": platform,
        **common,
        "DefaultAPIVersion": API,
        **built,
        "BuildTime": "",
        "Context": "default",
        "Experimental": False,
    }
    details = {
        "ApiVersion": API,
        "Arch": architecture(),
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": "",
        "KernelVersion": system.release,
        "MinAPIVersion": API,
        "Os": "linux",
    }
    server = {
        "Platform": platform,
        "Components": [
            {"Name": "Engine", "Version": program.VERSION, "Details": details},
            {"Name": "Python", "Version": _python(), "Details": {"GitCommit": ""}},
        ],
        **common,
        "MinAPIVersion": API,
        **built,
        "KernelVersion": system.release,
        "Experimental": False,
        "BuildTime": "",
    }
    return {"Client": Struct(client), "Server": Struct(server), "Sysbox": {"Python": _python()}}


def _python() -> str:
    return ".".join(map(str, sys.version_info[:3]))
