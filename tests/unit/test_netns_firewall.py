"""The removal of port rules, without a packet filter: when iptables cannot get its lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysbox.netns import firewall, ports
from sysbox.netns.rules import Policy, Published
from sysbox.spec import Port

POLICY = Policy(bridge="sysbox0", subnet="10.90.0.0/16")
MINE, OTHER = (
    Published(id=container * 64, address=f"10.90.0.{number}", port=Port(container_port=80, host_port=number))
    for container, number in (("a", 8), ("b", 9))
)  # fmt: skip


@pytest.mark.parametrize(
    ("statuses", "made_again"),
    [([0], False), ([1, 0], False), ([1, 1], False), ([4, 4], True), ([1, 4], True)],
)
def test_a_rule_that_iptables_could_not_remove_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, statuses: list[int], made_again: bool
) -> None:
    """It would lead to the next container with that address. 1: there is no such rule; 4: no lock."""
    applied: list[tuple[Published, ...]] = []
    left = iter(statuses)
    monkeypatch.setattr(firewall, "_LOCK", f"{tmp_path}/lock")
    monkeypatch.setattr(ports, "FILE", f"{tmp_path}/ports")
    monkeypatch.setattr(firewall, "_restore", lambda _: next(left))
    monkeypatch.setattr(firewall, "_marked_policies", lambda: (POLICY,))
    monkeypatch.setattr(firewall, "_apply", lambda _, entries: applied.append(entries))
    ports.store((MINE, OTHER))
    firewall.unpublish(MINE.id)
    assert applied == ([(OTHER,)] if made_again else [])
    assert ports.load() == (OTHER,)
    assert next(left, None) is None
