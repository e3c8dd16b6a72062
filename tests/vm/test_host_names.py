"""The host itself resolves containers: NAME.sysbox by systemd-resolved, NAME by nss-mymachines (S16)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dnsclient
import pytest
from containers import Container, Containers, eventually, systemctl
from lane import Sysbox

Make = Callable[..., str]
UNIT = "systemd-resolved.service"
SETTINGS = Path("/run/systemd/resolved.conf.d/test.conf")
TOLD = Path("/run/systemd/resolve/netif")  # a file for each link that resolved has settings of
RESOLV_CONF = Path("/etc/resolv.conf")
STUB = "nameserver 127.0.0.53\n"
ELSEWHERE = "192.0.2.77"  # RFC 5737: the address of every name that is not a container's


@pytest.fixture
def upstream(requires: Any) -> Iterator[dnsclient.Server]:
    """The server that systemd-resolved asks; the host's settings are as before afterwards."""
    requires.program("resolvectl")
    server = dnsclient.Server(("127.4.0.1", 53), dnsclient.says(ELSEWHERE))
    SETTINGS.parent.mkdir(parents=True, exist_ok=True)
    SETTINGS.write_text("[Resolve]\nDNS=127.4.0.1\nFallbackDNS=\nDNSSEC=no\n")
    before = RESOLV_CONF.read_bytes() if RESOLV_CONF.exists() else None
    RESOLV_CONF.write_text(STUB)
    yield server
    systemctl("stop", UNIT)
    server.close()
    SETTINGS.unlink()
    if before is None:
        RESOLV_CONF.unlink()
    else:
        RESOLV_CONF.write_bytes(before)


@pytest.fixture
def resolved(upstream: dnsclient.Server) -> dnsclient.Server:
    """systemd-resolved runs."""
    systemctl("start", UNIT)
    return upstream


def getent(database: str, name: str, *flags: str) -> list[str]:
    """The addresses that the C library finds, in its order, without scopes; [] for none."""
    done = subprocess.run(
        ["getent", *flags, database, name], capture_output=True, text=True, check=False, timeout=120
    )
    found = (line.split()[0].partition("%")[0] for line in done.stdout.splitlines())
    return list(dict.fromkeys(found))


def joined(container: Container, name: str, key: str = "IPAddress") -> str:
    return str(container.inspect("NetworkSettings.Networks")[name][key])


def bridge(sysbox: Sysbox, name: str) -> str:
    (found,) = json.loads(sysbox("network", "inspect", name, check=True).stdout)
    return f"sb-{found['Id'][:12]}"


def asked_of(server: dnsclient.Server) -> bytes:
    return b"".join(server.asked).lower()


def test_a_name_below_sysbox(
    sysbox: Sysbox, network: Make, containers: Containers, resolved: dnsclient.Server
) -> None:
    """As soon as `run -d` has returned; no other server is asked about it, and others about other names."""
    network("names", "--ipv6")
    web = containers("--name", "web", "--network", "names:alias=www")
    v4, v6 = joined(web, "names"), joined(web, "names", "GlobalIPv6Address")
    assert getent("ahostsv4", "web.sysbox") == [v4]
    assert getent("ahostsv6", "web.sysbox") == [v6]
    assert getent("ahostsv4", "www.sysbox") == [v4]
    assert getent("ahostsv4", "nobody.sysbox") == []
    late = containers("--name", "nobody", "--network", "names")
    assert getent("ahostsv4", "nobody.sysbox") == [joined(late, "names")], "no answer was kept"
    late("rm", "-f")
    assert getent("ahostsv4", "nobody.sysbox") == []
    assert getent("ahostsv4", "example.org") == [ELSEWHERE]
    assert b"example" in asked_of(resolved)
    # the container's other names come back to systemd-resolved, which does not ask in a circle
    assert ELSEWHERE in web.sh("nslookup example.org")
    assert ELSEWHERE not in web.sh("nslookup nobody.sysbox 2>&1 || true")
    assert b"sysbox" not in asked_of(resolved)


def test_it_goes_with_the_last_container(
    sysbox: Sysbox, network: Make, containers: Containers, resolved: dnsclient.Server
) -> None:
    del resolved
    network("front")
    network("back")
    links = {name: bridge(sysbox, name) for name in ("front", "back")}
    web = containers("--name", "web", "--network", "front")
    db = containers("--name", "db", "--network", "back")
    told = subprocess.run(["resolvectl", "--no-pager"], capture_output=True, text=True, check=True)
    for link in links.values():
        part = told.stdout.partition(f"({link})")[2].partition("\n\n")[0]
        assert "~sysbox" in part
        assert "-DefaultRoute" in part
        assert "-LLMNR -mDNS -DNSOverTLS DNSSEC=no" in part
    # each name is on one of two networks, and both are asked
    assert getent("ahostsv4", "web.sysbox") == [joined(web, "front")]
    assert getent("ahostsv4", "db.sysbox") == [joined(db, "back")]
    assert len(list(TOLD.iterdir())) == 2
    web("rm", "-f")
    db("rm", "-f")
    eventually(lambda: not list(TOLD.iterdir()), "nothing is left of the links")


def test_it_is_stopped_started_and_restarted(
    sysbox: Sysbox, network: Make, containers: Containers, upstream: dnsclient.Server
) -> None:
    """What it was told is kept over its restart; what it was not there to be told, by the next start."""
    del upstream
    network("names")
    web = containers("--name", "web", "--network", "names")
    assert systemctl("is-active", UNIT, check=False) != "active", "a start does not start it"
    systemctl("start", UNIT)
    sysbox("network", "reload", check=True)
    expected = [joined(web, "names")]
    assert getent("ahostsv4", "web.sysbox") == expected
    systemctl("restart", UNIT)
    assert getent("ahostsv4", "web.sysbox") == expected
    systemctl("stop", UNIT)
    for file in TOLD.iterdir():
        file.unlink()
    systemctl("start", UNIT)
    assert getent("ahostsv4", "web.sysbox") != expected
    containers("--name", "other", "--network", "names")
    assert getent("ahostsv4", "web.sysbox") == expected


def test_a_bare_name_by_machined(network: Make, containers: Containers, requires: Any) -> None:
    requires.program("machinectl")
    network("names", "--ipv6")
    web = containers("--name", "web", "--network", "names")
    plain = containers("--name", "plain")
    wanted = {joined(web, "names"), joined(web, "names", "GlobalIPv6Address")}
    try:
        eventually(lambda: getent("hosts", "web"), "machined knows it")
        # `hosts` has one family, as gethostbyname2(3) gives it, here with the link's own address
        found = {one for one in getent("hosts", "web") if not one.startswith("fe80:")}
        assert found
        assert found <= wanted
        assert getent("ahostsv4", "web") == [joined(web, "names")]
        assert set(getent("ahosts", "web")) >= wanted
        eventually(lambda: getent("hosts", "plain"), "machined knows it")
        assert getent("hosts", "plain") == [joined(plain, "bridge")]
        plain("rm", "-f")
        assert getent("hosts", "plain", "-s", "mymachines") == []
    finally:
        systemctl("stop", "systemd-machined.service")
