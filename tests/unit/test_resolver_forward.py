"""What the resolver of a network forwards: to whom, how long it waits, and which answers it takes."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dnsclient
import dnslib  # noqa: TID253 (no start waits for a test)
import pytest
from resolving import A_ID, B_ID, Network

from sysbox.resolver import wire
from sysbox.resolver.upstream import Upstream, parse

OTHER = "127.2.0.2"


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """A network with a resolver that runs."""
    one = Network(tmp_path)
    yield one
    one.close()


def silent(_: bytes) -> None:
    return None


def test_other_names_are_forwarded(network: Network) -> None:
    network.upstream(dnsclient.says("192.0.2.7"))
    assert network.ask("example.org") == ("NOERROR", ["192.0.2.7"])
    assert network.ask("example.org", stream=True) == ("NOERROR", ["192.0.2.7"])


def test_each_question_has_a_port_and_an_id_of_its_own(network: Network) -> None:
    """CVE-2008-1447: who forges answers has to guess both."""
    server = network.upstream(dnsclient.says("192.0.2.7"))
    data = dnsclient.question("example.org", ident=7)
    for _ in range(40):
        assert network.exchange(data)
    assert len({port for _, port in server.sources}) > 30
    assert len({one[:2] for one in server.asked}) > 30


def test_an_answer_to_something_else_is_not_taken(network: Network) -> None:
    """Another id, another question, no answer at all, from another port: then the right one."""
    sent = threading.Event()
    port = network.server[1]
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.2.0.1", port))
    forger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    forger.bind(("127.2.0.1", 0))

    def serve() -> None:
        data, source = server.recvfrom(2000)
        bad = dnsclient.says("198.51.100.66")(data)
        other = dnsclient.says("198.51.100.66")(dnsclient.question("example.net"))
        for forged in (
            bytes((bad[0] ^ 1,)) + bad[1:],
            data[:2] + other[2:],
            data,
            b"",
            bad[:11],
            bad[:2] + b"\1" + bad[3:],
        ):
            server.sendto(forged, source)
        forger.sendto(bad, source)
        sent.set()
        server.sendto(dnsclient.says("192.0.2.7")(data), source)

    thread = threading.Thread(target=serve)
    thread.start()
    assert network.ask("example.org") == ("NOERROR", ["192.0.2.7"])
    assert sent.is_set()
    thread.join()
    server.close()
    forger.close()


def test_the_next_server_is_asked(network: Network) -> None:
    """One that refuses, one that does not answer, one on whose host nobody listens: in their order."""
    network.resolv_conf.write_text(
        "# first\nnameserver 127.2.0.1\nnameserver 127.2.0.3\nnameserver 127.2.0.2\n"
    )
    first = network.upstream(dnsclient.refuses("REFUSED"))
    network.upstream(dnsclient.says("192.0.2.7"), OTHER)
    assert network.ask("example.org") == ("NOERROR", ["192.0.2.7"])
    assert len(first.asked) == 1


def test_a_server_that_does_not_answer_is_waited_for_once(network: Network) -> None:
    network.resolv_conf.write_text("nameserver 127.2.0.1\nnameserver 127.2.0.2\n")
    first = network.upstream(silent)
    network.upstream(dnsclient.says("192.0.2.7"), OTHER)
    for _ in range(20):
        assert network.ask("example.org") == ("NOERROR", ["192.0.2.7"])
    assert len(first.asked) == 1


def test_a_slow_server_keeps_nobody_waiting(network: Network) -> None:
    network.add(A_ID, "web", "127.1.0.2")
    free = threading.Event()

    def slow(data: bytes) -> bytes | None:
        if b"slow" in data:
            return None
        free.set()
        return dnsclient.says("192.0.2.7")(data)

    network.upstream(slow)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((network.client, 0))
        for number in range(100):
            sock.sendto(dnsclient.question(f"slow{number}.example"), network.server)
        assert network.ask("web", source="127.1.0.8") == ("NOERROR", ["127.1.0.2"])
        assert network.ask("fast.example", source="127.1.0.8") == ("NOERROR", ["192.0.2.7"])
    assert free.is_set()


def test_one_client_has_so_many_questions_on_their_way(network: Network) -> None:
    server = network.upstream(silent)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((network.client, 0))
        sock.settimeout(dnsclient.TIMEOUT)
        for number in range(160):
            sock.sendto(dnsclient.question(f"slow{number}.example"), network.server)
        refused = [sock.recv(512) for _ in range(32)]
    assert {wire.code_of(one) for one in refused} == {wire.SERVFAIL}
    server.wait_for(128)
    assert len(set(server.asked)) == 128


def test_no_server_answers(network: Network) -> None:
    network.resolv_conf.write_text("nameserver 127.2.0.3\n")
    assert network.ask("example.org") == ("SERVFAIL", [])
    assert network.ask("example.org", stream=True) == ("SERVFAIL", [])


def test_the_file_is_read_again_when_it_has_changed(network: Network) -> None:
    network.upstream(dnsclient.says("192.0.2.1"))
    network.upstream(dnsclient.says("192.0.2.2"), OTHER)
    assert network.ask("example.org") == ("NOERROR", ["192.0.2.1"])
    fresh = network.resolv_conf.with_suffix(".new")
    fresh.write_text(f"nameserver {OTHER}\n")
    fresh.rename(network.resolv_conf)
    assert network.ask("example.org") == ("NOERROR", ["192.0.2.2"])


def test_a_negative_answer_is_not_kept(network: Network) -> None:
    """Its SOA record says a day; a container may have the name a moment later."""
    for code in ("NXDOMAIN", "NOERROR"):
        server = network.upstream(dnsclient.refuses(code, soa=True))
        for stream in (False, True):
            data = dnsclient.question("db")
            if stream:
                answer = dnsclient.exchange_stream(network.server, data, network.client)
            else:
                answer = network.exchange(data) or b""
            record = dnslib.DNSRecord.parse(answer)
            assert answer[:2] == data[:2]
            assert dnslib.RCODE[record.header.rcode] == code
            assert [one.ttl for one in record.auth] == [0]
        server.close()
    network.add(A_ID, "db", "127.1.0.2")
    assert network.ask("db") == ("NOERROR", ["127.1.0.2"])


def test_an_answer_that_cannot_be_read_is_a_failure(network: Network) -> None:
    def torn(data: bytes) -> bytes:
        return dnsclient.refuses("NXDOMAIN", soa=True)(data)[:-5]

    network.upstream(torn)
    assert network.ask("example.org") == ("SERVFAIL", [])


def test_large_answers(network: Network) -> None:
    text = "x" * 200
    network.upstream(dnsclient.says(*[text] * 10, kind="TXT"))
    assert network.ask("example.org", "TXT") == ("NOERROR+TC", [])
    assert network.ask("example.org", "TXT", size=1000) == ("NOERROR+TC", [])
    assert network.ask("example.org", "TXT", size=4096)[1] == [f'"{text}"'] * 10
    assert network.ask("example.org", "TXT", stream=True)[1] == [f'"{text}"'] * 10


def test_a_truncated_answer_is_passed_on(network: Network) -> None:
    def cut(data: bytes) -> bytes:
        answer = bytearray(dnsclient.refuses("NOERROR")(data))
        answer[2] |= 2
        return bytes(answer)

    network.upstream(cut)
    assert network.ask("example.org") == ("NOERROR+TC", [])


def test_an_internal_network_forwards_nothing(tmp_path: Path) -> None:
    with Network(tmp_path, internal=True) as network:
        network.add(A_ID, "web", "127.1.0.2", internal=True)
        # one that is on another internal network, whose resolver is not there
        network.add(B_ID, "both", "127.1.0.3", internal=True, others=["127.3.0.1"])
        server = network.upstream(dnsclient.says("192.0.2.7"))
        assert network.ask("web", source="127.1.0.2") == ("NOERROR", ["127.1.0.2"])
        for source in ("127.1.0.2", "127.1.0.3", "127.1.0.9"):
            assert network.ask("example.org", source=source) == ("NXDOMAIN", [])
            assert network.ask("example.org", source=source, stream=True) == ("NXDOMAIN", [])
        assert not server.asked


def test_servers_of_the_container_and_of_the_network(tmp_path: Path) -> None:
    with Network(tmp_path, servers=("127.2.0.4",)) as network:
        network.add(A_ID, "web", "127.1.0.2", servers=[OTHER])
        network.add(B_ID, "db", "127.1.0.3")
        network.upstream(dnsclient.says("192.0.2.4"), "127.2.0.4")
        network.upstream(dnsclient.says("192.0.2.2"), OTHER)
        assert network.ask("example.org", source="127.1.0.2") == ("NOERROR", ["192.0.2.2"])
        assert network.ask("example.org", source="127.1.0.3") == ("NOERROR", ["192.0.2.4"])


def test_the_other_networks_of_a_container(tmp_path: Path) -> None:
    """Their names are known to who is on both, and to nobody else."""
    with (
        Network(tmp_path, internal=True) as first,
        Network(tmp_path, gateway="127.3.0.1") as second,
    ):
        server = first.upstream(dnsclient.says("192.0.2.7"))
        first.add(A_ID, "web", "127.1.0.2", others=["127.3.0.1"], internal=False)
        first.add(B_ID, "alone", "127.1.0.3", internal=True)
        second.add(B_ID, "db", "127.3.0.3")
        assert first.ask("db", source="127.1.0.2") == ("NOERROR", ["127.3.0.3"])
        assert first.ask("db", "AAAA", source="127.1.0.2") == ("NOERROR", [])
        assert first.ask("db", source="127.1.0.2", stream=True) == ("NOERROR", ["127.3.0.3"])
        assert first.ask("3.0.3.127.in-addr.arpa", "PTR", source="127.1.0.2") == (
            "NOERROR",
            ["db."],
        )
        assert first.ask("db", source="127.1.0.3") == ("NXDOMAIN", [])
        assert not server.asked
        # it may ask outside, since one of its networks may
        assert first.ask("example.org", source="127.1.0.2") == ("NOERROR", ["192.0.2.7"])


def test_descriptors_are_closed(network: Network) -> None:
    network.upstream(dnsclient.says("192.0.2.7"))
    network.ask("example.org")
    before = len(os.listdir(f"/proc/{network.pid}/fd"))
    for stream in (False, True) * 10:
        network.ask("example.org", stream=stream)
    deadline = time.monotonic() + 5
    while len(os.listdir(f"/proc/{network.pid}/fd")) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(os.listdir(f"/proc/{network.pid}/fd")) <= before


def test_its_memory_does_not_grow_with_what_it_forwards(network: Network) -> None:
    network.upstream(dnsclient.refuses("NXDOMAIN", soa=True))

    def resident() -> int:
        status = Path(f"/proc/{network.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def forward(count: int) -> None:
        for number in range(count):
            network.exchange(dnsclient.question(f"n{number}.example"))

    forward(500)
    before = resident()
    forward(2000)
    assert resident() - before < 1024  # KiB; one that is kept whole would take 4 KiB


def test_what_resolv_conf_says(tmp_path: Path) -> None:
    text = (
        "search a.example\nnameserver 192.0.2.1\n nameserver fe80::1%lo \nnameserver\n"
        "nameserver no.address\nnameserver 192.0.2.1\n;nameserver 192.0.2.9\nnameserver ::1 # own\n"
        "options rotate\n"
    )
    assert parse(text) == ("192.0.2.1", "fe80::1%lo", "::1")
    assert parse("".join(f"nameserver 192.0.2.{n}\n" for n in range(9)))[3:] == ("192.0.2.3",)
    upstream = Upstream(str(tmp_path / "none"))
    assert upstream.servers() == ("8.8.8.8", "8.8.4.4")
    upstream.was_late("8.8.8.8")
    assert upstream.in_order(("8.8.8.8", "8.8.4.4")) == ("8.8.4.4", "8.8.8.8")
    upstream.has_answered("8.8.8.8")
    assert upstream.in_order(("8.8.8.8", "8.8.4.4")) == ("8.8.8.8", "8.8.4.4")
