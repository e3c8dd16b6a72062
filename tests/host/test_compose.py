"""Several containers that are one application: they find each other by name, whatever starts first.

What docker-compose(1) makes of its file, by plain commands; and as many as start at once on one network.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from containers import Container, Containers, eventually
from faults import SOAK
from lane import TIMEOUT, Sysbox
from test_databases import PROGRAMS, SERVICES, UNPACKED, databases, postgres, query

from sysbox.netns import leases, names

__all__ = ["databases", "postgres"]  # fixtures
NET = "compose"
# a server that answers with what a command prints
SERVER = """
import http.server, subprocess, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        done = subprocess.run(sys.argv[2:], capture_output=True)
        self.send_response(500 if done.returncode else 200)
        self.end_headers()
        self.wfile.write(done.stdout or done.stderr)

http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Answer).serve_forever()
"""
FETCH = (
    "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode(), end='')"
)


def test_a_web_server_an_application_and_postgresql(
    network: Callable[..., str],
    containers: Containers,
    postgres: Callable[..., Container],
    tmp_path: Path,
) -> None:
    """The web server is started first, and its database last; later it starts anew, and has moved."""
    network(NET)
    serve = ("python3", "-c", SERVER)
    containers(
        "--name", "web", "--network", NET, "-p", "127.0.0.1:18080:80", image="host",
        command=(*serve, "80", "python3", "-c", FETCH, "http://app:8000/"),
    )  # fmt: skip
    (client,) = SERVICES.glob("usr/lib/postgresql/*/bin/psql")
    program = f"{UNPACKED}/{client.relative_to(SERVICES)}"
    select = (program, "-XAt", "-h", "db", "-U", "postgres", "-c", "select text from greeting")
    containers(*PROGRAMS, "--name", "app", "--network", NET, image="host",
               command=(*serve, "8000", *select))  # fmt: skip
    eventually(lambda: "500" in get(), "they answer, and there is no database yet")
    clients = tmp_path / "pg_hba.conf"
    clients.write_text("local all all trust\nhost all all samenet trust\n", encoding="ascii")
    clients.chmod(0o644)
    db = postgres(
        "--name", "db", "--network", NET, "-v", f"{clients}:/pg_hba.conf:ro",
        more="-c listen_addresses=* -c hba_file=/pg_hba.conf",
    )  # fmt: skip
    query(db, "create table greeting as select 'hello from PostgreSQL' as text")
    eventually(lambda: get() == "hello from PostgreSQL\n", "the whole way to the database")
    ends = db.inspect("NetworkSettings.Networks")
    db("restart", "-t", "5")
    eventually(lambda: get() == "hello from PostgreSQL\n", "the way to where it is now")
    moved = db.inspect("NetworkSettings.Networks")[NET]["IPAddress"]
    assert moved != ends[NET]["IPAddress"], "an address is given again only after all others"


def get() -> str:
    """What the web server answers on its published port, or why it does not."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:18080/", timeout=10) as answer:
            return str(answer.read().decode())
    except OSError as error:
        return str(error)


@pytest.fixture
def many(sysbox: Sysbox) -> Iterator[list[str]]:
    """The names of 64 containers, of fewer but in the soak; they are removed at the end."""
    made = [f"many-{number}" for number in range(64 if SOAK else 24)]
    yield made
    sysbox("rm", "-f", *made, timeout=2 * TIMEOUT)


def test_many_start_at_once_on_one_network(
    sysbox: Sysbox, image: str, network: Callable[..., str], many: list[str]
) -> None:
    """Each has an address of its own, and finds all others by name; nothing of them is left."""
    network(NET, "--ipv6")
    flags = ("--network", NET, "--log-driver", "none")

    def start(name: str) -> str:
        done = sysbox(
            "run", "-d", *flags, "--name", name, image, "sleep", "1000", timeout=3 * TIMEOUT
        )
        return done.stderr

    with ThreadPoolExecutor(len(many)) as pool:
        assert [told for told in pool.map(start, many) if told] == []
    ends = f'index .NetworkSettings.Networks "{NET}"'
    form = f"{{{{with {ends}}}}}{{{{.IPAddress}}}} {{{{.GlobalIPv6Address}}}}{{{{end}}}}"
    told = sysbox("inspect", "-f", form, *many, check=True).stdout.splitlines()
    assert len({address for line in told for address in line.split()}) == 2 * len(many)
    one = "nslookup many-$number | tail -n +3 | grep -o 'Address.*: .*'"
    ask = f"for number in $(seq 0 {len(many) - 1}); do {one}; done"
    heard = sysbox("exec", many[0], "sh", "-c", ask, check=True).stdout
    assert {line.split()[-1] for line in heard.splitlines()} == {
        one for line in told for one in line.split()
    }
    sysbox("rm", "-f", *many, check=True, timeout=2 * TIMEOUT)
    eventually(lambda: leases.in_use() == [], "no lease, and no bridge")
    assert not list(Path(names.DIRECTORY).glob("*/*"))
