"""Services whose image is missing, with the real docker-registry: what they share, wait for, and say."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import eventually, systemctl
from lane import Sysbox
from registryserver import LOOPBACK, Registry, free_port, program
from test_pull import layer

pytestmark = [
    pytest.mark.skipif(program() is None, reason="docker-registry is not unpacked"),
    pytest.mark.usefixtures("no_pulled_images"),
]
NAME = "pull-test"
SERVICE = f"{NAME}.service"
ONLINE = "network-online.target"


@pytest.fixture
def declare(sysbox: Sysbox, tmp_path: Path) -> Iterator[Declare]:
    one = Declare(sysbox, tmp_path)
    yield one
    one.remove()


class Declare:
    """Writes and installs declarations."""

    def __init__(self, sysbox: Sysbox, directory: Path) -> None:
        self._sysbox = sysbox
        self._directory = directory

    def __call__(
        self, image: str, container: str = "Exec=sleep 1000", service: str = "", name: str = NAME,
        quadlet: str = "",
    ) -> None:  # fmt: skip
        path = self._directory / f"{name}.container"
        path.write_text(
            f"[Container]\nImage={image}\nStopSignal=KILL\n{container}\n[Service]\n{service}\n[Quadlet]\n{quadlet}\n"
        )
        self._sysbox("unit", "install", path, check=True)

    def remove(self) -> None:
        for unit in self._sysbox("unit", "list", "--format", "{{.Unit}}").stdout.splitlines():
            if unit.startswith(NAME):
                stem, at, _ = unit.partition("@")
                self._sysbox("unit", "uninstall", "--force", unit, check=True)
                systemctl("reset-failed", f"{stem}@*.service" if at else unit, check=False)


def shown(name: str, unit: str = SERVICE) -> str:
    return systemctl("show", "-P", name, unit)


def requests(registry: Registry, target: str) -> int:
    """How often something was asked of the registry, and answered."""
    log = registry.log.read_text(errors="replace")
    return len(re.findall(rf'"(?:GET|HEAD) /v2/{target} HTTP/1.1" \d+', log))


class Gate:
    """A way to a registry that stops before its first blob until `open`; a context manager."""

    def __init__(self, to: int) -> None:
        self.port = free_port()
        self._to = to
        self._opened = threading.Event()
        self._socket = socket.create_server((LOOPBACK, self.port))
        self._open_sockets = [self._socket]

    def open(self) -> None:
        self._opened.set()

    def __enter__(self) -> Gate:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        for one in self._open_sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # ignoring: it is closed already
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._socket.accept()
            except OSError:
                return
            far = socket.create_connection((LOOPBACK, self._to))
            self._open_sockets += [near, far]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if b"/blobs/" in data[:200]:
                    self._opened.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # ignoring: the test is over


def test_a_pull_takes_longer_than_a_start_may(
    declare: Declare, registry: Registry, base: bytes
) -> None:
    """systemd is told so, and what it waits for."""
    registry.put_image("slow", "1", [base])
    with Gate(registry.port) as gate:
        declare(f"{LOOPBACK}:{gate.port}/slow:1", service="TimeoutStartSec=4s")
        systemctl("start", "--no-block", SERVICE)
        eventually(lambda: shown("StatusText").startswith("Pulling"), "it says what it does")
        began = int(shown("ExecMainStartTimestampMonotonic"))
        eventually(lambda: _now() - began > 4_500_000, "the time of a start is over")
        assert shown("ActiveState") == "activating"
        gate.open()
        eventually(lambda: shown("ActiveState") == "active", "it runs")
    assert not shown("StatusText").startswith("Pulling")


def test_a_stop_ends_a_pull(
    declare: Declare, sysbox: Sysbox, registry: Registry, base: bytes
) -> None:
    registry.put_image("slow", "3", [base])
    with Gate(registry.port) as gate:
        declare(f"{LOOPBACK}:{gate.port}/slow:3")
        systemctl("start", "--no-block", SERVICE)
        eventually(lambda: shown("StatusText").startswith("Pulling"), "it waits for a layer")
        systemctl("stop", SERVICE)
        assert (shown("ActiveState"), shown("Result")) == ("inactive", "success")
        assert sysbox("gc", check=True).stdout == ""
        gate.open()
        systemctl("start", SERVICE)


def test_a_declared_pull_says_how_far_it_is(
    sysbox: Sysbox, declare: Declare, registry: Registry, base: bytes, tmp_path: Path
) -> None:
    """The service of an `.image` file, with which a container waits."""
    registry.put_image("slow", "2", [base])
    unit = f"{NAME}-image.service"
    with Gate(registry.port) as gate:
        file = tmp_path / f"{NAME}.image"
        file.write_text(f"[Image]\nImage={LOOPBACK}:{gate.port}/slow:2\n")
        sysbox("unit", "install", file, check=True)
        declare(file.name)
        systemctl("start", "--no-block", SERVICE)
        said = f"Pulling {LOOPBACK}:{gate.port}/slow:2"
        eventually(lambda: shown("StatusText", unit).startswith(said), "it says what it does")
        assert shown("ActiveState") == "inactive"
        gate.open()
        eventually(lambda: shown("ActiveState") == "active", "its container runs")
    assert shown("StatusText", unit) == ""


def _now() -> int:
    """Microseconds, as systemd's timestamps."""
    return int(float(Path("/proc/uptime").read_text().split()[0]) * 1_000_000)


@pytest.mark.parametrize("policy", ["missing", "always"])
def test_ten_services_share_a_pull(
    declare: Declare, registry: Registry, base: bytes, policy: str
) -> None:
    digest = registry.put_image("ten", policy, [base, layer(x=policy.encode())])["digest"]
    _, _, manifest = registry.request("GET", f"/v2/ten/manifests/{digest}")
    units = [f"{NAME}@{number}.service" for number in range(10)]
    with Gate(registry.port) as gate:
        image = f"{LOOPBACK}:{gate.port}/ten:{policy}"
        declare(image, f"Exec=sleep 1000\nPull={policy}", name=f"{NAME}@")
        systemctl("start", "--no-block", *units)
        said = f"Waiting for another pull of {image}"
        texts = ("show", "-P", "StatusText", *units)
        eventually(lambda: systemctl(*texts).count(said) == 9, "one pulls, the others wait")
        gate.open()
        systemctl("start", *units)
    assert {shown("ActiveState", unit) for unit in units} == {"active"}
    # nine have asked since the first pull began, and before a second one does
    assert requests(registry, f"ten/manifests/{policy}") <= (1 if policy == "missing" else 2)
    for blob in re.findall(rb"sha256:[0-9a-f]{64}", manifest):
        assert requests(registry, f"ten/blobs/{blob.decode()}") == 1


def test_a_pull_that_fails_is_tried_more_and_more_slowly(
    declare: Declare, registry: Registry
) -> None:
    """Each restart asks once; systemd's limit of starts alone would not end it. A stop does."""
    declare(f"{registry.host}/nothing:1", service="Restart=always\nRestartSec=100ms")
    systemctl("start", SERVICE, check=False)
    for pause in (2, 4):
        said = f"failing in {pause} s"
        eventually(lambda said=said: said in shown("StatusText"), said)
    assert "no such image" in shown("StatusText")
    assert requests(registry, "nothing/manifests/1") == 1 + int(shown("NRestarts"))
    systemctl("stop", SERVICE)
    assert shown("ActiveState") in ("inactive", "failed")


def test_an_image_whose_command_fails_meets_the_start_limit(
    declare: Declare, registry: Registry, base: bytes
) -> None:
    registry.put_image("broken", "1", [base])
    service = "Restart=always\nRestartSec=10ms\n[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=3"
    declare(f"{registry.host}/broken:1", "Exec=false\nPull=always", service)
    systemctl("start", SERVICE, check=False)
    eventually(lambda: shown("ActiveState") == "failed", "systemd gives up")
    assert shown("NRestarts") in ("2", "3")
    assert requests(registry, "broken/manifests/1") == 3


@pytest.fixture
def slow_network(tmp_path: Path) -> Iterator[Path]:
    """network-online.target is reached once the file is there."""
    flag = tmp_path / "online"
    unit = Path("/run/systemd/system/pull-test-online.service")
    wanted = Path(f"/run/systemd/system/{ONLINE}.wants")
    unit.write_text(
        f"[Unit]\nBefore={ONLINE}\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        f"ExecStart=sh -c 'until test -e {flag}; do sleep 0.05; done'\n"
    )
    wanted.mkdir()
    (wanted / unit.name).symlink_to(unit)
    systemctl("daemon-reload")
    systemctl("stop", ONLINE)
    yield flag
    flag.touch()
    systemctl("stop", ONLINE, unit.name)
    (wanted / unit.name).unlink()
    wanted.rmdir()
    unit.unlink()
    systemctl("daemon-reload")


def test_a_pull_waits_for_the_network(
    declare: Declare, registry: Registry, base: bytes, tmp_path: Path, slow_network: Path
) -> None:
    """Where the registry is not reached; a start without a pull does not."""
    later = Registry(tmp_path / "later")
    with later:
        later.put_image("late", "1", [base])
    declare(f"{later.host}/late:1")
    systemctl("start", "--no-block", SERVICE)
    eventually(lambda: shown("StatusText") == "Waiting for the network", "it waits")
    with later:
        slow_network.touch()
        eventually(lambda: shown("ActiveState") == "active", "it runs")
    systemctl("stop", SERVICE, ONLINE, "pull-test-online.service")
    slow_network.unlink()
    systemctl("start", SERVICE)
    assert shown("ActiveState", ONLINE) == "inactive", "its image is here"


def test_retries(declare: Declare, sysbox: Sysbox) -> None:
    """Retry= and RetryDelay= are attempts of the whole pull."""
    systemctl("start", ONLINE)
    nobody = free_port()
    declare(f"{LOOPBACK}:{nobody}/x:1", "Retry=2\nRetryDelay=50ms")
    systemctl("start", SERVICE, check=False)
    assert journal().count("another attempt in 0.05 s") == 2
    done = sysbox("run", "--retry", "1", "--retry-delay", "1ms", f"{LOOPBACK}:{nobody}/x:1")
    assert done.stderr.count("another attempt in 0.001 s") == 1
    assert "--retry x" in sysbox("run", "--retry", "x", f"{LOOPBACK}:{nobody}/x:1").stderr
    systemctl("stop", ONLINE)


def journal() -> str:
    subprocess.run(["journalctl", "--sync"], check=True)
    command = ["journalctl", "-u", SERVICE, "-o", "cat", "--no-pager"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_another_platform(declare: Declare, registry: Registry, base: bytes) -> None:
    """PodmanArgs=--platform pulls as `run` does."""
    registry.put_image("foreign", "1", [base], platform={"os": "linux", "architecture": "riscv64"})
    declare(f"{registry.host}/foreign:1", "PodmanArgs=--platform=linux/s390x")
    systemctl("start", SERVICE, check=False)
    assert "not for linux/s390x" in journal()
