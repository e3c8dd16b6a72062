"""What belongs to active units: a prune leaves it."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Containers, eventually, systemctl
from lane import SETTLING, SYSBOX, Sysbox

from sysbox.base.paths import CONTAINERS
from sysbox.units.bus import PRIVATE_SOCKET, TIMEOUT

LABEL = "test.standing"
ONLY = ("--filter", f"label={LABEL}")
IMAGE = "standing:1"
UNITS = [f"standing-{kind}.service" for kind in ("network", "volume", "image")]


@pytest.fixture
def declared(sysbox: Sysbox, tmp_path: Path, image: str) -> Iterator[str]:
    """A service whose container needs a network, a volume and an image, each with a service of its own."""
    made = sysbox("create", image, "true", check=True).stdout.strip()
    sysbox("commit", "-c", f"LABEL {LABEL}=1", made, IMAGE, check=True)
    sysbox("rm", made, check=True)
    texts = {
        "network": f"[Network]\nLabel={LABEL}=1\n",
        "volume": f"[Volume]\nLabel={LABEL}=1\n",
        "image": f"[Image]\nImage={IMAGE}\nPolicy=missing\n",
        "container": "[Container]\nImage=standing.image\nNetwork=standing.network\nPull=never\n"
        "Volume=standing.volume:/data\nExec=sleep 1000\nStopSignal=KILL\n",
    }
    for kind, text in texts.items():
        (tmp_path / f"standing.{kind}").write_text(text)
    sysbox("unit", "install", *tmp_path.iterdir(), check=True)
    yield "standing.service"
    sysbox("unit", "uninstall", "--force", "standing.service", *UNITS)
    sysbox("network", "rm", "-f", "systemd-standing")
    sysbox("volume", "rm", "-f", "systemd-standing")
    sysbox("rmi", "-f", IMAGE)


PRUNES = {
    "network": (("network", "prune", "-f", *ONLY), "1 network"),
    "volume": (("volume", "prune", "-fa", *ONLY), "1 volume"),
    "image": (("image", "prune", "-fa", *ONLY), "1 image"),
    "system": (("system", "prune", "-fa", "--volumes", *ONLY), "1 network, 1 image"),
}


def test_a_prune_leaves_it_while_the_service_is_active(declared: str, sysbox: Sysbox) -> None:
    systemctl("start", declared)
    for words, _ in PRUNES.values():
        assert sysbox(*words, check=True).stderr == "", "the container has it"
    systemctl("stop", declared)
    for words, left in PRUNES.values():
        done = sysbox(*words, check=True)
        assert "Deleted" not in done.stdout
        assert done.stderr.startswith(f"sysbox: left {left} of active units (standing-")
        assert done.stderr.count("\n") == 1
    systemctl("start", declared)
    systemctl("stop", declared, *UNITS)
    for (words, _), name in zip(
        list(PRUNES.values())[:3], ("systemd-standing", "systemd-standing", IMAGE), strict=True
    ):
        done = sysbox(*words, check=True)
        assert (name in done.stdout, done.stderr) == (True, "")


def test_who_removes_it_by_name_is_told_its_service(declared: str, sysbox: Sysbox) -> None:
    systemctl("start", declared)
    systemctl("stop", declared)
    name = "systemd-standing"
    for unit, words in zip(
        UNITS, (("network", "rm", name), ("volume", "rm", name), ("rmi", IMAGE)), strict=True
    ):
        done = sysbox(*words, check=True)
        assert done.stderr.endswith(
            f": {unit} is active and has made it; `systemctl restart {unit}` makes it again\n"
        )
        # nobody is told twice
        assert "is active" not in sysbox(*words).stderr
    systemctl("restart", *UNITS[:2])
    assert sysbox("network", "exists", name).returncode == 0
    assert sysbox("volume", "exists", name).returncode == 0


def test_what_a_service_written_by_hand_has_made(sysbox: Sysbox) -> None:
    """systemd has expanded what its command says."""
    unit, name = "standing-own@a.service", "standing-a"
    file = Path("/run/systemd/system/standing-own@.service")
    timer = file.with_suffix(".timer")
    file.write_text(
        "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        f"ExecStart={SYSBOX} volume create --label {LABEL}=1 standing-%i\n"
    )
    try:
        systemctl("start", unit)
        done = sysbox("volume", "prune", "-fa", *ONLY, check=True)
        assert f"left 1 volume of active units ({unit})" in done.stderr
        systemctl("stop", unit)
        assert name in sysbox("volume", "prune", "-fa", *ONLY, check=True).stdout
        # a restart of a timer that starts it would not make it
        timer.write_text("[Timer]\nOnActiveSec=1000\n")
        systemctl("daemon-reload")
        systemctl("start", "standing-own@a.timer")
        sysbox("volume", "create", name, check=True)
        assert sysbox("volume", "rm", name, check=True).stderr == ""
    finally:
        systemctl("stop", "standing-own@a.timer", unit, check=False)
        sysbox("volume", "rm", "-f", name)
        timer.unlink(missing_ok=True)
        file.unlink()
        systemctl("daemon-reload")


def test_a_container_that_its_service_is_about_to_start(
    containers: Containers, sysbox: Sysbox
) -> None:
    """It is made, and its run has not begun: a prune would remove it, and stop the service."""
    unit = "standing-own.service"
    made = containers("--label", f"{LABEL}=1", verb=("create",))
    file = Path(f"{CONTAINERS}/{made.id}/record.json")
    record = json.loads(file.read_text())
    record["spec"]["unit"] = unit
    file.write_text(json.dumps(record))
    subprocess.run(["systemd-run", "--quiet", f"--unit={unit}", "sleep", "1000"], check=True)
    try:
        assert "Deleted" not in sysbox("container", "prune", "-f", *ONLY, check=True).stdout
        assert systemctl("is-active", unit) == "active"
    finally:
        systemctl("stop", unit, check=False)
    assert made.id in sysbox("container", "prune", "-f", *ONLY, check=True).stdout


def test_what_is_needed_of_a_service_whose_start_is_queued(
    sysbox: Sysbox, image: str, tmp_path: Path
) -> None:
    """It is inactive until what it comes after has started: so is every service at boot."""
    unit, name, file = "standing-run.service", "standing-data", tmp_path / "standing-run.container"
    slow = Path("/run/systemd/system/standing-slow.service")
    slow.write_text("[Service]\nType=oneshot\nExecStart=sleep 1000\n")
    file.write_text(
        f"[Unit]\nWants={slow.name}\nAfter={slow.name}\n"
        f"[Container]\nImage={image}\nVolume={name}:/data\nExec=sleep 1000\n"
    )
    sysbox("volume", "create", "--label", f"{LABEL}=1", name, check=True)
    try:
        sysbox("unit", "install", file, check=True)
        systemctl("restart", "--no-block", unit)
        assert systemctl("is-active", unit, check=False) == "inactive"
        done = sysbox("volume", "prune", "-fa", *ONLY, check=True)
        assert (done.stdout.count(name), done.stderr.count(unit)) == (0, 1)
        systemctl("stop", unit)
        assert name in sysbox("volume", "prune", "-fa", *ONLY, check=True).stdout
    finally:
        systemctl("stop", slow.name, unit, check=False)
        slow.unlink()
        sysbox("unit", "uninstall", "--force", *installed(sysbox))
        sysbox("volume", "rm", "-f", name)


def test_a_volume_of_a_pod(sysbox: Sysbox) -> None:
    """The next container of the pod gets it."""
    pod, name = "standing-pod", "standing-data"
    prune = ("volume", "prune", "-fa", *ONLY)
    sysbox("volume", "create", "--label", f"{LABEL}=1", name, check=True)
    sysbox("pod", "create", "--name", pod, "-v", f"{name}:/data", check=True)
    try:
        assert name not in sysbox(*prune, check=True).stdout
        assert name not in sysbox("volume", "ls", "-qf", "dangling=true", check=True).stdout
        done = sysbox("volume", "rm", name)
        assert (done.returncode, done.stderr) == (
            1, f"sysbox: volume {name} is in use by pod {pod}\nsysbox: remove the pod first\n"
        )  # fmt: skip
        sysbox("pod", "rm", pod, check=True)
        assert name in sysbox(*prune, check=True).stdout
    finally:
        sysbox("pod", "rm", "-f", pod)
        sysbox("volume", "rm", "-f", name)


BY_HAND = {
    "run": "run --rm --network {name} -v {name}:/data {image} false",
    "pod": "pod create --network {name} -v {name}:/data --share bad",
}


@pytest.mark.parametrize("by", BY_HAND)
def test_what_a_service_written_by_hand_is_about_to_run(
    sysbox: Sysbox, image: str, by: str
) -> None:
    name, unit = "standing-data", Path("/run/systemd/system/standing-own.service")
    command, kinds = BY_HAND[by].format(name=name, image=image), ("network", "volume")
    unit.write_text(f"[Service]\nExecStart={SYSBOX} {command}\nRestart=always\nRestartSec=1000\n")
    for kind in kinds:
        sysbox(kind, "create", "--label", f"{LABEL}=1", name, check=True)
    try:
        systemctl("daemon-reload")
        systemctl("start", unit.name)
        state = ("show", "-P", "SubState", unit.name)
        eventually(lambda: systemctl(*state) == "auto-restart", "it is to start again")
        for kind in kinds:
            flags = "-fa" if kind == "volume" else "-f"
            done = sysbox(kind, "prune", flags, *ONLY, check=True)
            assert f"left 1 {kind} of active units ({unit.name})" in done.stderr
            assert name not in done.stdout
    finally:
        systemctl("stop", unit.name, check=False)
        unit.unlink()
        systemctl("daemon-reload")
        for kind in kinds:
            sysbox(kind, "rm", "-f", name)


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[tuple[socket.socket, tuple[str, ...]]]:
    """A socket that nobody answers at, and the words before a command for which it is systemd's."""
    path = tmp_path / "silent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        script = f'mount --bind {path} {PRIVATE_SOCKET} && exec "$@"'
        yield listener, ("unshare", "-m", "sh", "-c", script, "sh", "env", "SYSBOX_BUS=private")


SOON = TIMEOUT / 2  # seconds: before a call of systemd runs out


def test_a_removal_does_not_wait_for_the_hint(
    silent: tuple[socket.socket, tuple[str, ...]], sysbox: Sysbox, image: str
) -> None:
    name = "standing-data"
    for kind in ("network", "volume"):
        sysbox(kind, "create", name, check=True)
    sysbox("tag", image, IMAGE, check=True)
    for words, said in (
        (("network", "rm", name), name),
        (("volume", "rm", name), name),
        (("rmi", IMAGE), f"Untagged: {IMAGE}"),
    ):
        command = (*silent[1], SYSBOX, *words)
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=SOON)
        assert (done.stdout, done.stderr) == (f"{said}\n", "")


def test_others_have_volumes_while_a_prune_asks(
    silent: tuple[socket.socket, tuple[str, ...]], sysbox: Sysbox
) -> None:
    name = "standing-data"
    listener, words = silent
    command = (*words, SYSBOX, "volume", "prune", "-fa", *ONLY)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as prune:
        try:
            listener.settimeout(SETTLING)
            with listener.accept()[0]:
                sysbox("volume", "create", name, check=True, timeout=SOON)
                assert prune.poll() is None, "it asks"
                prune.kill()
        finally:
            prune.kill()
            sysbox("volume", "rm", "-f", name)


TIMER = Path("/run/systemd/system/standing-run.timer")
WAITING = {
    "socket": ("ListenStream=8096", "", "standing-run.socket"),
    "proxy": ("ListenStream=8096\nProxyPort=80", "", "standing-run.socket"),
    "timer": ("", "", TIMER.name),
    "restart": ("", "Restart=always\nRestartSec=1000", "standing-run.service"),
}


@pytest.mark.parametrize("by", WAITING)
def test_what_a_container_needs_that_is_about_to_start(
    sysbox: Sysbox, image: str, tmp_path: Path, by: str
) -> None:
    """It has no record meanwhile: its data would be gone."""
    keys, service, unit = WAITING[by]
    name, file = "standing-data", tmp_path / "standing-run.container"
    for kind in ("network", "volume"):
        sysbox(kind, "create", "--label", f"{LABEL}=1", name, check=True)
    file.write_text(
        f"[Container]\nImage={image}\nNetwork={name}\nVolume={name}:/data\nExec=false\n{keys}\n"
        f"[Service]\n{service}\n"
    )
    TIMER.write_text("[Timer]\nOnActiveSec=1000\n")
    try:
        sysbox("unit", "install", file, check=True)
        systemctl("start", unit, check=by != "restart")
        if by == "restart":
            state = ("show", "-P", "SubState", unit)
            eventually(lambda: systemctl(*state) == "auto-restart", "it is to start again")
        for kind, flags in (("network", "-f"), ("volume", "-fa")):
            done = sysbox(kind, "prune", flags, *ONLY, check=True)
            assert (done.stdout.count(name), done.stderr) == (
                0, f"sysbox: left 1 {kind} of active units ({unit}): `systemctl stop` them first\n"
            )  # fmt: skip
        systemctl("stop", unit)
        for kind, flags in (("network", "-f"), ("volume", "-fa")):
            done = sysbox(kind, "prune", flags, *ONLY, check=True)
            assert (done.stdout.count(name), done.stderr) == (1, "")
    finally:
        systemctl("stop", unit, check=False)
        TIMER.unlink()
        sysbox("unit", "uninstall", "--force", *installed(sysbox))
        for kind in ("network", "volume"):
            sysbox(kind, "rm", "-f", name)


def installed(sysbox: Sysbox) -> list[str]:
    listed = sysbox("unit", "list", "--format", "{{.Unit}}", check=True).stdout.splitlines()
    return [unit for unit in listed if unit.startswith("standing-run")]
