"""The network as a user meets it: `sysbox run` on the bridge, published ports, joined namespaces (S11)."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import PATIENCE, eventually
from lane import Sysbox

GATEWAY = "10.90.0.1"
HOST = "192.0.2.2"  # tools/test-host.sh: the host's address on its uplink
SERVER = "198.51.100.1"  # and a server beyond it, with no route back to our subnet
HTTPD = ("sh", "-c", "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp")


def get(url: str) -> str:
    """What a server says, which may need a moment to be there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return str(answer.read().decode().strip())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def get_from_outside(url: str) -> str:
    """What a server says to a client beyond the uplink, or the error."""
    script = (
        "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"
    )
    words = ("ip", "netns", "exec", "outside", sys.executable, "-I", "-c", script, url)
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout.strip() or done.stderr.strip().rpartition("\n")[2]


@pytest.fixture
def server(sysbox: Sysbox, image: str) -> Iterator[str]:
    """A container with a small web server that listens on port 80; its name."""
    name = "net-server"
    sysbox("run", "-d", "--name", name, "-p", "8080:80", image, *HTTPD, check=True)
    # whoever asks it once, as other containers do, must not be there before it
    asked = ("exec", name, "wget", "-qO-", "http://127.0.0.1/")
    eventually(lambda: sysbox(*asked).returncode == 0, "the server listens")
    yield name
    sysbox("rm", "-f", name, check=True)


def address_of(sysbox: Sysbox, name: str) -> str:
    """The address that inspect shows."""
    template = "{{ .NetworkSettings.IPAddress }}"
    return sysbox("inspect", "-f", template, name, check=True).stdout.strip()


@pytest.mark.parametrize("target", [GATEWAY, HOST, SERVER])
def test_s11_a_container_reaches_the_host_and_the_outside(
    sysbox: Sysbox, image: str, target: str
) -> None:
    # Debian's busybox insists on a raw socket
    flags = ("--rm", "--cap-add", "NET_RAW")
    sysbox("run", *flags, image, "ping", "-c", "1", "-W", "3", target, check=True)


def test_s11_containers_reach_each_other(sysbox: Sysbox, image: str, server: str) -> None:
    url = f"http://{address_of(sysbox, server)}/"
    assert sysbox("run", "--rm", image, "wget", "-qO-", url, check=True).stdout == "hello\n"


def test_a_published_port_is_open_to_the_host_and_the_outside(sysbox: Sysbox, server: str) -> None:
    assert get("http://127.0.0.1:8080/") == "hello"
    assert get(f"http://{HOST}:8080/") == "hello"
    assert get_from_outside(f"http://{HOST}:8080/") == "hello"
    direct = get_from_outside(f"http://{address_of(sysbox, server)}/")
    assert "unreachable" in direct, "the outside has no route to containers, nor would it help"
    assert sysbox("port", server, check=True).stdout == "80/tcp -> 0.0.0.0:8080\n"
    assert sysbox("port", server, "80", check=True).stdout == "0.0.0.0:8080\n"


def test_a_restarted_container_keeps_its_published_port(sysbox: Sysbox, server: str) -> None:
    assert get("http://127.0.0.1:8080/") == "hello"
    sysbox("restart", "-t", "0", server, check=True)
    assert get("http://127.0.0.1:8080/") == "hello"


def test_a_taken_port_is_one_clear_line(sysbox: Sysbox, image: str, server: str) -> None:
    done = sysbox("run", "--rm", "-p", "8080:81", image, "true")
    assert done.returncode == 125
    assert "port 0.0.0.0:8080->81/tcp: already used by container" in done.stderr
    assert "Traceback" not in done.stderr


def test_network_none_has_loopback_only(sysbox: Sysbox, image: str) -> None:
    done = sysbox("run", "--rm", "--network", "none", image, "ls", "/sys/class/net", check=True)
    assert done.stdout.split() == ["lo"]
    flags = ("--rm", "--cap-add", "NET_RAW", "--network", "none")
    sysbox("run", *flags, image, "ping", "-c", "1", "127.0.0.1", check=True)


def test_network_host_is_the_hosts(sysbox: Sysbox, image: str) -> None:
    done = sysbox(
        "run", "--rm", "--network", "host", image, "readlink", "/proc/self/ns/net", check=True
    )
    assert done.stdout.strip() == str(Path("/proc/self/ns/net").readlink())


def test_network_of_another_container(sysbox: Sysbox, image: str, server: str) -> None:
    joined = f"container:{server}"
    done = sysbox(
        "run", "--rm", "--network", joined, image, "wget", "-qO-", "http://127.0.0.1/", check=True
    )
    assert done.stdout == "hello\n"
    refused = sysbox("run", "--rm", "--network", joined, "-p", "1:1", image, "true")
    assert refused.returncode == 125
    assert "--publish" in refused.stderr


def test_network_of_a_path(sysbox: Sysbox, image: str) -> None:
    done = sysbox(
        "run", "--rm", "--network", "ns:/run/netns/outside", image, "ip", "addr", check=True
    )
    assert SERVER in done.stdout


def test_names_in_hosts_and_resolvers(sysbox: Sysbox, image: str) -> None:
    script = "cat /etc/hosts; echo; cat /etc/resolv.conf; ip -4 -o addr show eth0"
    options = ("--hostname", "web", "--add-host", "db:192.0.2.9")
    text = sysbox("run", "--rm", *options, image, "sh", "-c", script, check=True).stdout
    address = text.rpartition("inet ")[2].partition("/")[0]
    assert f"{address}\tweb\n" in text
    assert "192.0.2.9\tdb\n" in text
    assert "nameserver 127." not in text
    assert "nameserver " in text
