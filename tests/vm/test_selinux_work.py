"""SELinux denies, and nothing of a day's ordinary work is denied."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from containers import PATIENCE, Container, Containers, eventually, systemctl
from denials import nothing_denied as nothing_denied
from lane import Sysbox
from pod_lab import POD
from pod_lab import pod as pod
from registryserver import Registry, program
from test_health import FILE, QUICK, is_now
from test_inside import boot
from test_proxy import PORT, SOCKET, get, listen
from test_units import Declare
from test_units import declare as declare

from sysbox.base.paths import IMAGES

if TYPE_CHECKING:
    from conftest import Requires

pytestmark = pytest.mark.enforcing("each verb touches other types of files")


def test_files_in_and_out(sysbox: Sysbox, containers: Containers, tmp_path: Path) -> None:
    """cp in both directions, diff, export, commit, and a container of the new image."""
    one = containers()
    (tmp_path / "given").write_text("hello\n")
    sysbox("cp", tmp_path / "given", f"{one.id}:/srv-file", check=True)
    assert one.exec("cat", "/srv-file") == "hello"
    sysbox("cp", f"{one.id}:/etc/passwd", tmp_path / "taken", check=True)
    assert (tmp_path / "taken").read_text().startswith("root:")
    assert "A /srv-file" in one("diff")
    sysbox("export", "-o", tmp_path / "all.tar", one.id, check=True)
    sysbox("commit", one.id, "selinux-test:1", check=True)
    try:
        sysbox("save", "-o", tmp_path / "image.tar", "selinux-test:1", check=True)
        sysbox("rmi", "selinux-test:1", check=True)
        sysbox("load", "-i", tmp_path / "image.tar", check=True)
        done = sysbox("run", "--rm", "selinux-test:1", "cat", "/srv-file")
        assert done.stdout == "hello\n"
    finally:
        sysbox("rmi", "-f", "selinux-test:1")


def test_build(sysbox: Sysbox, image: str, tmp_path: Path) -> None:
    """Steps that run, copy and mount."""
    (tmp_path / "Containerfile").write_text(
        f"FROM {image}\nCOPY given /given\nRUN --mount=type=cache,target=/cache cat /given >/cache/one\n"
        "RUN echo made >/made\nUSER user\nCMD cat /given /made\n"
    )
    (tmp_path / "given").write_text("hello\n")
    try:
        sysbox("build", "-t", "selinux-built:1", tmp_path, check=True)
        done = sysbox("run", "--rm", "selinux-built:1")
        assert (done.returncode, done.stdout) == (0, "hello\nmade\n")
    finally:
        sysbox("rmi", "-f", "selinux-built:1")
        sysbox("builder", "prune", "-af", check=True)


LAYERS = Path(IMAGES, "layers")
READ_ONLY = "container_ro_file_t:s0"


def types_below(top: Path) -> set[str]:
    """The SELinux types and levels of a directory and of all that is in it."""
    found = (
        os.getxattr(one, "security.selinux", follow_symlinks=False)
        for one in (top, *top.rglob("*"))
    )
    return {label.decode().strip("\0").split(":", 2)[2] for label in found}


def test_a_registry(
    sysbox: Sysbox, containers: Containers, requires: Requires, tmp_path: Path
) -> None:
    """Pushed, and pulled by hand and by a service that starts: layers have the label of layers."""
    requires(program(), "docker-registry, which tools/setup.sh unpacks")
    one = containers()
    one.sh("mkdir /new; echo hello >/new/file; ln -s file /new/link; cp /bin/busybox /new/cat")
    with Registry(tmp_path / "registry") as registry:
        name = f"{registry.host}/team/box:1"
        before = set(os.listdir(LAYERS))
        sysbox("commit", one.id, name, check=True)

        def check_layers() -> None:
            new = set(os.listdir(LAYERS)) - before
            assert new
            assert {label for layer in new for label in types_below(LAYERS / layer)} == {READ_ONLY}

        check_layers()
        sysbox("push", name, check=True)
        sysbox("rmi", name, check=True)
        assert set(os.listdir(LAYERS)) == before
        sysbox("pull", "-q", name, check=True)
        check_layers()
        # mapped and executed, so the kernel asks for the label below the overlay too
        done = sysbox("run", "--rm", name, "/new/cat", "/new/link", check=True)
        assert done.stdout == "hello\n"
        sysbox("rmi", name, check=True)
        declared = Declare(sysbox, tmp_path, name)
        try:
            assert declared().exec("cat", "/new/file") == "hello"
            check_layers()
        finally:
            declared.remove()
            sysbox("rmi", "-f", name, check=True)
            sysbox("gc", check=True)


def test_networks_and_names(
    sysbox: Sysbox, network: Callable[..., str], containers: Containers
) -> None:
    """A network of its own, with the resolver of names."""
    network("selinux-net")
    containers("--network", "selinux-net", "--name", "server", "--network-alias", "db")
    one = containers("--network", "selinux-net", "--add-host", "fixed:192.0.2.7")
    assert "PING db (" in one.sh("ping -c 1 db 2>&1 || true")
    assert "192.0.2.7" in one.exec("cat", "/etc/hosts")
    sysbox("network", "disconnect", "selinux-net", one.id, check=True)


@pytest.fixture
def volume(sysbox: Sysbox) -> Iterator[str]:
    """The name of a volume, which containers make."""
    yield "selinux-vol"
    sysbox("volume", "rm", "selinux-vol", check=True)


def test_volumes(volume: str, containers: Containers) -> None:
    """Two containers with one volume; a tmpfs, a read-only root."""
    one = containers("-v", f"{volume}:/data", "--tmpfs", "/scratch", "--read-only")
    one.sh("echo hello >/data/file && cp /data/file /scratch/")
    other = containers("-v", f"{volume}:/data", "--userns", "host")
    assert other.exec("cat", "/data/file") == "hello"
    other.sh("echo more >>/data/file")
    assert one.exec("tail", "-n", "1", "/data/file") == "more"


def test_pods(pod: Callable[..., str], containers: Containers) -> None:
    """Two containers of a pod: what is shared is shared."""
    pod("--hostname", "shop.example")
    one = containers("--pod", POD)
    other = containers("--pod", POD)
    one.sh("echo told >/dev/shm/word")
    assert other.exec("cat", "/dev/shm/word") == "told"
    assert other.exec("cat", "/etc/hostname") == "shop.example"


def test_secrets_and_checks(sysbox: Sysbox, containers: Containers) -> None:
    """A secret as a file, and a health check by systemd's timer."""
    sysbox("secret", "create", "selinux-secret", "-", input="hush", check=True)
    try:
        one = containers("--secret", "selinux-secret", *QUICK, *FILE)
        assert one.exec("cat", "/run/secrets/selinux-secret") == "hush"
        one.sh("touch /well")
        is_now(one, "healthy")
    finally:
        containers.remove()
        sysbox("secret", "rm", "selinux-secret", check=True)


def test_looking_and_changing(sysbox: Sysbox, containers: Containers) -> None:
    """The verbs that read a running container, limit and stop it, and those that clean up."""
    one = containers("-m", "64m", "--restart", "on-failure", "--init")
    for words in (
        ("ps", "-a"), ("top", one.id), ("stats", "--no-stream", one.id), ("inspect", one.id),
        ("logs", one.id), ("update", "-m", "48m", one.id), ("pause", one.id), ("unpause", one.id),
        ("restart", "-t", "0", one.id), ("events", "--since", "1m", "--until", "0s"), ("system", "df"),
        ("info",),
    ):  # fmt: skip
        sysbox(*words, check=True)
    one("stop", "-t", "0")
    assert one.inspect("State.Status") == "exited"
    sysbox("gc", check=True)


def test_declared(sysbox: Sysbox, declare: Callable[..., Container]) -> None:
    """A unit that is written by `unit install`, and its container."""
    one = declare("Exec=sleep 1000\nStopSignal=KILL\nVolume=units-test:/data", "MemoryMax=64M")
    assert one.exec("id", "-u") == "0"
    systemctl("restart", "units-test.service")
    sysbox("unit", "uninstall", "--force", "units-test.service", check=True)
    sysbox("volume", "rm", "units-test", check=True)


@pytest.fixture
def installed(sysbox: Sysbox) -> Iterator[None]:
    """systemd's files of sysbox."""
    sysbox("system", "install-units", check=True)
    yield
    sysbox("system", "uninstall-units", check=True)


@pytest.mark.usefixtures("installed")
def test_generated(sysbox: Sysbox, containers: Containers, image: str) -> None:
    """A file below /etc/sysbox/units: the generator reads it, and systemd starts the container."""
    units = Path("/etc/sysbox/units")
    made = [path for path in (units.parent, units) if not path.exists()]
    units.mkdir(parents=True, exist_ok=True)
    file = units / "selinux-made.container"
    try:
        file.write_text(f"[Container]\nImage={image}\nExec=sleep 1000\nStopSignal=KILL\n")
        systemctl("daemon-reload")
        systemctl("start", "selinux-made.service")
        one = containers.known("systemd-selinux-made")
        assert one.exec("id", "-u") == "0"
        systemctl("stop", "selinux-made.service")
    finally:
        file.unlink()
        for directory in reversed(made):
            directory.rmdir()
        systemctl("daemon-reload")


def test_a_proxy(declare: Declare, sysbox: Sysbox) -> None:
    """A service between systemd's socket and a container, which starts with the first connection."""
    listen(declare, sysbox)
    assert get() == "hello"
    systemctl("stop", SOCKET)


# of TCP and of a datagram socket with a path, which systemd has opened for it
TAKES = (
    "import socket; first, second = (socket.socket(fileno=one) for one in (3, 4)); "
    "one = first.accept()[0]; one.sendall(second.recv(100)); one.close()"
)


def test_sockets(sysbox: Sysbox, tmp_path: Path) -> None:
    """A payload takes what systemd listens on."""
    declared, path = Declare(sysbox, tmp_path, "host"), "/run/selinux-test.sock"
    opened = f"ListenStream=127.0.0.1:{PORT}\nListenDatagram={path}\nExec=python3 -c '{TAKES}'"
    try:
        sysbox("unit", "install", declared.file(opened), check=True)
        systemctl("start", SOCKET)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one,
            socket.create_connection(("127.0.0.1", PORT), timeout=PATIENCE) as other,
        ):
            one.sendto(b"hello", path)
            assert other.recv(100) == b"hello"
    finally:
        declared.remove()
        systemctl("reset-failed", SOCKET, check=False)


def test_systemd_inside(containers: Containers) -> None:
    """systemd as the first process, with a service that it starts."""
    one = boot(containers)
    assert one.exec("systemctl", "is-active", "systemd-journald.service") == "active"
    eventually(lambda: one.exec("journalctl", "-b", "-q", "-n", "1"), "its journal has something")
