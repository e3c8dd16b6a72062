"""bpf(2): whether the kernel takes programs that decide about devices, as cgroup v2 needs them."""

from __future__ import annotations

_PROG_LOAD = 5
_CGROUP_DEVICE = 15
# r0 = 1; exit (struct bpf_insn: opcode, registers, offset, immediate)
_ALLOW = b"\xb7\x00\x00\x00\x01\x00\x00\x00" + b"\x95" + bytes(7)
_ATTRIBUTES = 128  # bytes; the kernel takes a longer union than it knows if the rest is zero
_NUMBERS = {"x86_64": 321, "i686": 357, "arm": 386, "armv7l": 386, "ppc64le": 361, "s390x": 351}
_GENERIC = 280  # aarch64, riscv64, loongarch64


def device_programs() -> str:
    """ "" where a device program is accepted, else why not; none is attached to anything."""
    import ctypes
    import posix

    code = ctypes.create_string_buffer(_ALLOW, len(_ALLOW))
    license_ = ctypes.create_string_buffer(b"GPL")
    attributes = ctypes.create_string_buffer(_ATTRIBUTES)
    head = (ctypes.c_uint32 * 2).from_buffer(attributes)
    head[0], head[1] = _CGROUP_DEVICE, len(_ALLOW) // 8
    pointers = (ctypes.c_uint64 * 2).from_buffer(attributes, 8)
    pointers[0], pointers[1] = ctypes.addressof(code), ctypes.addressof(license_)
    number = _NUMBERS.get(posix.uname().machine, _GENERIC)
    libc = ctypes.CDLL(None, use_errno=True)
    program = libc.syscall(
        ctypes.c_long(number), _PROG_LOAD, ctypes.byref(attributes), ctypes.c_uint(_ATTRIBUTES)
    )
    if program < 0:
        return posix.strerror(ctypes.get_errno())
    posix.close(program)
    return ""
