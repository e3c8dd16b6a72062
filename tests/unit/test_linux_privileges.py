"""Capabilities, seccomp, keyrings and namespaces: what a container's process is left with."""

from __future__ import annotations

import os
import struct
import subprocess

import pytest
from forked import in_child, needs_root

from sysbox.base.errors import KernelError, SpecError
from sysbox.linux import _sys, capability, keyring, namespace, seccomp
from sysbox.linux.process import PR_SET_NO_NEW_PRIVS

PR_SET_KEEPCAPS = 8


def test_names_and_masks() -> None:
    assert capability.number("cap_sys_admin") == capability.number("SYS_ADMIN") == 21
    assert capability.mask(("CHOWN", "CHECKPOINT_RESTORE")) == 1 | 1 << 40
    assert capability.names(1 << 0 | 1 << 12 | 1 << 60) == ("CHOWN", "NET_ADMIN", "60")
    with pytest.raises(SpecError, match="SYS_ADMINN"):
        capability.number("SYS_ADMINN")


def test_last_cap_is_the_kernel_s() -> None:
    with open("/proc/sys/kernel/cap_last_cap") as file:
        assert capability.last_cap() == int(file.read())


def status_sets() -> dict[str, int]:
    with open("/proc/self/status") as file:
        pairs = (line.split(":\t") for line in file if line.startswith("Cap"))
        return {key: int(value, 16) for key, value in pairs}


def test_held_is_what_can_be_given() -> None:
    sets = status_sets()
    assert capability.grantable() == sets["CapBnd"] & sets["CapPrm"]


def test_only_the_mask_is_left() -> None:
    needs_root()
    keep = capability.mask(("CHOWN", "KILL"))

    def confine() -> dict[str, int]:
        capability.drop_bounding(keep)
        capability.apply(capability.docker_sets(keep))
        return status_sets()

    assert in_child(confine) == {
        "CapInh": 0, "CapPrm": keep, "CapEff": keep, "CapBnd": keep, "CapAmb": 0,
    }  # fmt: skip


def test_capabilities_survive_a_change_of_user_when_kept() -> None:
    needs_root()
    keep = capability.mask(("NET_BIND_SERVICE",))

    def change() -> int:
        _sys.prctl(PR_SET_KEEPCAPS, 1)
        os.setresuid(65534, 65534, 65534)
        capability.apply(capability.docker_sets(keep))
        return status_sets()["CapEff"]

    assert in_child(change) == keep


def test_each_of_the_five_sets_is_its_own() -> None:
    """And what is ambient goes to the program that a user who is not root executes."""
    needs_root()
    bind, kill, chown = (capability.mask((name,)) for name in ("NET_BIND_SERVICE", "KILL", "CHOWN"))

    def change() -> tuple[dict[str, int], str]:
        capability.drop_bounding(bind | kill | chown)
        capability.keep_caps()
        os.setresuid(65534, 65534, 65534)
        sets = capability.Sets(
            bounding=bind | kill | chown,
            permitted=bind | kill,
            effective=kill,
            inheritable=bind,
            ambient=bind,
        )
        capability.apply(sets)
        done = subprocess.run(
            ["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True, check=True
        )
        return status_sets(), done.stdout.split()[1]

    found, executed = in_child(change)
    assert found == {
        "CapInh": bind, "CapPrm": bind | kill, "CapEff": kill, "CapBnd": bind | kill | chown, "CapAmb": bind,
    }  # fmt: skip
    assert int(executed, 16) == bind


def test_what_is_not_permitted_cannot_be_raised() -> None:
    def raise_it() -> str:
        capability.apply(capability.Sets())
        try:
            capability.apply(capability.docker_sets(1))
        except KernelError as error:
            return str(error)
        return "raised"

    assert "CHOWN" in in_child(raise_it)


def test_seccomp_filter_acts() -> None:
    number = {"x86_64": 63, "aarch64": 160}[os.uname().machine]  # uname(2)
    instructions = [
        (0x20, 0, 0, 0),  # load the number of the system call
        (0x15, 0, 1, number),
        (0x06, 0, 0, 0x00050000 | 111),  # return errno 111
        (0x06, 0, 0, 0x7FFF0000),  # allow
    ]
    program = b"".join(struct.pack("=HBBI", *one) for one in instructions)

    def filtered() -> int:
        _sys.prctl(PR_SET_NO_NEW_PRIVS, 1)
        seccomp.load(program)
        try:
            os.uname()
        except OSError as error:
            return error.errno or 0
        return 0

    assert in_child(filtered) == 111


def test_seccomp_says_what_it_was_doing() -> None:
    def load() -> str:
        try:
            seccomp.load(b"\xff" * 8)
        except KernelError as error:
            return str(error)
        return "loaded"

    assert "seccomp" in in_child(load)


def test_session_keyring_is_a_new_one() -> None:
    def join() -> tuple[int, int]:
        return keyring.join_session(None), keyring.join_session(None)

    first, second = in_child(join)
    assert first != second or first == 0


def test_namespace_probe_and_handles() -> None:
    probed = namespace.probe()
    assert set(probed) == set(namespace.KINDS)
    assert probed["mount"]
    assert next(iter(namespace.KINDS)) == "user", "the one that owns the others is joined first"
    fd = namespace.open_ns(os.getpid(), "network")
    assert os.fstat(fd).st_ino == os.stat("/proc/self/ns/net").st_ino
    os.close(fd)
    with pytest.raises(KernelError):
        namespace.open_ns(2**22 + 1, "pid")


def test_every_namespace_kind_can_be_made() -> None:
    needs_root()
    for kind, (flag, file) in namespace.KINDS.items():
        if not namespace.probe()[kind]:
            continue

        def change(flag: int = flag, file: str = file) -> bool:
            name = (
                f"/proc/self/ns/{file}_for_children"
                if file in ("pid", "time")
                else f"/proc/self/ns/{file}"
            )
            before = os.readlink(f"/proc/self/ns/{file}")
            _sys.unshare(flag)
            if file == "pid":
                return True  # the link is empty until the first child
            return os.readlink(name) != before

        assert in_child(change), kind
