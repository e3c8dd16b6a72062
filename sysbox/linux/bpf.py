"""bpf(2): the programs by which systemd controls devices on cgroup v2, and filters packets on either."""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError
from sysbox.linux import _sys

_CGROUP_SKB, _CGROUP_DEVICE = 8, 15  # enum bpf_prog_type
_INGRESS, _EGRESS = 0, 1  # enum bpf_attach_type, of cgroups
# r0 = 1; exit (struct bpf_insn: opcode, registers, offset, immediate)
_ALLOW = b"\xb7\x00\x00\x00\x01\x00\x00\x00" + b"\x95" + bytes(7)


def device_programs() -> str:
    """Load a device program without attaching it: "" if the kernel accepts it, else the reason."""
    return _load(_CGROUP_DEVICE)


def packet_programs() -> str:
    """The same for a program that filters packets."""
    return _load(_CGROUP_SKB)


def _load(kind: int) -> str:
    try:
        posix.close(_sys.bpf_prog_load(kind, _ALLOW, "GPL"))
    except OSError as error:
        return posix.strerror(error.errno or 0)
    return ""


def filters(directory: str) -> tuple[int, int]:
    """How many programs filter what a cgroup (v2) receives, and what it sends. Raises KernelError."""
    fd = -1
    try:
        fd = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        return _sys.bpf_prog_count(fd, _INGRESS), _sys.bpf_prog_count(fd, _EGRESS)
    except OSError as error:
        raise KernelError.of("look for the packet filters of", directory, error) from None
    finally:
        if fd >= 0:
            posix.close(fd)
