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
