"""The host's sysctls that containers' networks need, and what they were before.

Forwarding is the only one; for IPv6 it makes the kernel ignore router advertisements, unless accept_ra is 2
(ip-sysctl): links of the host that had 1 get 2, so that the host keeps its own default route.
"""

from __future__ import annotations

import posix

from sysbox.base import paths
from sysbox.base.errors import KernelError
from sysbox.base.files import make_private, read_file, unlink, write_file
from sysbox.host import read_text
from sysbox.netns import sysctls

RECORD = f"{paths.NETWORK}/sysctls"  # "NAME BEFORE" of each that was changed
_ROOT = "/proc/sys"
_IPV4 = "net/ipv4/ip_forward"
_IPV6 = "net/ipv6/conf/all/forwarding"
_LINKS = "/proc/sys/net/ipv6/conf"


def enable(*, ipv6: bool = False) -> None:
    """Switch on forwarding. Raises KernelError where /proc/sys cannot be written."""
    wanted: dict[str, str] = {}
    if _value(_IPV4) != "1":
        wanted[_IPV4] = "1"
    if ipv6 and _value(_IPV6) not in ("1", ""):
        for link in sorted(posix.listdir(_LINKS)):
            name = f"net/ipv6/conf/{link}/accept_ra"
            if link not in ("all", "default", "lo") and _value(name) == "1":
                wanted[name] = "2"
        wanted[_IPV6] = "1"
    if not wanted:
        return
    before = {name: _value(name) for name in wanted}
    _store({**before, **changed()})
    for name, value in wanted.items():
        sysctls.write(name, value, missing_ok=False)


def restore() -> None:
    """Put back what `enable` has changed, in the opposite order; what others changed since stays."""
    before = changed()
    for name, value in reversed(before.items()):
        if _value(name) == ("2" if name.endswith("/accept_ra") else "1"):
            try:
                sysctls.write(name, value, missing_ok=False)
            except KernelError:
                continue  # ignoring: the link is gone
    unlink(RECORD)


def changed() -> dict[str, str]:
    """Sysctl, as a path below /proc/sys -> its value before sysbox changed it."""
    lines = (read_file(RECORD) or b"").decode("utf-8", "replace").splitlines()
    pairs = (line.partition(" ") for line in lines)
    return {name: value for name, space, value in pairs if space}


def _store(before: dict[str, str]) -> None:
    text = "".join(f"{name} {value}\n" for name, value in before.items())
    make_private(paths.NETWORK)  # the first container of a boot is just starting
    write_file(RECORD, text.encode("utf-8"))


def _value(name: str) -> str:
    return read_text(f"{_ROOT}/{name}").strip()
