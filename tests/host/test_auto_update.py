"""`sysbox auto-update`: newer images from the real docker-registry, and back where one does not start."""

from __future__ import annotations

import fcntl
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import eventually, systemctl
from lane import SYSBOX, Sysbox
from registryserver import Registry, program
from test_pull import layer
from test_units_pull import NAME, SERVICE, Declare, requests, shown

pytestmark = [
    pytest.mark.skipif(program() is None, reason="docker-registry is not unpacked"),
    pytest.mark.usefixtures("no_pulled_images"),
]
CONTAINER = f"systemd-{NAME}"
UPDATES = "AutoUpdate=registry\nExec=sleep 1000"
CHECKED = f"{UPDATES}\nHealthCmd=test -e /good\nHealthInterval=100ms\nHealthRetries=2"


@pytest.fixture
def units(sysbox: Sysbox, tmp_path: Path) -> Iterator[Declare]:
    one = Declare(sysbox, tmp_path)
    yield one
    one.remove()
    for path in Path("/run/sysbox/held").glob("*"):
        path.unlink()


class Updated:
    """What a run of auto-update said."""

    def __init__(self, sysbox: Sysbox, *flags: str) -> None:
        done = sysbox("auto-update", "--format", "json", *flags)
        self.status = done.returncode
        self.stderr = done.stderr
        self.rows = [json.loads(line) for line in done.stdout.splitlines()]

    @property
    def words(self) -> dict[str, str]:
        return {row["Unit"].removeprefix(NAME): row["Updated"] for row in self.rows}


def version(sysbox: Sysbox, container: str = CONTAINER) -> str:
    return sysbox("exec", container, "cat", "/version", check=True).stdout


def put(registry: Registry, base: bytes, text: str, **files: bytes) -> str:
    """Put an image of that version under auto:1; its name."""
    layers = [base, layer(version=text.encode(), **files)] if base else [layer(**files)]
    registry.put_image("auto", "1", layers)
    return f"{registry.host}/auto:1"


def image_of(sysbox: Sysbox, name: str) -> str:
    return sysbox("image", "inspect", "-f", "{{.Id}}", name, check=True).stdout


def test_a_newer_image(sysbox: Sysbox, registry: Registry, base: bytes, units: Declare) -> None:
    name = put(registry, base, "1", good=b"")
    units(name, CHECKED)
    systemctl("start", SERVICE)
    assert Updated(sysbox).words == {".service": "false"}
    put(registry, base, "2", good=b"")
    before = image_of(sysbox, name), shown("InvocationID")
    assert Updated(sysbox, "--dry-run").words == {".service": "pending"}
    assert (image_of(sysbox, name), shown("InvocationID")) == before
    found = Updated(sysbox)
    assert (found.status, found.words, found.stderr) == (0, {".service": "true"}, "")
    assert version(sysbox) == "2"
    assert found.rows[0]["Image"] == name
    assert found.rows[0]["ContainerName"] == CONTAINER
    run = shown("InvocationID")
    table = sysbox("auto-update", check=True).stdout.splitlines()
    assert table[0].split() == ["UNIT", "CONTAINER", "IMAGE", "POLICY", "UPDATED"]
    assert table[1].split()[-2:] == ["registry", "false"]
    assert shown("InvocationID") == run, "nothing is restarted without a reason"


@pytest.mark.parametrize("case", ["no-program", "unhealthy", "ends", "newer"])
def test_it_goes_back(
    sysbox: Sysbox, registry: Registry, base: bytes, units: Declare, case: str
) -> None:
    """Where the new image does not start, is not healthy, or ends at once; also past Pull=newer."""
    lives, dies = b"exec sleep 1000", b"exit 3"
    name = put(registry, base, "1", good=b"", start=lives)
    container = {
        "no-program": CHECKED,
        "unhealthy": f"{CHECKED}\nNotify=healthy",
        "ends": "AutoUpdate=registry\nExec=sh /start",
        "newer": f"{CHECKED}\nPull=newer",
    }[case]
    # one that is never healthy uses it up; the others start, and may take long where much else goes on
    limit = "8s" if case == "unhealthy" else "1min"
    units(name, container, f"Restart=always\nTimeoutStartSec={limit}")
    systemctl("start", SERVICE)
    old = image_of(sysbox, name)
    put(registry, b"" if case == "no-program" else base, "2", start=dies)
    found = Updated(sysbox)
    assert (found.status, found.words) == (1, {".service": "rolled back"})
    assert SERVICE in found.stderr
    assert version(sysbox) == "1"
    assert image_of(sysbox, name) == old
    systemctl("restart", SERVICE)
    assert version(sysbox) == "1", "a later start keeps the old one too"
    put(registry, base, "3", good=b"", start=lives)
    found = Updated(sysbox)
    assert found.words == {".service": "true"}, found.stderr
    assert version(sysbox) == "3"
    assert not list(Path("/run/sysbox/held").glob("*"))


def test_the_way_back_is_not_pruned(
    sysbox: Sysbox, registry: Registry, base: bytes, units: Declare
) -> None:
    """While the service starts with the new image, nothing else has the old one."""
    name = put(registry, base, "1", good=b"")
    units(name, f"{CHECKED}\nNotify=healthy", "TimeoutStartSec=20s\nExecStartPre=/bin/sh -c '"
          "while test -e /run/auto-test-waits; do sleep 0.05; done'")  # fmt: skip
    systemctl("start", SERVICE)
    old = image_of(sysbox, name).strip()
    waits = Path("/run/auto-test-waits")
    waits.touch()
    put(registry, base, "2")
    try:
        with subprocess.Popen([SYSBOX, "auto-update"], stderr=subprocess.DEVNULL) as update:
            eventually(lambda: shown("SubState") == "start-pre", "it starts with the new one")
            done = sysbox("rmi", old)
            assert (done.returncode, f"used by container {CONTAINER}" in done.stderr) == (1, True)
            sysbox("image", "prune", "-f", check=True)
            waits.unlink()
            assert update.wait() == 1
    finally:
        waits.unlink(missing_ok=True)
    assert (version(sysbox), image_of(sysbox, name).strip()) == ("1", old)


def test_without_a_way_back(
    sysbox: Sysbox, registry: Registry, base: bytes, units: Declare
) -> None:
    name = put(registry, base, "1", good=b"")
    checked = f"{CHECKED}\nNotify=healthy"
    units(name, checked, "TimeoutStartSec=1min")
    systemctl("start", SERVICE)
    # only the one that is never healthy has to be over soon
    units(name, checked, "TimeoutStartSec=3s")
    put(registry, base, "2")
    found = Updated(sysbox, "--rollback=false")
    assert (found.status, found.words) == (1, {".service": "failed"})
    assert shown("ActiveState") == "failed"


def test_the_start_limit_refuses_no_way_back(
    sysbox: Sysbox, registry: Registry, base: bytes, units: Declare
) -> None:
    """The starts of an image that fails have used it up, and two updates in a row may."""
    name = put(registry, base, "1", good=b"", start=b"exec sleep 1000")
    limit = "[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=1h"
    units(
        name,
        "AutoUpdate=registry\nExec=sh /start",
        f"Restart=always\nTimeoutStartSec=1min\n{limit}",
    )
    systemctl("start", SERVICE)
    put(registry, base, "2", start=b"exit 3")
    found = Updated(sysbox)
    assert found.words == {".service": "rolled back"}, found.stderr
    assert version(sysbox) == "1"
    put(registry, base, "3", good=b"", start=b"exec sleep 1000")
    found = Updated(sysbox)
    assert found.words == {".service": "true"}, found.stderr
    assert version(sysbox) == "3"


def test_services_of_one_image_go_together(
    sysbox: Sysbox, registry: Registry, base: bytes, units: Declare
) -> None:
    """One pull; if one of them does not start, none keeps the new image."""
    name = put(registry, base, "1", good=b"")
    for number in (1, 2):
        check = "good" if number == 2 else "version"
        text = CHECKED.replace("/good", f"/{check}")
        units(name, text, name=f"{NAME}-{number}")
        systemctl("start", f"{NAME}-{number}.service")
    put(registry, base, "2")
    found = Updated(sysbox)
    assert "rolled back" in found.words.values()
    assert set(found.words.values()) <= {"rolled back", "false"}
    containers = [f"systemd-{NAME}-{number}" for number in (1, 2)]
    assert [version(sysbox, one) for one in containers] == ["1", "1"]
    put(registry, base, "3", good=b"")
    before = requests(registry, "auto/manifests/1")
    assert set(Updated(sysbox).words.values()) == {"true"}
    assert [version(sysbox, one) for one in containers] == ["3", "3"]
    # the test of the tag, and one pull
    assert requests(registry, "auto/manifests/1") <= before + 3


def test_an_image_that_was_replaced_here(
    sysbox: Sysbox, registry: Registry, base: bytes, units: Declare
) -> None:
    """AutoUpdate=local asks no registry."""
    name = put(registry, base, "1")
    sysbox("pull", "-q", name, check=True)
    sysbox("tag", name, "localhost/mine:1", check=True)
    try:
        units("localhost/mine:1", CHECKED.replace("registry", "local").replace("/good", "/version"))
        systemctl("start", SERVICE)
        put(registry, base, "2")
        before = requests(registry, ".*")
        assert Updated(sysbox).words == {".service": "false"}
        assert requests(registry, ".*") == before
        sysbox("pull", "-q", name, check=True)
        sysbox("tag", name, "localhost/mine:1", check=True)
        assert Updated(sysbox, "--dry-run").words == {".service": "pending"}
        assert Updated(sysbox).words == {".service": "true"}
        assert version(sysbox) == "2"
    finally:
        units.remove()
        sysbox("rmi", "-f", "localhost/mine:1")


def test_what_cannot_be_updated(
    sysbox: Sysbox, base: bytes, units: Declare, image: str, tmp_path: Path
) -> None:
    """Each is named, and the others are updated; a registry that is down changes nothing."""
    registry = Registry(tmp_path / "own")
    registry.start()
    name = put(registry, base, "1", good=b"")
    units(name, CHECKED)
    systemctl("start", SERVICE)
    label = ("run", "-d", "--stop-signal", "KILL", "-l")
    key = "io.containers.autoupdate"
    made = [
        sysbox(*label, f"{key}={value}", image, "sleep", "1000", check=True).stdout.strip()
        for value in ("registry", "sometimes")
    ]
    try:
        put(registry, base, "2", good=b"")
        found = Updated(sysbox)
        assert found.status == 1
        assert sorted(row["Updated"] for row in found.rows) == ["failed", "failed", "true"]
        assert "has no service of a unit file" in found.stderr
        assert "sometimes: unknown policy" in found.stderr
        registry.stop()
        found = Updated(sysbox)
        assert [row["Updated"] for row in found.rows] == ["failed"] * 3
        assert version(sysbox) == "2", "it goes on"
    finally:
        registry.stop()
        sysbox("rm", "-f", *made, check=True)
    with Path("/run/sysbox/auto-update.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another auto-update is going on" in Updated(sysbox).stderr


def test_the_timer(sysbox: Sysbox, registry: Registry, base: bytes, units: Declare) -> None:
    """An embedded host has the units that are installed elsewhere."""
    name = put(registry, base, "1", good=b"")
    units(name, CHECKED)
    systemctl("start", SERVICE)
    put(registry, base, "2", good=b"")
    timer = "sysbox-auto-update.timer"
    old = image_of(sysbox, name).strip()
    systemctl("start", timer)
    try:
        assert shown("ActiveState", timer) == "active"
        assert shown("Unit", timer) == "sysbox-auto-update.service"
        systemctl("start", "sysbox-auto-update.service")
    finally:
        systemctl("stop", timer)
    assert version(sysbox) == "2"
    assert sysbox("image", "inspect", old).returncode == 1, "what nothing uses any more is gone"
