"""bpf(2): whether the kernel accepts device programs, which control devices on cgroup v2."""

from __future__ import annotations

import posix

from sysbox.linux import _sys

_CGROUP_DEVICE = 15
# r0 = 1; exit (struct bpf_insn: opcode, registers, offset, immediate)
_ALLOW = b"\xb7\x00\x00\x00\x01\x00\x00\x00" + b"\x95" + bytes(7)


def device_programs() -> str:
    """Load a device program without attaching it: "" if the kernel accepts it, else the reason."""
    try:
        posix.close(_sys.bpf_prog_load(_CGROUP_DEVICE, _ALLOW, "GPL"))
    except OSError as error:
        return posix.strerror(error.errno or 0)
    return ""
