"""Containers find each other by name: on one network, on several, and never after their end.

In the guest: the limits of the resolver's service are files of v2, and an older kernel makes its sandbox and
tells it of the end of a first process.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dnsclient
import pytest
from containers import V1, Container, Containers, active_state, eventually, systemctl
from faults import SEED
from lane import SLOWNESS, SYSBOX, Sysbox

from sysbox.netns import names
from sysbox.resolver import probe
from sysbox.units import resolverplan

Make = Callable[..., str]
SOON = 3.0  # seconds


@pytest.fixture
def upstream() -> Iterator[Callable[..., dnsclient.Server]]:
    """Servers that the host uses, at an address of its own; /etc/resolv.conf is as before afterwards."""
    path = Path("/etc/resolv.conf")
    before = path.read_bytes() if path.exists() else None
    running: list[dnsclient.Server] = []

    def make(
        answer: Callable[[bytes], bytes | None], address: str = "127.4.0.1", more: str = ""
    ) -> dnsclient.Server:
        running.append(dnsclient.Server((address, 53), answer))
        write_resolv_conf(f"nameserver {address}\n{more}")
        return running[-1]

    yield make
    for one in running:
        one.close()
    if before is None:
        path.unlink(missing_ok=True)
    else:
        write_resolv_conf(before.decode())


@pytest.fixture(autouse=True)
def nobody_else(upstream: Callable[..., dnsclient.Server]) -> None:
    """The host's server knows no name; without one, each question about one would wait for its time."""
    upstream(dnsclient.refuses("NXDOMAIN", soa=True), "127.4.0.9")


def write_resolv_conf(text: str) -> None:
    fresh = Path("/etc/resolv.conf.new")
    fresh.write_text(text)
    fresh.rename("/etc/resolv.conf")


def gateway(sysbox: Sysbox, name: str, family: int = 0) -> str:
    (found,) = json.loads(sysbox("network", "inspect", name, check=True).stdout)
    return str(found["IPAM"]["Config"][family]["Gateway"])


def address(container: Container, name: str, key: str = "IPAddress") -> str:
    return str(container.inspect("NetworkSettings.Networks")[name][key])


def lookup(container: Container, name: str) -> list[str]:
    """The addresses that busybox's own resolver finds, sorted; [] for an unknown name."""
    words = container.sh(f"nslookup {name} 2>/dev/null || true").splitlines()
    answers = words[words.index("") + 1 :] if "" in words else []
    return sorted(line.partition(":")[2].strip() for line in answers if line.startswith("Address"))


def limit_of(pid: str, controller: str) -> int:
    """The maximum of the process's cgroup: bytes, or tasks."""
    cgroups = Path(f"/proc/{pid}/cgroup").read_text()
    (path,) = re.findall(rf"^\d+:{controller if V1 else ''}:(.*)$", cgroups, re.MULTILINE)
    place = Path(f"/sys/fs/cgroup/{controller}" if V1 else "/sys/fs/cgroup")
    old = V1 and controller == "memory"
    file = "memory.limit_in_bytes" if old else f"{controller}.max"
    return int((place / path[1:] / file).read_text())


def processes(name: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"_resolve" in words and name.encode() in words:
            found.append(entry.parent.name)
    return found


def test_by_name_alias_id_and_back(sysbox: Sysbox, network: Make, containers: Containers) -> None:
    network("names", "--ipv6")
    web = containers("--name", "web", "--network", "names:alias=www", "--hostname", "box")
    db = containers("--name", "db", "--network", "names")
    v4, v6 = address(web, "names"), address(web, "names", "GlobalIPv6Address")
    for name in ("web", "WWW", web.id[:12], "box"):
        assert lookup(db, name) == sorted([v4, v6]), name
    assert "web" in db.sh(f"nslookup {v4}")
    assert "web" in db.sh(f"nslookup {v6}")
    server = (gateway(sysbox, "names", 1), 53)
    assert dnsclient.ask(server, "web", "AAAA") == ("NOERROR", [v6])
    assert dnsclient.ask(server, "web", "AAAA", stream=True) == ("NOERROR", [v6])
    lines = db.sh("cat /etc/resolv.conf").splitlines()
    assert f"nameserver {gateway(sysbox, 'names')}" in lines
    assert len([line for line in lines if line.startswith("nameserver")]) == 1
    assert any("ndots:0" in line for line in lines)


def test_the_c_library_of_the_host_image(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("names")
    web = containers("--name", "web", "--network", "names")
    other = containers("--network", "names", image="host", command=("sleep", "1000"))
    found = other.exec("getent", "ahostsv4", "web").split()
    assert found[0] == address(web, "names")
    assert other.exec("getent", "hosts", address(web, "names")).split()[1] == "web"


def test_a_question_after_run_has_returned_is_answered(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    """And never after the end; asked from the host, whose resolver would keep a wrong answer."""
    network("names")
    containers("--name", "stays", "--network", "names")
    server = (gateway(sysbox, "names"), 53)
    for _ in range(5):
        assert dnsclient.ask(server, "comes") == ("NXDOMAIN", [])
        comes = containers("--name", "comes", "--network", "names")
        assert dnsclient.ask(server, "comes") == ("NOERROR", [address(comes, "names")])
        os.kill(comes.pid, signal.SIGKILL)
        comes.await_state("exited")
        assert dnsclient.ask(server, "comes") == ("NXDOMAIN", [])
        comes("rm")


def test_the_container_knows_itself_from_its_first_instruction(
    sysbox: Sysbox, network: Make, image: str
) -> None:
    network("names")
    done = sysbox(
        "run", "--rm", "--name", "self", "--network", "names:alias=me", image,
        "sh", "-c", "nslookup me && ip -4 addr show eth0", check=True,
    )  # fmt: skip
    own = done.stdout.split("inet ")[1].split("/")[0]
    assert f"Address: {own}" in done.stdout.replace("Address 1:", "Address:")


def test_names_of_another_network_are_not_answered(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("front")
    network("back")
    web = containers("--name", "web", "--network", "front")
    db = containers("--name", "db", "--network", "back")
    both = containers("--name", "both", "--network", "front", "--network", "back")
    assert not lookup(web, "db.sysbox")
    assert not lookup(web, "db")
    assert not lookup(db, "web")
    assert lookup(both, "web") == [address(web, "front")]
    assert lookup(both, "db") == [address(db, "back")]
    # from a container of another network, the resolver itself says nothing
    far = web.sh(f"nslookup db {gateway(sysbox, 'back')} 2>&1 || true")
    assert address(db, "back") not in far
    sysbox("network", "disconnect", "back", both.id, check=True)
    assert not lookup(both, "db")
    assert lookup(both, "web") == [address(web, "front")]


def test_connect_and_disconnect(sysbox: Sysbox, network: Make, containers: Containers) -> None:
    network("names")
    web = containers("--name", "web", "--network", "names")
    late = containers("--name", "late")
    before = late.sh("cat /etc/resolv.conf")
    sysbox("network", "connect", "--alias", "tardy", "names", late.id, check=True)
    assert lookup(late, "web") == [address(web, "names")]
    assert lookup(web, "tardy") == [address(late, "names")]
    sysbox("rename", "late", "early", check=True)
    assert lookup(web, "early") == [address(late, "names")]
    assert not lookup(web, "late")
    sysbox("network", "disconnect", "names", late.id, check=True)
    assert not lookup(web, "tardy")
    assert late.sh("cat /etc/resolv.conf") == before


def test_a_restart_keeps_the_name(sysbox: Sysbox, network: Make, containers: Containers) -> None:
    network("names")
    web = containers("--name", "web", "--network", "names")
    db = containers("--name", "db", "--network", "names")
    for _ in range(3):
        web("restart", "-t", "0")
        assert lookup(db, "web") == [address(web, "names")]


def test_the_units_come_with_the_first_and_go_with_the_last(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("names")
    unit = resolverplan.socket_unit("names")
    assert active_state(unit) == "inactive"
    one = containers("--name", "one", "--network", "names")
    assert active_state(unit) == "active"
    assert not processes("names"), "nobody has asked"
    two = containers("--name", "two", "--network", "names")
    assert lookup(two, "one")
    assert processes("names")
    one("rm", "-f")
    assert active_state(unit) == "active"
    two("rm", "-f")
    eventually(lambda: not processes("names"), "the resolver has ended")
    eventually(lambda: active_state(unit) == "inactive", "its socket is closed")
    assert not Path(names.directory_of("names")).exists()


@pytest.fixture
def leaves_soon() -> Iterator[None]:
    """The resolver of the network `names` leaves after SOON instead of its IDLE."""
    directory = Path("/run/systemd/system", f"{resolverplan.service_unit('names')}.d")
    program = f"from sysbox.resolver import serve; serve.IDLE = {SOON}; serve.main('names')"
    directory.mkdir()
    (directory / "sooner.conf").write_text(
        f'[Service]\nExecStart=\nExecStart={sys.executable} -I -c "{program}" _resolve names\n'
    )
    systemctl("daemon-reload")
    yield
    shutil.rmtree(directory)
    systemctl("daemon-reload")


@pytest.mark.usefixtures("leaves_soon")
def test_it_leaves_when_nobody_asks_and_comes_back(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("names")
    web = containers("--name", "web", "--network", "names")
    server = (gateway(sysbox, "names"), 53)
    answer = ("NOERROR", [address(web, "names")])
    assert dnsclient.ask(server, "web") == answer
    (first,) = processes("names")
    eventually(lambda: not processes("names"), "the resolver has left")
    assert active_state(resolverplan.socket_unit("names")) == "active"
    assert dnsclient.ask(server, "web") == answer
    assert processes("names") not in ([], [first])


def test_an_internal_network(
    sysbox: Sysbox,
    network: Make,
    containers: Containers,
    upstream: Callable[..., dnsclient.Server],
) -> None:
    server = upstream(dnsclient.says("192.0.2.77"))
    network("inner", "--internal")
    web = containers("--name", "web", "--network", "inner")
    db = containers("--name", "db", "--network", "inner")
    assert lookup(db, "web") == [address(web, "inner")]
    assert not lookup(db, "example.org")
    assert not server.asked


def test_other_names_are_asked_of_the_hosts_servers(
    sysbox: Sysbox,
    network: Make,
    containers: Containers,
    upstream: Callable[..., dnsclient.Server],
) -> None:
    more = "search a.example b.example\noptions timeout:1\n"
    server = upstream(dnsclient.says("192.0.2.77"), more=more)
    network("names")
    web = containers("--name", "web", "--network", "names")
    lines = web.sh("cat /etc/resolv.conf").splitlines()
    assert "search a.example b.example" in lines
    assert "options timeout:1" in lines
    assert "192.0.2.77" in lookup(web, "example.org")
    assert server.asked
    # the file is read again when it has changed
    upstream(dnsclient.says("192.0.2.78"), "127.4.0.2")
    assert "192.0.2.78" in lookup(web, "example.org")
    # servers of a network, and of a container
    third = dnsclient.Server(("127.4.0.3", 53), dnsclient.says("192.0.2.79"))
    sysbox("network", "update", "--dns-add", "127.4.0.3", "names", check=True)
    assert "192.0.2.79" in lookup(web, "example.org")
    own = containers(
        "--network", "names", "--dns", "127.4.0.2", "--dns-search", "c.example",
        "--dns-option", "ndots:2",
    )  # fmt: skip
    lines = own.sh("cat /etc/resolv.conf").splitlines()
    assert f"nameserver {gateway(sysbox, 'names')}" in lines
    assert "search c.example" in lines
    assert "options ndots:2" in lines
    assert "192.0.2.78" in lookup(own, "example.org")
    third.close()


def test_links(sysbox: Sysbox, network: Make, containers: Containers) -> None:
    network("names")
    db = containers("--name", "db", "--network", "names")
    web = containers("--name", "web", "--network", "names", "--link", "db:store")
    assert lookup(web, "store") == [address(db, "names")]
    assert not lookup(db, "store")
    assert web.inspect("HostConfig.Links") == ["/db:/web/store"]
    plain = containers("--name", "plain")
    linked = containers("--link", "plain:other")
    assert f"{address(plain, 'bridge')}\tother" in linked.sh("cat /etc/hosts")
    plain("stop", "-t", "0")
    failed = sysbox("run", "--rm", "--link", "plain", "host", "true")
    assert failed.returncode == 125
    assert "--link plain: it does not run" in failed.stderr


def test_64_at_once(sysbox: Sysbox, network: Make, image: str) -> None:
    network("names")
    started = [
        subprocess.Popen(
            [SYSBOX, "run", "-d", "--rm", "--name", f"many-{n}", "--network", "names",
             image, "sleep", "1000"],
            stdout=subprocess.DEVNULL,
        )
        for n in range(64)
    ]  # fmt: skip
    try:
        assert [one.wait() for one in started] == [0] * 64
        server = (gateway(sysbox, "names"), 53)
        found = [dnsclient.ask(server, f"many-{n}") for n in range(64)]
        assert {code for code, _ in found} == {"NOERROR"}
        assert len({one[0] for _, one in found}) == 64
    finally:
        sysbox("rm", "-f", *(f"many-{n}" for n in range(64)))
    eventually(
        lambda: active_state(resolverplan.socket_unit("names")) == "inactive",
        "the resolver has ended",
    )


def test_a_storm(sysbox: Sysbox, network: Make, containers: Containers) -> None:
    """Starts, kills, connects, disconnects at random: the resolver always tells what is true."""
    network("names")
    network("other")
    chance = random.Random(SEED)
    containers("--name", "stays", "--network", "names")
    server = (gateway(sysbox, "names"), 53)
    there: dict[str, Container] = {}
    for step in range(40):
        name = f"c{chance.randrange(5)}"
        if name not in there:
            where = chance.choice(("names", "other"))
            there[name] = containers("--name", name, "--network", where)
        else:
            on = "names" in there[name].inspect("NetworkSettings.Networks")
            action = chance.choice(("kill", "move", "restart"))
            if action == "kill":
                there.pop(name)("rm", "-f")
            elif action == "move":
                verb = "disconnect" if on else "connect"
                sysbox("network", verb, "names", name, check=True)
            else:
                there[name]("restart", "-t", "0")
        for one in (f"c{n}" for n in range(5)):
            joined = there[one].inspect("NetworkSettings.Networks") if one in there else {}
            right = (
                ("NOERROR", [joined["names"]["IPAddress"]])
                if "names" in joined
                else ("NXDOMAIN", [])
            )
            assert dnsclient.ask(server, one) == right, f"step {step}: {one} (seed {SEED})"


@pytest.mark.guest("an older kernel tells of the end")
def test_what_a_killed_command_has_left(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    """A file that nobody removed names nobody, from the moment at which the process ended; gc removes it."""
    network("names")
    containers("--name", "stays", "--network", "names")
    gone = containers("--name", "gone", "--network", "names")
    server = (gateway(sysbox, "names"), 53)
    assert dnsclient.ask(server, "gone")[0] == "NOERROR"
    directory = Path(names.directory_of("names"))
    data = (directory / gone.id).read_bytes()
    first = os.pidfd_open(gone.pid)
    signal.pidfd_send_signal(first, signal.SIGKILL)
    select.select([first], [], [])
    os.close(first)
    assert dnsclient.ask(server, "gone") == ("NXDOMAIN", [])
    gone.await_state("exited")
    # who looks next has its end recorded, which removes the file
    assert gone.inspect("State.ExitCode") == 137
    for name in (gone.id, "0" * 64):
        (directory / name).write_bytes(data)
    assert dnsclient.ask(server, "gone") == ("NXDOMAIN", [])
    found = sysbox("gc", check=True).stdout
    for name in (gone.id, "0" * 64):
        assert f"removed {name[:12]} from the names of its networks" in found
        assert not (directory / name).exists()


def test_a_failed_resolver_is_shown_and_made_again(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("names")
    one = containers("--name", "one", "--network", "names")
    unit = resolverplan.socket_unit("names")
    look = ("doctor", "--format", "{{.Name}} {{.State}} {{.Detail}}")
    # it waits for two seconds, in which the resolver may not have started
    eventually(lambda: "names on names yes" in sysbox(*look).stdout, "the doctor is content")
    (found,) = json.loads(sysbox("network", "inspect", "names", check=True).stdout)
    assert found["DNSFailure"] == ""
    subprocess.run(["systemctl", "stop", unit], check=True)
    assert f"names on names no {unit} is inactive" in sysbox(*look).stdout
    (found,) = json.loads(sysbox("network", "inspect", "names", check=True).stdout)
    assert found["DNSFailure"] == f"{unit} is inactive"
    two = containers("--name", "two", "--network", "names")
    assert lookup(two, "one") == [address(one, "names")]


def test_a_port_that_is_taken(sysbox: Sysbox, network: Make, containers: Containers) -> None:
    """By another DNS server of the host, on the gateway's address; nothing is left of the start."""
    network("names")
    at = gateway(sysbox, "names")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND
        taken.bind((at, 53))
        taken.listen()
        failed = sysbox("run", "--rm", "--network", "names", "host", "true")
    assert failed.returncode == 125
    assert f"network names: its resolver cannot listen on {at} port 53" in failed.stderr
    assert not Path(names.directory_of("names")).exists()
    containers("--name", "one", "--network", "names")
    eventually(lambda: probe.ask(at) > 0, "it answers")


def test_a_socket_that_nobody_stopped(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    """Who withdrew its last container was killed then; the next network has the same address."""
    network("names")
    one = containers("--name", "one", "--network", "names")
    shutil.rmtree(names.directory_of("names"))
    one("rm", "-f")
    sysbox("network", "rm", "names", check=True)
    assert systemctl("is-active", "sysbox-dns-names.socket") == "active"
    found = sysbox("gc", check=True).stdout
    assert found == "stopped sysbox-dns-names.socket, of a network without containers\n"
    assert sysbox("gc", check=True).stdout == ""
    network("other")
    containers("--name", "two", "--network", "other")


@pytest.mark.guest("memory.max and pids.max are of v2, and an older kernel makes the sandbox")
def test_the_sandbox(sysbox: Sysbox, network: Make, containers: Containers) -> None:
    """What a hole in it would give: no capability, another user, no file that it can write."""
    network("names")
    network("other")
    one = containers("--name", "one", "--network", "names")
    containers("--name", "two", "--network", "other")
    assert lookup(one, "one")
    (pid,) = processes("names")
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split()[0] not in ("0", "65534")
    assert {fields[one] for one in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    root = Path(f"/proc/{pid}/root")
    assert sorted(os.listdir(root / "run/sysbox")) == ["names"]
    assert os.listdir(root / "run/sysbox/names") == ["names"]
    options = {
        words[4]: words[5].split(",")
        for words in (
            line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        )
    }
    assert "ro" in options["/"]
    for path in ("/proc", "/sys", "/run/sysbox"):
        assert "ro" in options[path], path
    assert not [one for path in ("root", "home") for one in os.listdir(root / path)]
    for file, limit in (("memory", resolverplan.MEMORY_MAX), ("pids", resolverplan.TASKS_MAX)):
        assert limit_of(pid, file) == limit
    assert not [one for one in os.listdir(f"/proc/{pid}/fd") if int(one) > 60]


def test_a_crash_is_followed_by_another_start(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("names")
    web = containers("--name", "web", "--network", "names")
    server = (gateway(sysbox, "names"), 53)
    for _ in range(3):
        assert dnsclient.ask(server, "web") == ("NOERROR", [address(web, "names")])
        (pid,) = processes("names")
        os.kill(int(pid), signal.SIGKILL)
        eventually(lambda pid=pid: processes("names") != [pid], "it has ended")


def test_a_flood_from_a_container(sysbox: Sysbox, network: Make, containers: Containers) -> None:
    """Another container is answered meanwhile, and the resolver stays."""
    network("names")
    at = gateway(sysbox, "names")
    code = (
        "import socket\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
        f"s.connect(({at!r},53))\n"
        "n=0\n"
        "while True:\n"
        " n+=1\n"
        " try: s.send(b'\\1\\2\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\x08%08x\\6sysbox\\0\\0\\1\\0\\1' % n)\n"
        " except OSError: pass\n"
    )
    victim = containers("--name", "victim", "--network", "names")
    assert lookup(victim, "victim")
    before = processes("names")
    containers("--network", "names", image="host", command=("python3", "-c", code))
    answered = 0
    for _ in range(20):
        answered += bool(lookup(victim, "victim"))
    assert answered >= 18
    assert processes("names") == before


def test_the_first_answer_after_an_idle_time(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    """Every one of 200 that ask at once, of a resolver that has yet to start."""
    network("names")
    web = containers("--name", "web", "--network", "names")
    server = (gateway(sysbox, "names"), 53)
    assert not processes("names")
    found: list[tuple[str, list[str]]] = []
    threads = [
        threading.Thread(target=lambda: found.append(dnsclient.ask(server, "web")))
        for _ in range(200)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60 * SLOWNESS)
    assert found == [("NOERROR", [address(web, "names")])] * 200
