"""The environment of a container's process. It starts empty and is never a filtered copy of the caller's,
so that no variable of the host or of another container can leak (CVE-2021-3602, CVE-2020-14370).
"""

from __future__ import annotations

from sysbox.base.errors import SpecError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def build_env(
    image_env: tuple[str, ...],
    spec_env: tuple[str, ...],
    home: str,
    hostname: str,
    tty: bool,  # noqa: FBT001
) -> tuple[str, ...]:
    """The strings "NAME=VALUE" for execve(2).

    In docker's order: PATH, HOSTNAME, TERM (with a terminal), the image's, the user's, and HOME where
    neither sets it. A later value of a name wins.

    Raises SpecError for an entry without a name or "=", or with a NUL.
    """
    values: dict[str, str] = {"PATH": PATH}
    if hostname:
        values["HOSTNAME"] = hostname
    if tty:
        values["TERM"] = "xterm"
    for entry in (*image_env, *spec_env):
        name, value = split(entry)
        values[name] = value
    values.setdefault("HOME", home or "/")
    return tuple(f"{name}={value}" for name, value in values.items())


def split(entry: str) -> tuple[str, str]:
    """(name, value) of one "NAME=VALUE". Raises SpecError."""
    name, equals, value = entry.partition("=")
    if not equals or not name or "\0" in entry:
        shown = entry.replace("\0", "\\0")
        raise SpecError(f"environment variable '{shown}': must be NAME=VALUE without NUL bytes")
    return name, value
