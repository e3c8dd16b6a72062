"""Sockets that systemd opens: the payload gets them, and the container starts with the first connection.

In the guest: the generator is that of an installation by pip, and systemd is PID 1 of a machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import eventually, systemctl, with_health_check
from lane import SYSBOX, TIMEOUT, Sysbox
from test_units import NAME, SERVICE, Declare, state

from sysbox.units.quadlet import generate

IMAGE = "host"  # it has Python
SOCKET = f"{NAME}.socket"
PORT = 18471
# tells what it was given, to each connection of the first socket, and ends when it is asked to
SERVER = """
import os, socket
count = int(os.environ["LISTEN_FDS"])
sockets = [socket.socket(fileno=fd) for fd in range(3, 3 + count)]
fds = sorted(map(int, os.listdir("/proc/self/fd")))
meant = os.environ["LISTEN_PID"] == str(os.getpid())
while True:
    connection = sockets[0].accept()[0]
    kinds = [one.getsockname() for one in sockets]
    connection.sendall(repr((meant, os.environ["LISTEN_FDNAMES"], fds[:-1], kinds)).encode())
    connection.close()
"""


@pytest.fixture
def declare(sysbox: Sysbox, tmp_path: Path) -> Iterator[Declare]:
    one = Declare(sysbox, tmp_path, IMAGE)
    (tmp_path / "server.py").write_text(SERVER)
    yield one
    one.remove()
    systemctl("reset-failed", SOCKET, check=False)


def answer(port: int = PORT) -> str:
    """What the server says."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
        text = b""
        while data := connection.recv(4096):
            text += data
    return text.decode()


def install(declare: Declare, sysbox: Sysbox, more: str = "", service: str = "") -> list[str]:
    """The units of a container whose payload takes a socket."""
    file = declare.file(
        f"Volume=./server.py:/server.py:ro\nExec=python3 /server.py\nStopSignal=KILL\n{more}",
        service,
    )
    return sysbox("unit", "install", file, check=True).stdout.split()


@pytest.mark.parametrize("init", ["no", "yes"])
def test_the_payload_gets_the_sockets(declare: Declare, sysbox: Sysbox, init: str) -> None:
    path = f"/run/{NAME}.sock"
    more = f"ListenStream=127.0.0.1:{PORT}\nListenDatagram={path}\nRunInit={init}\n"
    made = install(declare, sysbox, f"{more}[Socket]\nFileDescriptorName=web")
    assert made == [SERVICE, SOCKET]
    systemctl("start", SOCKET)
    assert state() == "inactive", "nobody has connected"
    told = repr((True, "web:web", [0, 1, 2, 3, 4], [("127.0.0.1", PORT), path]))
    assert answer() == told
    # the payload may answer before its supervisor says that it runs
    eventually(lambda: state() == "active", "it has started")
    # the sockets are systemd's: they outlive the container
    os.kill(declare.container().pid, signal.SIGKILL)
    eventually(lambda: state() == "failed", "it has ended")
    assert answer() == told
    systemctl("stop", SOCKET)
    assert state() == "inactive", "without its sockets it is nothing"
    systemctl("start", SERVICE)
    assert systemctl("show", "-P", "ActiveState", SOCKET) == "active"
    assert answer() == told


@pytest.fixture
def generator(sysbox: Sysbox) -> Iterator[None]:
    """An embedded host has its own; elsewhere it is put where systemd looks."""
    there = generate.find("sysbox-generator")
    if not there:
        sysbox("system", "install-units", check=True)
    yield
    if not there:
        sysbox("system", "uninstall-units", check=True)


@pytest.mark.parametrize(
    "way", ["installed", pytest.param("generated", marks=pytest.mark.guest("installed by pip"))]
)
def test_a_socket_file_beside_the_container(
    declare: Declare, sysbox: Sysbox, tmp_path: Path, way: str, generator: None
) -> None:
    """The payload gets the descriptors as with ListenStream= of its own."""
    directory = tmp_path if way == "installed" else Path("/run/sysbox/units")
    server = f"Volume={tmp_path}/server.py:/server.py:ro\nExec=python3 /server.py"
    file = declare.file(f"{server}\nStopSignal=KILL")
    text = f"[Socket]\nListenStream=127.0.0.1:{PORT}\nFileDescriptorName=own\n"
    try:
        directory.mkdir(exist_ok=True)
        (directory / SOCKET).write_text(text)
        if way == "installed":
            made = sysbox("unit", "install", file, check=True).stdout.split()
            assert made == [SERVICE, SOCKET]
            assert systemctl("is-enabled", SERVICE, check=False) == "disabled", "it is its own"
        else:
            shutil.move(file, directory)
            systemctl("daemon-reload")
            assert systemctl("show", "-P", "UnitFileState", SOCKET) == "generated"
        assert sysbox("unit", "check", directory / SOCKET, check=True).stdout.splitlines() == [
            f"{directory}/{file.name}: {SERVICE}",
            f"{directory}/{SOCKET}: {SOCKET}",
        ]
        systemctl("start", SOCKET)
        told = repr((True, "own", [0, 1, 2, 3], [("127.0.0.1", PORT)]))
        assert answer() == told
        os.kill(declare.container().pid, signal.SIGKILL)
        eventually(lambda: state() == "failed", "it has ended")
        assert answer() == told
        systemctl("stop", SOCKET)
        assert state() == "inactive"
        systemctl("start", SERVICE)
        assert answer() == told, "started by hand it has them too"
        if way == "installed":
            assert sysbox("unit", "uninstall", SERVICE, check=True).stdout == f"{SERVICE}\n"
            assert not list(Path("/etc/systemd/system").rglob(f"{NAME}*"))
    finally:
        if way == "generated":
            systemctl("stop", SOCKET, SERVICE, check=False)
            shutil.rmtree(directory)
            systemctl("daemon-reload")


def test_a_socket_file_of_a_template(declare: Declare, sysbox: Sysbox, tmp_path: Path) -> None:
    """An instance with a file of its own has its socket, as all others have: a start opens it."""
    lines = f"Volume={tmp_path}/server.py:/server.py:ro\nExec=python3 /server.py\nStopSignal=KILL"
    declare.file(lines, name=f"{NAME}@")
    (tmp_path / f"{NAME}@1.container").symlink_to(f"{NAME}@.container")
    (tmp_path / f"{NAME}@.socket").write_text("[Socket]\nListenStream=127.0.0.1:1847%i\n")
    made = sysbox("unit", "install", tmp_path, check=True).stdout.split()
    assert made == [f"{NAME}@{one}" for one in (".service", ".socket", "1.service", "1.socket")]
    files = []
    for number in (1, 2):
        systemctl("start", f"{NAME}@{number}.service")
        assert systemctl("is-active", f"{NAME}@{number}.socket") == "active"
        told = repr(
            (True, f"{NAME}@{number}.socket", [0, 1, 2, 3], [("127.0.0.1", 18470 + number)])
        )
        assert answer(18470 + number) == told
        files.append(systemctl("show", "-P", "FragmentPath", f"{NAME}@{number}.socket"))
    assert files == [f"/etc/systemd/system/{NAME}@{one}.socket" for one in ("1", "")]


# makes the socket that it gets a connection to a port, and stays
CONNECTS = """
import ctypes, socket, time
ctypes.CDLL(None).connect(3, bytes(16), 16)
one = socket.socket(fileno=3)
one.setblocking(True)
one.connect(("127.0.0.1", {port}))
one.sendall(b"inside")
time.sleep(1000)
"""


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[Path]:
    """A program that takes systemd's socket to a server, which then closes its half of the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT)
        (tmp_path / "server.py").write_text(CONNECTS.format(port=server.getsockname()[1]))
        accepted: list[socket.socket] = []

        def serve() -> None:
            accepted.append(server.accept()[0])
            accepted[0].settimeout(TIMEOUT)
            assert accepted[0].recv(64) == b"inside"
            accepted[0].shutdown(socket.SHUT_WR)
            (tmp_path / "lost").touch()

        serving = threading.Thread(target=serve)
        serving.start()
        yield tmp_path / "lost"
        serving.join()
        accepted[0].close()


def stopped(*units: str) -> None:
    """They can be, and systemd does other work as before: it did nothing else than look at the socket."""
    systemctl("stop", *units)
    systemctl("daemon-reload")
    # it has closed a socket that was shut down
    assert systemctl("is-active", units[0], check=False) in ("failed\n", "failed", "inactive")
    assert not listens(PORT)


def test_a_socket_of_the_host_is_a_way_to_its_network(
    declare: Declare, sysbox: Sysbox, lost: Path
) -> None:
    """As docs/security.md says: whoever gets one needs no network of his own. The host's systemd goes on."""
    install(declare, sysbox, f"ListenStream=127.0.0.1:{PORT}\nNetwork=none")
    systemctl("start", SERVICE)
    eventually(lost.exists, "the server has a connection")
    stopped(SOCKET, SERVICE)


def test_nor_does_systemd_hang_with_one_of_a_foreground_container(
    tmp_path: Path, lost: Path
) -> None:
    command = [
        *(
            "systemd-run",
            "--quiet",
            f"--unit={NAME}",
            f"--socket-property=ListenStream=127.0.0.1:{PORT}",
        ),
        *(SYSBOX, "run", "--rm", "--network", "none", "-v", f"{tmp_path}/server.py:/server.py:ro"),
        *("--init", IMAGE, "python3", "/server.py"),
    ]
    subprocess.run(command, check=True)
    with socket.create_connection(("127.0.0.1", PORT), timeout=TIMEOUT):
        eventually(lost.exists, "the server has a connection")
    stopped(SOCKET, SERVICE)
    systemctl("reset-failed", SOCKET, SERVICE, check=False)


def test_what_is_installed_is_removed_together(declare: Declare, sysbox: Sysbox) -> None:
    assert install(declare, sysbox, f"ListenStream={PORT}") == [SERVICE, SOCKET]
    assert systemctl("is-enabled", SOCKET, check=False) == "disabled"
    assert systemctl("is-enabled", SERVICE, check=False) == "static", "the socket starts it"
    systemctl("enable", "--now", SOCKET)
    # a socket that the declaration does not have any more goes
    assert install(declare, sysbox) == [SERVICE]
    assert not (Path("/etc/systemd/system") / SOCKET).exists()
    assert systemctl("show", "-P", "ActiveState", SOCKET) == "inactive"
    install(declare, sysbox, f"ListenStream={PORT}")
    sysbox("unit", "uninstall", SERVICE, check=True)
    assert not list(Path("/etc/systemd/system").rglob(f"{NAME}*"))


def test_a_run_passes_the_sockets_of_its_caller(sysbox: Sysbox, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    command = [
        *("systemd-socket-activate", "-l", f"127.0.0.1:{PORT}", "--fdname=mine"),
        *(SYSBOX, "run", "--rm", "--name", NAME, "-v", f"{tmp_path}/server.py:/server.py:ro"),
        *(IMAGE, "python3", "/server.py"),
    ]
    caller = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: listens(PORT), "it listens")
        assert answer() == repr((True, "mine", [0, 1, 2, 3], [("127.0.0.1", PORT)]))
    finally:
        sysbox("kill", NAME)
        caller.wait(TIMEOUT)


def listens(port: int) -> bool:
    wanted = f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(wanted) and line.split()[3] == "0A" for line in lines)


def test_sockets_that_cannot_be_passed(sysbox: Sysbox, image: str) -> None:
    script = 'export LISTEN_PID=$$ LISTEN_FDS=$1; shift; exec "$@"'
    run = [*("sh", "-c", script, "sh"), "1", SYSBOX, "run", "--rm"]
    for count, said in (
        ("1", "descriptor 3 was not passed on"), ("x", "=x: not a number"), ("9999", "not a number"),
    ):  # fmt: skip
        run[4] = count
        done = subprocess.run([*run, image, "true"], capture_output=True, text=True, check=False)
        assert (done.returncode, said in done.stderr) == (125, True), done.stderr
    with (
        socket.create_server(("127.0.0.1", PORT)) as server,
        with_health_check(sysbox, image) as checked,
    ):
        begin = ("bash", "-c", f"exec 3<&{server.fileno()}; {script}", "sh", "1", SYSBOX, "run")
        for words in (("-d", image), (checked, "true")):
            done = subprocess.run(
                [*begin, *words],
                capture_output=True, text=True, check=False, pass_fds=[server.fileno()],
            )  # fmt: skip
            assert done.returncode == 125
            assert "has a service of its own" in done.stderr
        assert not sysbox("ps", "-aq", check=True).stdout
    # another process is meant
    environment = {**os.environ, "LISTEN_PID": "1", "LISTEN_FDS": "1"}
    done = sysbox("run", "--rm", image, "env", env=environment, check=True)
    assert "LISTEN" not in done.stdout
