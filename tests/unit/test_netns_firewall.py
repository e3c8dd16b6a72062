"""Published ports without a packet filter: what a removal that failed leads to, and what the record keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysbox.base.errors import Conflict, SysboxError, Unsupported
from sysbox.netns import firewall, firewall_iptables, firewall_mark, firewall_nft, ports
from sysbox.netns.firewall_mark import Mark
from sysbox.netns.rules import Policy, Published
from sysbox.netns.topology import port_text
from sysbox.spec import Port

POLICY = Policy(bridge="sysbox0", subnet="10.90.0.0/16")
MINE, OTHER = (
    Published(id=container * 64, address=f"10.90.0.{number}", port=Port(container_port=80, host_port=number))
    for container, number in (("a", 8), ("b", 9))
)  # fmt: skip


@pytest.fixture(autouse=True)
def _files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(firewall, "_LOCK", f"{tmp_path}/lock")
    monkeypatch.setattr(ports, "FILE", f"{tmp_path}/ports")
    monkeypatch.setattr(firewall_mark, "MARK", f"{tmp_path}/rules")


def _mark(backend: str) -> None:
    firewall_mark.write(Mark(backend=backend, policies=(POLICY,)))


@pytest.mark.parametrize(
    ("statuses", "made_again"),
    [([0], False), ([1, 0], False), ([1, 1], False), ([4, 4], True), ([1, 4], True)],
)
def test_a_rule_that_iptables_could_not_remove_is_left_out(
    monkeypatch: pytest.MonkeyPatch, statuses: list[int], made_again: bool
) -> None:
    """It would lead to the next container with that address. 1: there is no such rule; 4: no lock."""
    applied: list[tuple[Published, ...]] = []
    left = iter(statuses)
    _mark("iptables-legacy")
    monkeypatch.setattr(firewall_iptables, "_restore", lambda *_: (next(left), ""))
    monkeypatch.setattr(firewall, "_apply", lambda _, entries, mark: applied.append(entries))
    ports.store(ports.render((MINE, OTHER)))
    firewall.unpublish(MINE.id)
    assert applied == ([(OTHER,)] if made_again else [])
    assert ports.load() == (OTHER,)
    assert next(left, None) is None


def test_a_port_that_could_not_be_published_is_not_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(entries: tuple[Published, ...]) -> bool:
        assert ports.load() == (OTHER, *entries), "recorded before: after a crash gc finds it"
        raise SysboxError("refused")

    _mark("nft")
    ports.store(ports.render((OTHER,)))
    monkeypatch.setattr(firewall_nft, "publish", refuse)
    with pytest.raises(SysboxError, match="refused"):
        firewall.add("a" * 64, (Port(container_port=80),), ("10.90.0.8",))
    assert ports.load() == (OTHER,)


def test_the_mark_of_an_older_version_is_of_the_legacy_tables() -> None:
    Path(firewall_mark.MARK).write_text(f"{firewall_mark.namespace()}\n{POLICY.line()}\n")
    assert firewall_mark.read() == Mark(backend="iptables-legacy", policies=(POLICY,))


@pytest.mark.parametrize("text", ["", "1 nft\n", "HERE ufw\n", "HERE nft\nsysbox0\n"])
def test_a_mark_of_elsewhere_or_a_damaged_one_is_none(text: str) -> None:
    Path(firewall_mark.MARK).write_text(text.replace("HERE", firewall_mark.namespace()))
    assert firewall_mark.read() is None


def test_the_mark_says_why() -> None:
    mark = Mark(backend="nft", why="no packet filter had rules", policies=(POLICY,))
    firewall_mark.write(mark)
    assert firewall_mark.read() == mark


def test_a_port_needs_an_address_of_its_family() -> None:
    port = Port(container_port=80, host_port=8080, host_ip="::1")
    with pytest.raises(Conflict, match="has no IPv6 address"):
        ports.resolve((port,), [], ("10.90.0.2",))


def test_a_protocol_that_the_kernel_lacks_is_one_clear_line() -> None:
    port = Port(container_port=80, host_port=8080, protocol="sctp")
    words = f"port {port_text(port)}: this kernel has no sctp"
    found: object = None
    try:
        found = ports.resolve((port,), [], ("10.90.0.2",))
    except Unsupported as error:
        found = error.message
    assert found in ((port,), words)


def test_the_file_has_both_families() -> None:
    six = Published(
        id="c" * 64, address="fd00::2", port=Port(container_port=1, host_port=2, host_ip="::1")
    )
    assert ports.parse(ports.render((MINE, six))) == (MINE, six)
