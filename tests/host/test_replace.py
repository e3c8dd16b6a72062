"""run --replace and create --replace: the container that has the name goes first."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest
from containers import Containers, eventually, systemctl
from lane import SYSBOX, Sysbox

from sysbox.base.paths import CONTAINERS
from sysbox.container.locks import Lock
from sysbox.netns.leases import NetworkLock

NAME = "swap"
NAMED = ("--name", NAME)
GONE = f"sysbox: --replace: the container {NAME} is removed, and there is no new one"


def test_one_that_runs(containers: Containers, sysbox: Sysbox, tmp_path: Path) -> None:
    """Its port and its name are the new one's; anonymous volumes stay, as with `rm -f`."""
    published = ("-p", "8097:80")
    old = containers(*NAMED, *published, "-v", "/a")
    (volume,) = (one["Name"] for one in old.inspect("Mounts"))
    said = sysbox("run", "--dry-run", "--replace", *NAMED, "host", "true", check=True).stdout
    assert said.splitlines()[-1] == f"remove container {old.id[:12]}"
    assert old.inspect("State.Running") is True
    new = containers("--replace", *NAMED, *published, "--cidfile", str(tmp_path / "id"))
    assert sysbox("inspect", old.id).returncode == 1
    assert (new.inspect("Name"), new.inspect("State.Running")) == (f"/{NAME}", True)
    assert sysbox("volume", "rm", volume, check=True).stdout == f"{volume}\n"
    last = containers("--replace", *NAMED, verb=("create",))
    assert sysbox("inspect", new.id).returncode == 1
    assert last.inspect("State.Status") == "created"
    # in the foreground
    done = sysbox("run", "--rm", "--replace", *NAMED, "host", "echo", "new", check=True)
    assert done.stdout == "new\n"
    assert sysbox("inspect", last.id).returncode == 1


def test_none_of_that_name(containers: Containers) -> None:
    assert containers("--replace", *NAMED).inspect("State.Running") is True


def test_a_damaged_one_stays(containers: Containers, sysbox: Sysbox, image: str) -> None:
    """Its record would say whether a unit file declares it, whose service would start it again."""
    old = containers(*NAMED)
    Path(f"{CONTAINERS}/{old.id}/record.json").write_text("{")
    for verb in ("run", "create"):
        done = sysbox(verb, "--replace", *NAMED, image, "true")
        assert done.returncode == 125
        assert f"`sysbox rm -f {old.id[:12]}` removes it" in done.stderr
    assert Path(f"{CONTAINERS}/{old.id}").exists()
    sysbox("rm", "-f", NAME, check=True)


def test_what_a_power_cut_has_left(containers: Containers) -> None:
    """The record of a --rm container is not synced: a service of one's own, with --replace, starts again."""
    old = containers("--rm", *NAMED, verb=("create",))
    Path(f"{CONTAINERS}/{old.id}/record.json").write_text("")
    assert containers("--replace", *NAMED).inspect("State.Running") is True
    assert not Path(f"{CONTAINERS}/{old.id}").exists()


REFUSED = {
    "network": (("--network", "no-such"), "no such network"),
    "joined": (("--network", f"container:{NAME}"), "needs the container swap itself"),
    "linked": (
        ("--network", "swap-net", "--link", f"{NAME}:db"),
        "needs the container swap itself",
    ),
    "cidfile": (("--cidfile", "/etc/passwd"), "the file exists already"),
    "limit": (("--memory", "1"), "--memory"),
    "pod": (("--pod", "no-such"), "no-such"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_made_replaces_nothing(
    containers: Containers, sysbox: Sysbox, image: str, case: str
) -> None:
    sysbox("network", "create", "swap-net", check=True)
    try:
        old = containers(*NAMED, "--network", "swap-net")
        pid = old.pid
        flags, why = REFUSED[case]
        for verb in ("run", "create"):
            done = sysbox(verb, "--replace", *NAMED, *flags, image, "true")
            assert done.returncode != 0
            assert why in done.stderr
            assert (old.inspect("State.Running"), old.pid) == (True, pid)
        old("rm", "-f")
    finally:
        sysbox("network", "rm", "swap-net", check=True)


SUBNET = "10.89.77"


@pytest.fixture
def surroundings(containers: Containers, sysbox: Sysbox) -> Iterator[None]:
    """A network and a pod, and a container that has an address and a port."""
    sysbox("network", "create", "--subnet", f"{SUBNET}.0/24", "swap-net", check=True)
    sysbox("pod", "create", "swap-pod", check=True)
    containers(
        "--network", "swap-net", "--ip", f"{SUBNET}.9", "-p", "8098:80", "--name", "swap-other"
    )
    yield
    sysbox("rm", "-f", NAME, "swap-other", check=True)
    sysbox("pod", "rm", "-f", "swap-pod", check=True)
    sysbox("network", "rm", "swap-net", check=True)


NEW_POD = ("--pod", "new:swap-new")
NOT_STARTED = (
    (("--mount", "type=bind,source=/missing,target=/a"), "the source /missing does not exist"),
    (("-p", "8098:80"), "8098->80/tcp: already used by container"),
    (("--network", "swap-net", "--ip", f"{SUBNET}.9"), f"address {SUBNET}.9: is that of container"),
    (("--cidfile", "/nosuch9/x"), "no file can be made in /nosuch9"),
    ((*NEW_POD, "--network", "no-such"), "no such network"),
    ((*NEW_POD, "--network", "swap-net", "--ip", "10.1.2.3"), "10.1.2.3"),
    ((*NEW_POD, "--network", "swap-net", "--ip", f"{SUBNET}.9"), "is that of container"),
    ((*NEW_POD, "-p", "8098:80"), "8098->80/tcp: already used by container"),
    ((*NEW_POD, "--network", f"container:{NAME}"), "a pod has a network of its own"),
    ((*NEW_POD, "--pid", f"container:{NAME}"), f"--pid container:{NAME} needs the container"),
    (("--pod", "new:swap-pod"), "the name 'swap-pod' is in use by another pod"),
    (("--cgroupns", f"container:{NAME}"), f"--cgroupns container:{NAME} needs the container"),
)


@pytest.mark.usefixtures("surroundings")
def test_what_cannot_be_started_replaces_nothing(
    containers: Containers, sysbox: Sysbox, image: str
) -> None:
    old = containers(*NAMED)
    pid = old.pid
    for flags, why in NOT_STARTED:
        done = sysbox("run", "-d", "--replace", *NAMED, *flags, image, "sleep", "1000")
        assert (done.returncode, why in done.stderr) == (125, True), done.stderr
        assert "there is no new one" not in done.stderr
    done = sysbox("run", "-d", "--replace", *NAMED, *NEW_POD, "--pull=never", "no-such-image")
    assert done.returncode == 125
    assert (old.inspect("State.Running"), old.pid) == (True, pid)
    assert "swap-new" not in sysbox("pod", "ls", check=True).stdout
    # a plan is not printed for what is refused, and a container that is only made may have the port later
    flags = ("--pid", f"container:{NAME}")
    done = sysbox("run", "--replace", "--dry-run", *NAMED, *flags, image, "true")
    assert (done.returncode, done.stdout) == (125, "")
    sysbox("create", "--replace", *NAMED, "-p", "8098:80", image, "true", check=True)
    new = containers("--replace", *NAMED, *NEW_POD, "-p", "8099:80")
    assert new.inspect("State.Running") is True
    sysbox("pod", "rm", "-f", "swap-new", check=True)


def test_what_only_the_start_finds_out(containers: Containers, sysbox: Sysbox, image: str) -> None:
    """It is said that the other one is gone."""
    old = containers(*NAMED)
    done = sysbox("run", "-d", "--replace", *NAMED, image, "no-such-command")
    assert done.returncode == 127
    assert GONE in done.stderr
    assert sysbox("inspect", old.id).returncode == 1


def test_several_at_once(sysbox: Sysbox, image: str) -> None:
    """One has the name in the end; a loser says that in one line, without an id that nobody has seen."""
    words = (SYSBOX, "run", "-d", "--replace", *NAMED, image, "sleep", "1000")
    runs = [subprocess.Popen(words, stdout=PIPE, stderr=PIPE, text=True) for _ in range(4)]
    said = [(one.communicate(), one.returncode) for one in runs]
    try:
        assert sysbox("inspect", "-f", "{{.State.Running}}", NAME, check=True).stdout == "true\n"
        for (_, error), status in said:
            if status:
                first = error.splitlines()[0]
                assert "another command has " in first, error
    finally:
        sysbox("rm", "-f", NAME, check=True)


def test_a_signal_meanwhile(containers: Containers, sysbox: Sysbox, image: str) -> None:
    """SIGTERM ends it as it ends any start, with 143; if the other one is gone by then, that is said."""
    old = containers(*NAMED, verb=("create",))
    words = (SYSBOX, "run", "-d", "--replace", *NAMED, image, "sleep", "1000")
    with Lock(old.id):
        run = subprocess.Popen(words, stderr=PIPE, text=True)
        eventually(lambda: _waits_for_lock(run.pid), "the removal waits")
        run.terminate()
        assert (run.communicate()[1], run.returncode) == ("", 143)
    assert old.inspect("State.Status") == "created"
    with NetworkLock():  # which keeps the start from its end; what undoes it needs the lock too
        run = subprocess.Popen(words, stderr=PIPE, text=True)
        eventually(
            lambda: sysbox("inspect", old.id).returncode and not Path(CONTAINERS, old.id).exists(),
            "the other one is removed, and its directory",
        )
        run.terminate()
    said = run.communicate()[1]
    assert (said.strip(), run.returncode) == (GONE, 143)
    assert sysbox("inspect", NAME).returncode == 1


def _waits_for_lock(pid: int) -> bool:
    waiting = (
        line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line
    )
    return any(words[5] == str(pid) for words in waiting)


def test_without_a_name(sysbox: Sysbox, image: str) -> None:
    for verb in ("run", "create"):
        done = sysbox(verb, "--replace", image, "true")
        assert done.returncode == 125
        assert done.stderr.startswith("sysbox: --replace: which container is replaced?")


def test_one_that_is_declared_stays(sysbox: Sysbox, image: str, tmp_path: Path) -> None:
    file = tmp_path / f"{NAME}.container"
    file.write_text(
        f"[Container]\nImage={image}\nContainerName={NAME}\nExec=sleep 1000\nStopSignal=KILL\n"
    )
    sysbox("unit", "install", file, check=True)
    try:
        systemctl("start", NAME)
        done = sysbox("run", "--replace", *NAMED, image, "true")
        assert done.returncode != 0
        assert f"is in use by the container of {NAME}.service" in done.stderr
        planned = sysbox("run", "--replace", "--dry-run", *NAMED, image, "true")
        assert (planned.returncode, planned.stdout) == (125, "")
        assert systemctl("is-active", NAME) == "active"
    finally:
        sysbox("unit", "uninstall", f"{NAME}.service", check=True)
