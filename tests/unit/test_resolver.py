"""What the resolver of a network answers about containers, over real sockets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import dnsclient
import dnslib  # noqa: TID253 (no start waits for a test)
import pytest
from resolving import A_ID, B_ID, C_ID, Network

from sysbox.resolver import wire, zone
from sysbox.resolver.zone import Zone, labels_of


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """A network with a resolver that runs."""
    one = Network(tmp_path)
    yield one
    one.close()


def test_by_name_alias_short_id_and_host_name(network: Network) -> None:
    network.add(A_ID, "web", "127.1.0.2", aliases=["www", "site.internal"], hostname="box.example")
    for name in ("web", "WeB", "www", "site.internal", A_ID[:12], "box.example", "web.sysbox"):
        assert network.ask(name) == ("NOERROR", ["127.1.0.2"]), name


def test_by_name_and_network(network: Network) -> None:
    """As docker's resolver; what it does not find may be another server's."""
    network.add(A_ID, "web", "127.1.0.2", aliases=["site.internal"])
    domain = network.directory.name
    server = network.upstream(dnsclient.says("192.0.2.1"))
    for name in (f"web.{domain}", f"WEB.{domain.upper()}", f"site.internal.{domain}"):
        assert network.ask(name) == ("NOERROR", ["127.1.0.2"]), name
    assert not server.asked
    # a name that was chosen comes before a host name, with its domain too
    network.add(B_ID, "evil", "127.1.0.3", hostname=f"web.{domain}")
    network.add(C_ID, "vile", "127.1.0.4", hostname="web.sysbox")
    for name in (f"web.{domain}", "web.sysbox"):
        assert network.ask(name) == ("NOERROR", ["127.1.0.2"]), name
    for name in (f"other.{domain}", domain, f"web.x{domain}"):
        assert network.ask(name) == ("NOERROR", ["192.0.2.1"]), name


def test_both_families_and_back(network: Network) -> None:
    network.add(A_ID, "web", "127.1.0.2", "fd00::2")
    assert network.ask("web", "AAAA") == ("NOERROR", ["fd00::2"])
    assert network.ask("web", "ANY") == ("NOERROR", ["127.1.0.2", "fd00::2"])
    assert network.ask("2.0.1.127.in-addr.arpa", "PTR") == ("NOERROR", ["web."])
    for last, answer in (("2", ("NOERROR", ["web."])), ("3", ("NXDOMAIN", []))):
        assert network.ask(f"{last}." + "0." * 29 + "d.f.ip6.arpa", "PTR") == answer


def test_what_a_name_does_not_have_is_no_data_and_is_not_forwarded(network: Network) -> None:
    network.add(A_ID, "web", "127.1.0.2")
    server = network.upstream(dnsclient.says("192.0.2.1"))
    for kind in ("AAAA", "MX", "TXT", "HTTPS", "SRV", "PTR"):
        assert network.ask("web", kind) == ("NOERROR", []), kind
    assert not server.asked


def test_an_address_of_the_network_without_a_container_is_not_forwarded(network: Network) -> None:
    server = network.upstream(dnsclient.says("192.0.2.1"))
    assert network.ask("9.9.1.127.in-addr.arpa", "PTR") == ("NXDOMAIN", [])
    assert network.ask("nobody.sysbox") == ("NXDOMAIN", [])
    assert not server.asked


def test_answers_may_not_be_kept(network: Network) -> None:
    network.add(A_ID, "web", "127.1.0.2")
    for name, kind in (("web", "A"), ("web", "AAAA"), ("nobody.sysbox", "A")):
        answer = network.exchange(dnsclient.question(name, kind))
        assert answer
        record = dnslib.DNSRecord.parse(answer)
        assert [one.ttl for one in record.rr] in ([], [0])
        assert not record.auth  # an SOA record would have it kept (RFC 2308)


def test_known_at_once_and_never_after_its_end(network: Network) -> None:
    """A hundred times: what was written a moment ago, within one step of the clock of files, is known."""
    for number in range(100):
        process = network.add(A_ID, f"web{number}", f"127.1.0.{number}")
        assert network.ask(f"web{number}") == ("NOERROR", [f"127.1.0.{number}"])
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        # a zombie, whose file is still there
        assert network.ask(f"web{number}.sysbox") == ("NXDOMAIN", [])
        assert network.ask(f"{number}.0.1.127.in-addr.arpa", "PTR") == ("NXDOMAIN", [])
        process.wait()


TICK = 10_000_000  # ns: the longest step of the kernel's clock of file times (CONFIG_HZ=100)


def test_two_changes_within_one_step_of_the_clock_of_files(tmp_path: Path) -> None:
    """They have one time, unless the kernel has finer ones (Linux 6.13): here the second gets the first's."""
    with Network(tmp_path, run=False) as network:
        one = Zone(str(network.directory))
        process = network.process()
        start = network.start(process.pid)
        seen = 0
        for number in range(200):
            moment = time.time_ns()
            for name in (f"first{number}", f"second{number}"):
                network.write(A_ID, name, ["127.1.0.2"], process.pid, start)
                os.utime(network.directory, ns=(moment, moment))
                one.refresh()
                if time.time_ns() - moment > TICK:
                    break  # a busy machine: a change as late as this has a time of its own
                assert one.find((name.encode(),), "")
            else:
                seen += 1
            if seen == 20:
                return
        pytest.fail(f"only {seen} pairs of changes were made within one step")


def test_a_pid_that_was_used_again_is_no_container(network: Network) -> None:
    process = network.process()
    network.write(A_ID, "web", ["127.1.0.2"], pid=process.pid, start=network.start(process.pid) - 1)
    assert network.ask("web.sysbox") == ("NXDOMAIN", [])
    network.write(A_ID, "web", ["127.1.0.2"], pid=0, start=0)
    assert network.ask("web.sysbox") == ("NXDOMAIN", [])


def test_a_chosen_name_comes_before_one_by_default(network: Network) -> None:
    network.add(A_ID, "web", "127.1.0.2", hostname="db", aliases=["all"])
    assert network.ask("db") == ("NOERROR", ["127.1.0.2"])
    network.add(B_ID, "db", "127.1.0.3", aliases=["all"])
    assert network.ask("db") == ("NOERROR", ["127.1.0.3"])
    network.add(C_ID, A_ID[:12], "127.1.0.4", aliases=["ALL"])
    assert network.ask(A_ID[:12]) == ("NOERROR", ["127.1.0.4"])
    assert network.ask("all") == ("NOERROR", ["127.1.0.2", "127.1.0.3", "127.1.0.4"])


def test_several_addresses_come_in_turn(network: Network) -> None:
    for container, address in ((A_ID, "127.1.0.2"), (B_ID, "127.1.0.3")):
        network.add(container, f"c{address[-1]}", address, aliases=["all"])
    first = set()
    for _ in range(6):
        answer = network.exchange(dnsclient.question("all"))
        assert answer
        first.add(str(dnslib.DNSRecord.parse(answer).rr[0].rdata))
    assert first == {"127.1.0.2", "127.1.0.3"}


def test_names_that_dns_cannot_express(network: Network) -> None:
    long = "a" * 64
    network.add(A_ID, long, "127.1.0.2", aliases=["a..b", ".", "", "ü", "good_one", "x" * 260])
    assert network.ask("good_one") == ("NOERROR", ["127.1.0.2"])
    assert network.ask("2.0.1.127.in-addr.arpa", "PTR") == ("NOERROR", [f"{A_ID[:12]}."])
    assert labels_of(long) is labels_of("a..b") is labels_of("") is None
    # one label with a dot in it is not the name of two labels
    network.add(B_ID, "a.b", "127.1.0.3")
    data = b"\1\2\1\0\0\1\0\0\0\0\0\0\3a.b\6sysbox\0\0\1\0\1"
    answer = network.exchange(data)
    assert answer
    assert wire.code_of(answer) == wire.NXDOMAIN
    assert network.ask("a.b") == ("NOERROR", ["127.1.0.3"])


def test_a_link_is_known_to_its_container_alone(network: Network) -> None:
    network.add(A_ID, "db", "127.1.0.2")
    network.add(B_ID, "web", "127.1.0.3", links={"store": A_ID})
    assert network.ask("store", source="127.1.0.3") == ("NOERROR", ["127.1.0.2"])
    assert network.ask("store.sysbox", source="127.1.0.2") == ("NXDOMAIN", [])
    assert network.ask("db", source="127.1.0.3") == ("NOERROR", ["127.1.0.2"])


def test_others_than_the_network_get_no_answer(network: Network) -> None:
    network.add(A_ID, "web", "127.1.0.2")
    data = dnsclient.question("web")
    assert network.exchange(data, "127.9.0.1", timeout=0.3) is None
    with socket.create_connection(network.server, 5, source_address=("127.9.0.1", 0)) as sock:
        assert sock.recv(1) == b""


def test_the_host_is_not_forwarded_for(network: Network) -> None:
    """Its own resolver may have sent the question here: it could go round in a circle."""
    server = network.upstream(dnsclient.says("192.0.2.1"))
    network.add(A_ID, "web", "127.1.0.2")
    assert network.ask("web", source=network.gateway) == ("NOERROR", ["127.1.0.2"])
    assert network.ask("example.org", source=network.gateway) == ("NXDOMAIN", [])
    assert not server.asked


def test_a_large_answer_is_asked_for_again_over_tcp(network: Network) -> None:
    process = network.process()
    for number in range(200):
        addresses = [f"127.1.1.{number}"]
        network.write(f"{number:064x}", f"c{number}", addresses, process.pid, aliases=["all"])
    assert network.ask("all") == ("NOERROR+TC", [])
    assert network.ask("all", size=4096) == ("NOERROR+TC", [])
    code, found = network.ask("all", stream=True)
    assert (code, len(found)) == ("NOERROR", 200)


def test_the_extension_is_answered_with_the_extension(network: Network) -> None:
    network.add(A_ID, "web", "127.1.0.2")
    for size, sizes in ((0, []), (4096, [1232])):
        answer = network.exchange(dnsclient.question("web", size=size))
        assert answer
        assert [one.rclass for one in dnslib.DNSRecord.parse(answer).ar] == sizes


def test_nothing_but_queries_of_the_internet_class(network: Network) -> None:
    network.add(A_ID, "web", "127.1.0.2")
    update = bytearray(dnsclient.question("web"))
    update[2] |= 5 << 3
    answer = network.exchange(bytes(update))
    assert answer
    assert wire.code_of(answer) == wire.NOTIMP
    chaos = dnsclient.question("web")[:-1] + b"\3"
    answer = network.exchange(chaos)
    assert answer
    assert wire.code_of(answer) == wire.REFUSED


def hostile() -> list[bytes]:
    """Messages that are no question."""
    good = dnsclient.question("web")
    header = b"\1\2\1\0\0\1\0\0\0\0\0\0"
    return [
        b"",
        b"\0",
        good[:11],
        header,
        good[:-1],
        good[:2] + b"\x81" + good[3:],  # an answer
        good[:4] + b"\0\2" + good[6:] + good[12:],  # two questions
        good[:4] + b"\0\0" + good[6:],  # none
        header + b"\xc0\x0c\0\1\0\1",  # a name that points to itself
        header + b"\xc0\x00\0\1\0\1",  # to the header
        header + b"\1a\xc0\x0c\0\1\0\1",
        header + b"\x40web\0\0\1\0\1",
        header + b"\x3f" + b"a" * 20,
        header + b"\1\xff\0\0\1\0\1",
        header + b"".join(b"\x3f" + b"a" * 63 for _ in range(5)) + b"\0\0\1\0\1",  # over 255 bytes
        header + b"\1a" * 600 + b"\0\0\1\0\1",
        good + b"\0" * 2000,
        good[:10]
        + b"\0\1"
        + good[12:]
        + b"\0\0\x29\xff\xff\0\0\0\0\xff\xff",  # a length beyond the end
        good[:10] + b"\xff\xff" + good[12:],
    ]


@pytest.mark.parametrize("data", hostile(), ids=map(str, range(len(hostile()))))
def test_what_is_malformed_gets_no_answer(network: Network, data: bytes) -> None:
    network.add(A_ID, "web", "127.1.0.2")
    assert network.exchange(data, timeout=0.1) is None
    assert network.ask("web") == ("NOERROR", ["127.1.0.2"])
    with socket.create_connection(network.server, 5, source_address=("127.1.0.9", 0)) as sock:
        sock.sendall(len(data).to_bytes(2, "big") + data)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""


def test_names_with_a_nul_or_a_dot_are_like_any_other(network: Network) -> None:
    """They are legal on the wire (RFC 2181, 11), and name no container."""
    network.add(A_ID, "web", "127.1.0.2")
    server = network.upstream(dnsclient.refuses("NXDOMAIN"))
    data = b"\1\2\1\0\0\1\0\0\0\0\0\0\4we\0b\0\0\1\0\1"
    answer = network.exchange(data)
    assert answer
    assert wire.code_of(answer) == wire.NXDOMAIN
    assert server.asked[0][12:] == data[12:]


def test_a_stream_in_pieces(network: Network) -> None:
    network.add(A_ID, "web", "127.1.0.2")
    data = dnsclient.question("web")
    where = ("127.1.0.9", 0)
    with socket.create_connection(network.server, 5, source_address=where) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in len(data).to_bytes(2, "big") + data:
            sock.sendall(bytes((byte,)))
        assert dnsclient.receive_stream(sock)[:2] == data[:2]
        # several in one piece, and answers in one connection
        sock.sendall((len(data).to_bytes(2, "big") + data) * 40)
        answers = b""
        while answers.count(data[:2]) < 40:
            answers += sock.recv(65536)


def test_a_long_message_in_one_byte_pieces_is_not_waited_for(network: Network) -> None:
    where = ("127.1.0.9", 0)
    with socket.create_connection(network.server, 5, source_address=where) as sock:
        sock.sendall(b"\xff")
        sock.sendall(b"\xff")
        assert sock.recv(1) == b""


def test_one_client_gets_so_many_connections(network: Network) -> None:
    network.add(A_ID, "web", "127.1.0.2")
    opened = [
        socket.create_connection(network.server, 5, source_address=("127.1.0.9", 0))
        for _ in range(40)
    ]
    closed = 0
    for sock in opened:
        sock.settimeout(0.05)
        try:
            closed += sock.recv(1) == b""
        except TimeoutError:
            pass
    assert closed == 24
    assert network.ask("web", source="127.1.0.8", stream=True) == ("NOERROR", ["127.1.0.2"])
    for sock in opened:
        sock.close()


def test_a_flood_from_one_client_leaves_room_for_others(network: Network) -> None:
    """Questions that cost the most, without a pause, from another process."""
    network.add(A_ID, "web", "127.1.0.2")
    code = (
        "import socket,os\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
        f"s.bind(('127.1.0.66',0)); s.connect({network.server!r})\n"
        "n=0\n"
        "while True:\n"
        " n+=1\n"
        " try: s.send(b'\\1\\2\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\x08%08x\\6sysbox\\0\\0\\1\\0\\1' % n)\n"
        " except OSError: pass\n"
    )
    flood = subprocess.Popen([network.python, "-c", code])
    try:
        time.sleep(0.3)
        answered = sum(
            network.exchange(dnsclient.question("web"), "127.1.0.7", timeout=1) is not None
            for _ in range(50)
        )
    finally:
        flood.kill()
        flood.wait()
    assert answered >= 45


def test_it_leaves_when_nobody_asks(tmp_path: Path) -> None:
    with Network(tmp_path, idle=0.3) as network:
        network.add(A_ID, "web", "127.1.0.2")
        assert network.ask("web")[0] == "NOERROR"
        assert os.waitstatus_to_exitcode(os.waitpid(network.pid, 0)[1]) == 0
        network.pid = 0


def test_a_damaged_file_names_nobody(network: Network) -> None:
    network.add(A_ID, "web", "127.1.0.2")
    for text in (b"", b"{", b"[]", b'{"pid": "x", "start": 1}', b'{"pid": 1}', b"\xff" * 70000):
        (network.directory / B_ID).write_bytes(text)
        assert network.ask("web") == ("NOERROR", ["127.1.0.2"])
    (network.directory / "other").write_text("no id")
    assert network.ask("web") == ("NOERROR", ["127.1.0.2"])


def test_descriptors_of_the_ended_are_closed(tmp_path: Path) -> None:
    with Network(tmp_path, run=False) as network:
        one = Zone(str(network.directory))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            process = network.add(A_ID, "web", "127.1.0.2")
            one.refresh()
            assert one.find((b"web",), "")
            process.send_signal(signal.SIGKILL)
            process.wait()
            one.refresh()
            assert not one.find((b"web",), "")
            assert not one.clients
        assert len(os.listdir("/proc/self/fd")) == before
        assert zone.records_of([], wire.A) == ()
