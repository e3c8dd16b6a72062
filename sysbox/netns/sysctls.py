"""The kernel parameters of the network namespace that this process is in, below /proc/sys/net."""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError
from sysbox.host import read_text
from sysbox.linux import sysctl


def write(name: str, value: str, *, missing_ok: bool) -> None:
    """Write a parameter such as "net/ipv4/ip_forward". Raises KernelError."""
    path = f"/proc/sys/{name}"
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    except FileNotFoundError as error:
        if missing_ok:
            return
        raise KernelError.of("open", path, error) from None
    except OSError as error:
        if error.errno == errno.EROFS:  # inside a container
            sysctl.write_anew(name, value)
            return
        raise KernelError.of("open", path, error) from None
    try:
        posix.write(fd, value.encode("ascii"))
    except OSError as error:
        raise KernelError.of(f"write {value} to", path, error) from None
    finally:
        posix.close(fd)


def has_ipv6() -> bool:
    """Whether the kernel has IPv6."""
    return read_text("/proc/sys/net/ipv6/conf/all/forwarding") != ""


def forward_ipv6() -> None:
    """Switch on IPv6 forwarding, and keep what the host has learned from its routers. Raises KernelError.

    A link that forwards ignores router advertisements, and with them the host's default route, unless its
    accept_ra is 2 (the kernel's ip-sysctl document).
    """
    if read_text("/proc/sys/net/ipv6/conf/all/forwarding").strip() == "1":
        return
    for name in posix.listdir("/proc/sys/net/ipv6/conf"):
        path = f"net/ipv6/conf/{name}/accept_ra"
        if name not in ("all", "default", "lo") and read_text(f"/proc/sys/{path}").strip() == "1":
            write(path, "2", missing_ok=True)
    write("net/ipv6/conf/all/forwarding", "1", missing_ok=False)
