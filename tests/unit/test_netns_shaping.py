"""The queues that limit a container: as the kernel has them afterwards, read with pyroute2."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from forked import in_child

from sysbox.base.errors import KernelError, SpecError, Unsupported
from sysbox.linux.namespace import CLONE_NEWNET
from sysbox.netns import rtnetlink as rt
from sysbox.netns import shaping
from sysbox.netns.attachment import Attachment
from sysbox.parse.bandwidth import parse_bandwidth, parse_change, parse_rate, rate_text
from sysbox.spec import Bandwidth

ID = "0123456789abcdef" * 4
UP, DOWN = "sbup0123456789", "sbdn0123456789"
END = "sb0123456789"
NONE = Bandwidth()


def look() -> dict[str, Any]:
    """By the name of a link: its queues, and where its filters lead, with plain values only."""
    from pyroute2 import IPRoute

    found: dict[str, Any] = {}
    with IPRoute() as route:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in route.get_links()}
        for qdisc in route.get_qdiscs():
            kind = qdisc.get_attr("TCA_KIND")
            value: Any = kind
            if kind == "tbf":
                parameters = qdisc.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")
                value = (kind, parameters["rate"], parameters["limit"])
            found.setdefault(names[qdisc["index"]], []).append(value)
        index = next((index for index, name in names.items() if name == END), 0)
        for name, hook in (("in", 0xFFFFFFF2), ("out", 0xFFFFFFF3)) if index else ():
            for one in route.get_filters(index=index, parent=hook):
                options = one.get_attr("TCA_OPTIONS")
                action = options.get_attr("TCA_U32_ACT") if options else None
                if action:
                    mirred = action.get_attr("TCA_ACT_PRIO_1").get_attr("TCA_ACT_OPTIONS")
                    target = mirred.get_attr("TCA_MIRRED_PARMS")["ifindex"]
                    found.setdefault(name, []).append((names.get(target, ""), one["info"] & 0xFFFF))
    return found


def with_an_end(*changes: tuple[Bandwidth, Bandwidth]) -> list[dict[str, Any]]:
    """What there is after each change (now, before), in a network namespace with one end of a link."""

    def run() -> list[dict[str, Any]]:
        with rt.Socket() as link:
            info = rt.nested(rt.IFLA_LINKINFO, rt.text(rt.IFLA_INFO_KIND, "veth"))
            body = rt.ifinfo(0, rt.IFF_UP, rt.IFF_UP) + rt.text(rt.IFLA_IFNAME, END) + info
            link.request([rt.Message(rt.RTM_NEWLINK, rt.NLM_F_CREATE, body, "make a link")])
        near = shaping.ends(ID, (Attachment(network="bridge", host_link=END, mtu=1500),))
        found = []
        for now, before in changes:
            shaping.limit(ID, near, now, before)
            found.append(look())
        shaping.remove(ID)
        shaping.remove(ID)
        found.append(look())
        return found

    done: list[dict[str, Any]] = in_child(run, CLONE_NEWNET)
    return done


def test_both_directions_and_their_removal() -> None:
    """0x0300 is every protocol, in network order."""
    limits = Bandwidth(up=1_250_000, down=125_000_000)
    made, changed, gone, rest = with_an_end(
        (limits, NONE), (limits.replace(up=2_000), limits), (NONE, limits.replace(up=2_000))
    )
    assert made["in"] == [(UP, 0x0300)]
    assert made["out"] == [(DOWN, 0x0300)]
    # 50 ms, and a bucket of 16 KiB or 4 ms
    assert made[UP] == [("tbf", 1_250_000, (16 << 10) + 62_500)]
    assert made[DOWN] == [("tbf", 125_000_000, 500_000 + 6_250_000)]
    assert "clsact" in made[END]
    assert changed["in"] == [(UP, 0x0300)]
    assert changed[UP] == [("tbf", 2_000, (16 << 10) + 100)]
    assert changed[DOWN] == made[DOWN]
    assert not {"in", "out", UP, DOWN} & set(gone)
    assert not {UP, DOWN} & set(rest)


def test_one_direction() -> None:
    only_up, only_down, rest = with_an_end(
        (Bandwidth(up=5_000), NONE), (Bandwidth(down=5_000), Bandwidth(up=5_000))
    )
    assert {"in", "out", UP, DOWN} & set(only_up) == {"in", UP}
    assert {"in", "out", UP, DOWN} & set(only_down) == {"out", DOWN}
    assert not {UP, DOWN} & set(rest)


def test_an_end_that_is_gone() -> None:
    def run() -> int:
        try:
            shaping.limit(ID, ((END, 1500),), Bandwidth(up=5_000), NONE)
        except KernelError as error:
            return error.errno
        return 0

    assert in_child(run, CLONE_NEWNET) == errno.ENODEV


def test_a_kernel_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another kind of link than any kernel has: one line, and what to load."""
    monkeypatch.setattr(shaping, "_KIND", "nonesuch")

    def run() -> str:
        with pytest.raises(Unsupported) as caught:
            shaping.limit(ID, (), Bandwidth(up=5_000), NONE)
        return f"{caught.value.message}|{caught.value.hint}"

    said = in_child(run, CLONE_NEWNET)
    assert said.startswith("--network-bandwidth: cannot make the device sbup0123456789")
    assert "act_mirred" in said


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("8kbit", 1_000),
        ("10mbit", 1_250_000),
        ("10Mbit", 1_250_000),
        ("1mbps", 1_000_000),
        ("1.5mbit", 187_500),
        ("64000", 8_000),
        ("1mibit", 131_072),
        ("1kibps", 1_024),
        ("32gbit", 4_000_000_000),
    ],
)
def test_rates(text: str, rate: int) -> None:
    """The units of tc(8): kbit is 1000 bits, kibit 1024, bps are bytes; a number alone is bits."""
    assert parse_rate(text, "--network-bandwidth") == rate
    assert parse_rate(rate_text(rate), "") == rate


@pytest.mark.parametrize(
    "text",
    ["", "mbit", "1.mbit", "1 mbit", "-1mbit", "1e9", "10mb", "7kbit", "33gbit", "٣mbit"],
)
def test_no_rate(text: str) -> None:
    with pytest.raises(SpecError):
        parse_rate(text, "--network-bandwidth")


def test_directions() -> None:
    assert parse_bandwidth("down=8kbit", "") == Bandwidth(down=1_000)
    assert parse_change("up=8kbit,down=unset", "") == {"up": 1_000, "down": 0}
    assert parse_change("unset", "") == {"up": 0, "down": 0}
    for text in ("", "up", "up=", "up=8kbit,", "up=8kbit,up=8kbit", "left=8kbit", "up=unset"):
        with pytest.raises(SpecError):
            parse_bandwidth(text, "--network-bandwidth")
