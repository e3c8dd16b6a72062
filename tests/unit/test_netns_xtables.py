"""The legacy tables without a program, in a network namespace of the test's."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from forked import in_child

from sysbox.linux.namespace import CLONE_NEWNET
from sysbox.netns import xtables


@pytest.fixture(autouse=True)
def _needs(requires: Any) -> None:
    requires.root()
    requires.program("iptables-legacy")


@pytest.mark.parametrize(("family", "program"), [(4, "iptables-legacy"), (6, "ip6tables-legacy")])
def test_rules_policies_and_jumps_are_read(family: int, program: str) -> None:
    def table(*words: str) -> xtables.Table:
        if words:
            subprocess.run([program, *words], check=True)
        found = xtables.read(family, "filter")
        assert found
        return found

    def body() -> None:
        assert xtables.read(family, "filter") is None, "asking does not make it"
        assert xtables.tables(family) == ()
        assert table("-S") == xtables.Table(rules=0, drops=False, jumps=())
        assert table("-P", "FORWARD", "DROP").drops
        assert table("-N", "SYSBOX-FORWARD") == table()
        table("-A", "SYSBOX-FORWARD", "-p", "tcp", "-j", "ACCEPT")
        table("-N", "EMPTY")
        assert table("-A", "INPUT", "-p", "udp", "-j", "DROP").rules == 1
        table("-A", "FORWARD", "-i", "lo", "-j", "SYSBOX-FORWARD")
        found = table("-I", "FORWARD", "-j", "EMPTY")
        assert found.jumps == (("FORWARD", "EMPTY"), ("FORWARD", "SYSBOX-FORWARD"))
        assert found.rules == 3
        assert table("-F", "FORWARD").jumps == ()

    in_child(body, CLONE_NEWNET)


def test_a_large_table_is_read_whole() -> None:
    def body() -> None:
        rules = "".join(
            f"-A SYSBOX-X -p tcp --dport {number} -j ACCEPT\n" for number in range(1, 3001)
        )
        text = f"*filter\n:SYSBOX-X - [0:0]\n{rules}-A INPUT -j SYSBOX-X\nCOMMIT\n"
        subprocess.run(["iptables-legacy-restore"], input=text, text=True, check=True)
        found = xtables.read(4, "filter")
        assert found
        assert found.jumps == (("INPUT", "SYSBOX-X"),)

    in_child(body, CLONE_NEWNET)
