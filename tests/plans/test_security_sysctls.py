"""Sysctls: by namespace, by allowlist, and nothing that is not plain text."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError
from sysbox.security import sysctls
from sysbox.spec import Namespaces

OWN = Namespaces()


def test_a_network_of_its_own_lets_everybody_ping_and_serve() -> None:
    own = dict(sysctls.settings({"net.ipv4.ping_group_range": "7 8"}, Namespaces()))
    assert own == {
        "net/ipv4/ip_unprivileged_port_start": "0",
        "net/ipv4/ping_group_range": "7 8",  # what its user says goes before
    }
    for network in ("host", f"container:{'0' * 64}", "ns:/run/x"):
        assert sysctls.settings({}, Namespaces(network=network)) == ()


def test_those_of_the_containers_own_namespaces() -> None:
    asked = {
        "net.ipv4.ip_forward": "1",
        "kernel.sem": "250\t32000 32 128",
        "fs.mqueue.msg_max": "20",
        "kernel.domainname": "example",
    }
    assert sysctls.check(asked, OWN) == (
        ("fs/mqueue/msg_max", "20"),
        ("kernel/domainname", "example"),
        ("kernel/sem", "250\t32000 32 128"),
        ("net/ipv4/ip_forward", "1"),
    )


@pytest.mark.parametrize(
    "name",
    [
        "kernel.core_pattern", "kernel.hostname", "kernel.modprobe", "vm.swappiness", "fs.file-max",
        "kernel.msgmaxx", "kernel", "kernel.sem.x", "fs.mqueue", "net", "user.max_user_namespaces",
        "", ".", "net.", "net..ipv4", ".net.x", "net/ipv4/ip_forward", "net.ipv4/../../kernel.x",
        "kernel.shm_rmid_forced+net.x", "net.ipv4.ip_forward=1", "net.x\nkernel.y", "net.x\0",
        "net.\N{CYRILLIC SMALL LETTER A}",
    ],
)  # fmt: skip
def test_every_other_name_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="--sysctl"):
        sysctls.check({name: "1"}, OWN)


@pytest.mark.parametrize("value", ["1\n2", "1\r", "\0", "\x1b[2J", "é", "x" * 5000])
def test_values(value: str) -> None:
    with pytest.raises(SpecError, match="one plain line"):
        sysctls.check({"net.ipv4.ip_forward": value}, OWN)


@pytest.mark.parametrize(
    ("name", "namespaces"),
    [
        ("net.ipv4.ip_forward", Namespaces(network="host")),
        ("net.ipv4.ip_forward", Namespaces(network="container:" + "0" * 64)),
        ("net.ipv4.ip_forward", Namespaces(network="ns:/proc/1/ns/net")),
        ("kernel.shmmax", Namespaces(ipc="host")),
        ("fs.mqueue.msg_max", Namespaces(ipc="container:" + "0" * 64)),
        ("kernel.domainname", Namespaces(uts="host")),
    ],
)
def test_not_in_a_namespace_of_somebody_elses(name: str, namespaces: Namespaces) -> None:
    with pytest.raises(SpecError, match="of the container's own"):
        sysctls.check({name: "1"}, namespaces)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("kernel.msgmaxx", "did you mean 'kernel.msgmax'?"),
        ("kernel.pid_max", "allowed: net.*"),
        ("vm.swappiness", "allowed: net.*"),
        ("vm.msgmax", "allowed: net.*"),
    ],
)
def test_what_to_write_instead(name: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        sysctls.check({name: "1"}, OWN)
    assert caught.value.hint.startswith(hint)
