"""Networks as text, and whether a cgroup has programs that filter its packets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sysbox.base.errors import KernelError, SpecError, Unsupported
from sysbox.host import probe
from sysbox.linux import bpf
from sysbox.parse.addresses import network_text, parse_network, parse_networks, reduce
from sysbox.units.cgroup import files, packets
from sysbox.units.limits.properties import NETWORKS, Property

if TYPE_CHECKING:
    from conftest import Requires


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("any", "any"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8::1/33", "2001:db8::/33"),
        ("::ffff:1.2.3.4", "::ffff:1.2.3.4/128"),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert parse_network(text, "--ip-deny") == normal


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no address"),
        ("10", "not an address"),
        ("10.0.0.0/", "not an address"),
        ("10.0.0.0/33", "at most 32"),
        ("::/129", "0 to 128"),
        ("::1/-1", "not an address"),
        ("Any", "not an address"),
        ("10.0.0.1 10.0.0.2", "once for each"),
        ("fe80::1%eth0", "not an address"),
    ],
)
def test_no_network(text: str, why: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_network(text, "--ip-deny")
    assert why in f"{caught.value.message} {caught.value.hint}"


def test_reduce() -> None:
    """What another network contains goes; families are apart."""
    text = "10.0.0.0/9 10.128.0.0/9 10.1.0.0/16 ::/0 fd00::1 10.0.0.0/9"
    found = [network_text(one) for one in reduce(parse_networks(text, ""))]
    assert found == ["10.0.0.0/9", "10.128.0.0/9", "::/0"]
    assert reduce([(2, b"\n\0\0\0", 8), (2, b"\n\1\0\0", 16)]) == [(2, b"\n\0\0\0", 8)]


def test_a_cgroup_without_programs(requires: Requires) -> None:
    """As systemd leaves it where it cannot attach any: it only logs that."""
    requires.root()
    facts = probe()
    mount = files.unified_mount(facts)
    requires(bool(mount), "the unified hierarchy")
    path = f"/sysbox-test-{os.getpid()}"
    denied = Property(name="IPAddressDeny", signature=NETWORKS, value=[(2, bytes(4), 0)])
    Path(mount + path).mkdir()
    try:
        assert bpf.filters(mount + path) == (0, 0)
        with pytest.raises(Unsupported, match=r"^--ip-deny: systemd has attached no BPF program"):
            packets.check((denied,), path, facts)
        packets.check(
            (denied.replace(value=[]), denied.replace(name="TasksMax", value=1)), path, facts
        )
    finally:
        Path(mount + path).rmdir()
    assert "No such file" in packets.lack(path, facts)
    with pytest.raises(KernelError, match="packet filters of"):
        bpf.filters("/proc")
