"""A profile that is made of recorded system calls: what it allows is what was called, and no more."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
from test_security_seccomp import ALLOW, X86, X86_64, refused, run

from sysbox.linux import capability
from sysbox.security import bpf, capabilities, profile, profile_json, recorded
from sysbox.spec import Security

EPERM, ENOSYS = refused(errno.EPERM), refused(errno.ENOSYS)
DEFAULT = capabilities.resolve(Security(), (1 << 41) - 1)
ADMIN = capability.mask(("SYS_ADMIN", "SYS_CHROOT"))
GETPID, OPENAT, MKDIR, CLONE, CLONE3, SOCKET, IOCTL = 39, 257, 83, 56, 435, 41, 16
UPPER = 0xDEADBEEF << 32


def made(*calls: int, privileged: bool = False, arch: int = X86_64) -> dict[str, Any]:
    pairs = [(arch, number) for number in calls]
    found = json.loads(recorded.profile_of(pairs, privileged=privileged, machine="x86_64"))
    assert isinstance(found, dict)
    return found


def compiled(data: object, mask: int = DEFAULT) -> bytes:
    parsed = profile_json.parse(json.dumps(data).encode(), "/p.json")
    return bpf.compile_profile(parsed, mask, "x86_64")


def test_it_allows_what_was_called_and_what_sysbox_needs() -> None:
    program = compiled(made(GETPID, OPENAT))
    assert [run(program, number) for number in (GETPID, OPENAT, 59, 231)] == [ALLOW] * 4
    assert [run(program, number) for number in (MKDIR, 165, 57, 425)] == [EPERM] * 4
    assert run(program, 5000) == ENOSYS
    # a C library falls back to clone(2), as under the default profile
    assert run(program, CLONE3) == ENOSYS
    assert run(compiled(made(439)), CLONE3) == ENOSYS  # with calls that are newer than it


def test_names_are_sorted_and_the_same_calls_make_the_same_bytes() -> None:
    pairs = [(X86_64, number) for number in (OPENAT, GETPID, 0, 1)]
    one = recorded.profile_of(pairs, privileged=False, machine="x86_64")
    assert recorded.profile_of(reversed(pairs), privileged=False, machine="x86_64") == one
    for rule in json.loads(one)["syscalls"]:
        assert rule["names"] == sorted(set(rule["names"]))


def test_architectures_are_those_of_the_calls() -> None:
    both = [(X86_64, GETPID), (X86, 122)]  # uname(2) of 32 bits
    data = json.loads(recorded.profile_of(both, privileged=False, machine="x86_64"))
    assert data["archMap"][0]["subArchitectures"] == ["SCMP_ARCH_X86"]
    program = compiled(data)
    assert (run(program, 122, arch=X86), run(program, 20, arch=X86)) == (ALLOW, ALLOW)
    assert run(compiled(made(GETPID)), 20, arch=X86) == ENOSYS
    x32 = made(0x40000000 | GETPID, privileged=True)
    assert x32["archMap"][0]["subArchitectures"] == ["SCMP_ARCH_X32"]
    # numbers that are no calls, of architectures that are none
    wrong = [(X86_64, 1999), (X86_64, 0x40000000 | 1999), (5, 5), (0xFFFFFFFF, 0xFFFFFFFF)]
    assert recorded.profile_of(wrong, privileged=False, machine="x86_64") == recorded.profile_of(
        [], privileged=False, machine="x86_64"
    )


def test_conditions_of_the_default_profile_stay() -> None:
    """Whatever was recorded, nothing is allowed that the default profile refuses."""
    numbers = range(460)
    data = made(*numbers)
    for mask in (DEFAULT, ADMIN, (1 << 41) - 1, 0):
        program = compiled(data, mask)
        own = bpf.compile_profile(profile.default(), mask, "x86_64")
        for number in numbers:
            for args in ((), (0x10000011,), (38,), (0, 0x5412), (0x20008,)):
                if run(own, number, args) != ALLOW:
                    assert run(program, number, args) != ALLOW, (number, args)
                elif number not in (102,):
                    assert run(program, number, args) == ALLOW, (number, args)


@pytest.mark.parametrize(
    ("call", "index", "wrong"), [(SOCKET, 0, (38, 40)), (IOCTL, 1, (0x5412, 0x541C))],
    ids=["socket", "ioctl"],
)  # fmt: skip
def test_values_that_no_profile_can_exclude(call: int, index: int, wrong: tuple[int, ...]) -> None:
    """Every value but these, whatever the upper half of the argument is."""
    program = compiled(made(call))
    near = {value ^ 1 << bit for value in wrong for bit in range(32)}
    for value in near | {0, 0xFFFFFFFF, *range(64), *range(0x5400, 0x5460)} | set(wrong):
        for upper in (0, UPPER):
            args = (7,) * index + (value | upper,)
            assert (run(program, call, args) == ALLOW) is (value not in wrong), hex(value)
    held = compiled(made(call), ADMIN)
    assert (run(held, call, (7,) * index + (wrong[0],)) == ALLOW) is (call == IOCTL)


def test_a_privileged_container_has_no_conditions() -> None:
    """What it called without a filter is allowed: calls that the default profile refuses too."""
    program = compiled(made(SOCKET, CLONE, CLONE3, 425, 250, privileged=True), 0)
    for number in (SOCKET, CLONE, CLONE3, 425, 250):
        assert run(program, number, (38,)) == ALLOW
    assert run(program, MKDIR) == EPERM
    # of a process of `exec --privileged`, in a container that is not
    assert run(compiled(made(425)), 425) == EPERM


def test_the_recorders_filter_asks_about_all_but_write() -> None:
    program = bpf.recorder("x86_64")
    for number in (0, GETPID, 5000, 0x40000001):
        assert run(program, number) == 0x7FC00000
    assert run(program, 1) == ALLOW
    assert run(program, 1, arch=X86) == 0x7FC00000  # exit(2) there
