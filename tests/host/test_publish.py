"""`publish` and `unpublish`: ports of a container that runs, and what its later starts publish.

In the guest: its kernel is an older one, with another netfilter, and has services that no embedded host runs.
"""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import eventually, is_active, systemctl
from lane import SLOWNESS, SYSBOX, Sysbox

NAME = "published"
HTTPD = ("sh", "-c", "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp")


@pytest.fixture
def server(sysbox: Sysbox, image: str) -> Iterator[str]:
    """A container with a web server on port 80, of which no port is published; its name."""
    sysbox("run", "-d", "--name", NAME, image, *HTTPD, check=True)
    asked = ("exec", NAME, "wget", "-qO-", "http://127.0.0.1/")
    eventually(lambda: sysbox(*asked).returncode == 0, "the server listens")
    yield NAME
    sysbox("rm", "-f", NAME, check=True)


def get(port: int) -> str:
    """What the server says on a port of the loopback address, or why it does not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5 * SLOWNESS) as answer:
            return str(answer.read().decode().strip())
    except urllib.error.URLError as error:
        return type(error.reason).__name__


def bindings(sysbox: Sysbox) -> object:
    """The ports that inspect shows: as they are, and for the next start."""
    template = "[{{json .NetworkSettings.Ports}},{{json .HostConfig.PortBindings}}]"
    return json.loads(sysbox("inspect", "-f", template, NAME, check=True).stdout)


@pytest.mark.guest("rules of another kernel's netfilter")
def test_a_port_is_published_while_it_runs_and_from_then_on(sysbox: Sysbox, server: str) -> None:
    assert get(8080) == "ConnectionRefusedError"
    done = sysbox("publish", server, "8080:80", "8081:80", check=True)
    assert done.stdout == "80/tcp -> 0.0.0.0:8080\n80/tcp -> 0.0.0.0:8081\n"
    assert get(8080) == get(8081) == "hello"
    assert sysbox("port", server, check=True).stdout == done.stdout
    assert "0.0.0.0:8081->80/tcp" in sysbox("ps", check=True).stdout
    sysbox("unpublish", server, "8081", check=True)
    assert get(8081) == "ConnectionRefusedError"
    assert get(8080) == "hello"
    now = [{"HostIp": "0.0.0.0", "HostPort": "8080"}]
    assert bindings(sysbox) == [{"80/tcp": now}, {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}]
    sysbox("restart", "-t", "0", server, check=True)
    eventually(lambda: get(8080) == "hello", "it is published again")
    sysbox("unpublish", server, "8080:80", check=True)
    assert sysbox("port", server, check=True).stdout == ""
    sysbox("restart", "-t", "0", server, check=True)
    assert get(8080) == "ConnectionRefusedError"


def test_the_way_of_a_packet_is_explained(sysbox: Sysbox, server: str) -> None:
    sysbox("publish", server, "8080:80", "8081:81", check=True)
    told = sysbox("network", "explain", server, "8080", check=True).stdout
    assert "from another machine to 8080/tcp, IPv4: passes\n" in told
    assert "8081" not in told
    assert "from other machines, not published, IPv4: dropped\n" in told
    assert told.splitlines()[-1].startswith("packet filter: ")
    assert "8081" in sysbox("network", "explain", server, check=True).stdout
    refused = sysbox("network", "explain", server, "9")
    assert "port 9 of the host is not published" in refused.stderr


def test_a_stopped_container_publishes_at_its_next_start(sysbox: Sysbox, server: str) -> None:
    sysbox("stop", "-t", "0", server, check=True)
    sysbox("publish", server, "127.0.0.1:8080:80", check=True)
    assert get(8080) == "ConnectionRefusedError"
    sysbox("start", server, check=True)
    eventually(lambda: get(8080) == "hello", "it is published")
    sysbox("unpublish", server, "127.0.0.1:8080", check=True)
    assert get(8080) == "ConnectionRefusedError"


def test_a_free_port_is_another_one_at_each_start_if_need_be(sysbox: Sysbox, server: str) -> None:
    for word in ("80", "127.0.0.1:0:80"):
        told = sysbox("publish", server, word, check=True).stdout
        number = told.rpartition(":")[2].strip()
        assert get(int(number)) == "hello"
        sysbox("unpublish", server, number, check=True)
    assert bindings(sysbox) == [{}, {}]


def test_a_free_port_of_a_range(sysbox: Sysbox, image: str, server: str) -> None:
    """The lowest that neither a container nor a program has; what names a port goes before."""
    with socket.create_server(("127.0.0.1", 8000)):
        done = sysbox("publish", server, "8000-8003:80", "8001:80", check=True)
        assert done.stdout == "80/tcp -> 0.0.0.0:8002\n80/tcp -> 0.0.0.0:8001\n"
        assert get(8002) == get(8001) == "hello"
        flags = ("run", "-d", "--name", "second", "-p")
        sysbox(*flags, "8000-8003:80", image, *HTTPD, check=True)
        assert sysbox("port", "second", check=True).stdout == "80/tcp -> 0.0.0.0:8003\n"
        refused = sysbox("publish", server, "8000-8003:81")
        assert (
            "0.0.0.0:8000-8003->81/tcp: none of these ports of the host is free" in refused.stderr
        )
        sysbox("rm", "-f", "second", check=True)
    template = "{{json .HostConfig.PortBindings}}"
    shown = json.loads(sysbox("inspect", "-f", template, NAME, check=True).stdout)["80/tcp"]
    assert [one["HostPort"] for one in shown] == ["8000-8003", "8001"]
    sysbox("restart", "-t", "0", server, check=True)
    told = sysbox("port", server, check=True).stdout
    assert told == "80/tcp -> 0.0.0.0:8000\n80/tcp -> 0.0.0.0:8001\n"
    sysbox("unpublish", server, "8000-8003", check=True)
    assert bindings(sysbox) == [{}, {}]
    sysbox("stop", "-t", "0", server, check=True)
    sysbox("publish", server, "127.0.0.1:8000-8003:80", "127.0.0.1:9000-9001:80-81", check=True)
    sysbox("unpublish", server, "8000-8003", "9000-9001:80-81", check=True)
    assert bindings(sysbox) == [{}, {}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("publish", NAME), "PORT"),
        (("publish", NAME, "x"), "x is not a port"),
        (("publish", NAME, "70000:80"), "70000 is not a port"),
        (("publish", NAME, "1-3:1-2"), "the two ranges differ in length: 3 and 2 ports"),
        (("publish", NAME, "8080:80-81"), "the two ranges differ in length: 1 and 2 ports"),
        (("publish", NAME, "8010-8000:80"), "8010-8000 is backwards"),
        (("publish", NAME, "192.0.2.77::80"), "is not an address of this host"),
        (("publish", NAME, "192.0.2.77:8000-8010:80"), "is not an address of this host"),
        (("unpublish", NAME, "8080-8089"), "8080-8089/tcp: published does not publish it"),
        (("publish", NAME, "[2001:db8::1]:8080:80"), "has no IPv6 address"),
        (("publish", NAME, "[::1]:8080:80"), "publish it on 127.0.0.1"),
        (("publish", NAME, "192.0.2.77:8080:80"), "is not an address of this host"),
        (("publish", "nobody", "8080:80"), "nobody"),
        (("unpublish", NAME, "8089"), "8089/tcp: published does not publish it"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    sysbox: Sysbox, server: str, words: tuple[str, ...], said: str
) -> None:
    del server
    done = sysbox(*words)
    assert done.returncode == 1, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert bindings(sysbox) == [{}, {}]


def test_a_port_of_another_is_refused_with_its_name(
    sysbox: Sysbox, image: str, server: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        me = Path("/proc/self/comm").read_text(encoding="ascii").strip()
        done = sysbox("publish", server, "8080:80", f"{number}:80")
        assert f":{number}->80/tcp: {me} (pid " in done.stderr
        assert bindings(sysbox) == [{}, {}]
    sysbox("publish", server, "8080:80", check=True)
    done = sysbox("publish", server, "8080:81")
    assert "publishes it already" in done.stderr
    done = sysbox("run", "--rm", "-p", "8080:80", image, "true")
    assert "already used by container" in done.stderr


def test_all_declared_ports(sysbox: Sysbox, image: str) -> None:
    flags = ("-d", "-P", "--expose", "80-81", "--expose", "53/udp", "-p", "8080:81")
    sysbox("run", *flags, "--name", NAME, image, "sleep", "60", check=True)
    try:
        told = sysbox("port", NAME, check=True).stdout.splitlines()
        assert sorted(line.partition(" ")[0] for line in told) == ["53/udp", "80/tcp", "81/tcp"]
        assert "81/tcp -> 0.0.0.0:8080" in told
        template = "{{.HostConfig.PublishAllPorts}}"
        assert sysbox("inspect", "-f", template, NAME, check=True).stdout == "true\n"
    finally:
        sysbox("rm", "-f", NAME, check=True)


def test_no_container_publishes_without_a_network_of_its_own(sysbox: Sysbox, image: str) -> None:
    sysbox("run", "-d", "--network", "host", "--name", NAME, image, "sleep", "60", check=True)
    try:
        done = sysbox("publish", NAME, "8080:80")
        assert "ports cannot be published with --network host" in done.stderr
    finally:
        sysbox("rm", "-f", NAME, check=True)


# what is not installed is a unit that does nothing: systemd asks only for the name
STAND_IN = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\nExecReload=true\n"
OTHERS = [
    pytest.param(("netfilter-persistent", "NetworkManager"), id="absent"),
    pytest.param(
        ("systemd-networkd", "ufw"), id="there", marks=pytest.mark.guest("it has both of them")
    ),
]


@pytest.fixture
def unit(sysbox: Sysbox, server: str) -> Iterator[None]:
    """sysbox-firewall.service, running, with rules in nft: a container has had them made."""
    del server
    chosen = Path("/etc/sysbox/sysbox.conf.d/test-nft.conf")
    chosen.parent.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).parents[2] / "systemd/system/sysbox-firewall.service"
    file = Path("/run/systemd/system/sysbox-firewall.service")
    text = source.read_text(encoding="utf-8").replace("=sysbox ", f"={SYSBOX} ")
    try:
        chosen.write_text("[Network]\nFirewall=nft\n", encoding="ascii")
        assert sysbox("network", "reload", check=True).stdout == "nft\n"
        file.write_text(text, encoding="utf-8")
        systemctl("daemon-reload")
        systemctl("start", file.name)
        yield
    finally:
        systemctl("stop", file.name)
        file.unlink(missing_ok=True)
        chosen.unlink()
        systemctl("daemon-reload")
        sysbox("network", "reload", check=True)


def rules_are_made() -> bool:
    """Whether sysbox-firewall.service has ended its work."""
    return is_active("sysbox-firewall")


@pytest.mark.usefixtures("unit")
def test_rules_return_with_nftables(sysbox: Sysbox, server: str) -> None:
    """nftables.service empties everything when it is restarted or reloaded."""
    sysbox("publish", server, "8080:80", check=True)
    systemctl("start", "nftables")
    systemctl("restart", "sysbox-firewall")
    try:
        assert get(8080) == "hello"
        for verb in ("restart", "reload"):
            systemctl(verb, "nftables")
            eventually(lambda: get(8080) == "hello", f"after a {verb}")
            eventually(rules_are_made, "the rules are made")
    finally:
        systemctl("stop", "nftables")
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    info = "{{.Sysbox.Firewall.InPlace}}"
    assert sysbox("info", "-f", info, check=True).stdout == "false\n"
    assert "rules are missing" in sysbox("doctor").stdout
    shown = ("network", "inspect", "-f", "{{.FirewallFailure}}", "bridge")
    assert "sysbox's rules are missing from nft" in sysbox(*shown, check=True).stdout
    sysbox("network", "reload", check=True)
    assert sysbox("info", "-f", info, check=True).stdout == "true\n"
    assert sysbox(*shown, check=True).stdout == "\n"
    assert get(8080) == "hello"


@pytest.mark.usefixtures("unit")
@pytest.mark.parametrize("names", OTHERS)
def test_rules_return_with_each_service_of_the_host(
    sysbox: Sysbox, server: str, names: tuple[str, ...]
) -> None:
    sysbox("publish", server, "8080:80", check=True)
    for name in names:
        state = systemctl("show", "--value", "-p", "LoadState", name)
        stand_in = Path(f"/run/systemd/system/{name}.service")
        if state == "masked":
            continue  # as systemd-networkd.service on an embedded host
        if state == "not-found":
            stand_in.write_text(STAND_IN, encoding="ascii")
            systemctl("daemon-reload")
        try:
            systemctl("start", name)
            for verb in ("restart", "reload"):
                if verb in ("restart", *_verbs(name)):
                    subprocess.run(["nft", "delete", "table", "inet", "sysbox"], check=True)
                    systemctl(verb, name)
                    eventually(lambda: get(8080) == "hello", f"after a {verb} of {name}")
                    # systemd drops a reload that is asked for before that
                    eventually(rules_are_made, "the rules are made")
        finally:
            systemctl("stop", name)
            stand_in.unlink(missing_ok=True)
            systemctl("start", "sysbox-firewall")


def _verbs(name: str) -> tuple[str, ...]:
    return ("reload",) if systemctl("show", "--value", "-p", "CanReload", name) == "yes" else ()
