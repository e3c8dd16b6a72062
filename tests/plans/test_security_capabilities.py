"""S7: capabilities are an allowlist; what is added and dropped has docker's meaning."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError, Unsupported
from sysbox.linux import capability
from sysbox.security import capabilities
from sysbox.spec import Security

HELD = (1 << 41) - 1
DROPPED_BY_THE_SEED = (
    "SETPCAP", "SYS_MODULE", "SYS_RAWIO", "SYS_PACCT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
    "SYS_TTY_CONFIG", "AUDIT_WRITE", "AUDIT_CONTROL", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "NET_ADMIN", "SYS_ADMIN",
)  # fmt: skip


def names(held: int = HELD, **fields: object) -> set[str]:
    return set(capability.names(capabilities.resolve(Security(**fields), held)))  # type: ignore[arg-type]


def test_the_default_is_eleven_and_none_of_the_fifteen() -> None:
    assert len(capabilities.DEFAULT) == 11
    # a container that has it takes its neighbours' traffic
    assert "NET_RAW" not in capabilities.DEFAULT
    assert names() == set(capabilities.DEFAULT)
    assert not names() & set(DROPPED_BY_THE_SEED)


def test_a_capability_of_a_newer_kernel_starts_dropped() -> None:
    assert names((1 << 63) - 1) == set(capabilities.DEFAULT)


def test_add_all_drop_one() -> None:
    assert names(cap_add=("all",), cap_drop=("sys-admin",)) == set(capability.NAMES) - {"SYS_ADMIN"}


def test_drop_all_add_one() -> None:
    assert names(cap_drop=("ALL",), cap_add=("CAP_NET_ADMIN",)) == {"NET_ADMIN"}
    assert names(cap_drop=("ALL",)) == set()


def test_add_and_drop() -> None:
    wanted = set(capabilities.DEFAULT) - {"MKNOD"} | {"SYS_PTRACE"}
    assert names(cap_add=("sys_ptrace",), cap_drop=("cap_mknod",)) == wanted
    assert "MKNOD" in names(cap_add=("mknod",), cap_drop=("mknod",))  # docker: the addition wins


@pytest.mark.parametrize("name", ["sys-admin", "SYS_ADMIN", "cap_sys_admin", "Cap-Sys-Admin"])
def test_spellings(name: str) -> None:
    assert capabilities.normalize(name) == "SYS_ADMIN"


@pytest.mark.parametrize("name", ["SYS_ADMON", "", "CAP_", "0", "SYS_ADMIN,MKNOD", "CHOWN\n;"])
def test_unknown_names(name: str) -> None:
    for field in ("cap_add", "cap_drop"):
        with pytest.raises(SpecError, match="unknown capability"):
            names(**{field: (name,)})


def test_did_you_mean() -> None:
    with pytest.raises(SpecError) as caught:
        names(cap_add=("sys-admn",))
    assert caught.value.hint == "did you mean 'SYS_ADMIN'?"


def test_what_the_host_lacks_is_absent_unless_it_was_named() -> None:
    held = HELD & ~capability.mask(("SYS_RESOURCE", "MKNOD"))
    everything = set(capability.NAMES) - {"SYS_RESOURCE", "MKNOD"}
    assert names(held) == set(capabilities.DEFAULT) - {"MKNOD"}
    assert names(held, cap_add=("ALL",)) == everything
    assert names(held, privileged=True) == everything
    with pytest.raises(Unsupported, match="SYS_RESOURCE"):
        names(held, cap_add=("SYS_RESOURCE",))


def test_a_user_has_what_was_added() -> None:
    def users(granted: int = HELD, **fields: object) -> set[str]:
        security = Security(**fields)  # type: ignore[arg-type]
        mask = capabilities.resolve(security, granted)
        return set(capability.names(capabilities.of_users(security, mask)))

    assert users() == set()
    assert users(cap_add=("NET_ADMIN", "KILL")) == {"NET_ADMIN", "KILL"}
    assert users(cap_add=("ALL",), cap_drop=("SYS_ADMIN",)) == set(capability.NAMES) - {"SYS_ADMIN"}
    assert users(cap_drop=("ALL",), cap_add=("KILL",)) == {"KILL"}
    # podman: --privileged is no addition
    assert users(privileged=True) == set()
    assert users(privileged=True, cap_add=("KILL",)) == {"KILL"}
    assert users(privileged=True, cap_add=("KILL",), cap_drop=("KILL",)) == set()
    # what the host lacks is not in it
    assert "BPF" not in users(HELD & ~capability.mask(("BPF",)), cap_add=("ALL",))


def test_privileged_has_all_but_what_was_dropped() -> None:
    assert names(privileged=True) == set(capability.NAMES)
    assert names(privileged=True, cap_drop=("SYS_BOOT",)) == set(capability.NAMES) - {"SYS_BOOT"}
