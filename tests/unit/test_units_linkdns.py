"""What systemd-resolved is told of a link; tests/vm/test_host_names.py tells it to a real one."""

from __future__ import annotations

import _socket

from sysbox.units import linkdns


def test_the_server_comes_last_and_no_other_name_is_asked_of_it() -> None:
    calls = linkdns.settings(7, ("10.1.0.1", "fd00::1"))
    assert [args[0] for _, _, args in calls] == [7] * len(calls)
    by_name = {member: args[1] for member, _, args in calls}
    assert by_name["SetLinkDefaultRoute"] is False
    assert by_name["SetLinkDomains"] == [("sysbox", True)]
    assert by_name["SetLinkDNS"] == [
        (_socket.AF_INET, bytes((10, 1, 0, 1))),
        (_socket.AF_INET6, bytes((0xFD, *([0] * 14), 1))),
    ]
    assert calls[-1][0] == "SetLinkDNS"
