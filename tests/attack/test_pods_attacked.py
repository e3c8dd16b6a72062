"""Pods against hostile containers, kills at each step, races and damaged files."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from containers import Containers, popen, systemctl
from faults import settled
from lane import SYSBOX, Sysbox
from pod_lab import HELD, POD, SLICE, nothing_is_left, state
from pod_lab import pod as pod

from sysbox.base import paths


def test_a_hostile_container_reaches_nothing_of_the_pod(
    pod: Callable[..., str], containers: Containers, sysbox: Sysbox, image: str
) -> None:
    pod()
    one = containers("--pod", POD, "--cap-add", "ALL", "--security-opt", "unmask=ALL")
    other = containers("--pod", POD)
    tried = one.exec(
        "sh", "-c",
        f"ls {HELD} 2>&1; umount -a 2>&1; umount -l /dev/shm 2>&1; mount -t tmpfs none /etc 2>&1;"
        "echo evil >> /etc/hosts; hostname evil; echo; ip link del eth0 2>&1; true",
    )  # fmt: skip
    assert "No such file" in tried
    # it may ruin the network that it shares, but neither the files of the others nor the host's
    assert "evil" not in other.exec("cat", "/etc/hosts")
    assert "evil" not in (HELD / POD / "hosts").read_text()
    assert other.exec("ls", "/dev/shm") == ""
    done = sysbox("run", "--rm", "--privileged", "--pod", POD, image, "true")
    assert (done.returncode, "--privileged means the host's user namespace" in done.stderr) == (
        125,
        True,
    )
    containers.remove()
    sysbox("pod", "stop", POD, check=True)
    sysbox("pod", "start", POD, check=True)
    assert "eth0" in containers("--pod", POD).sh("ip link"), "a new start has a new one"


def test_killed_at_any_step(
    pod: Callable[..., str], sysbox: Sysbox, image: str, requires: Any, network: Callable[..., str]
) -> None:
    """Whatever a kill -9 has left, the next start or gc puts it right."""
    requires.program("strace")
    network("lan")
    steps = [
        ("create", "rename", 1), ("create", "rename", 2), ("create", "symlink", 1),
        ("start", "clone3", 1), ("start", "mount", 1), ("start", "mount", 3), ("start", "mount", 5),
        ("start", "rename", 1), ("start", "rename", 4), ("start", "sendto", 2), ("start", "rename", 8),
        ("stop", "umount2", 1), ("stop", "umount2", 4), ("stop", "unlink", 2), ("stop", "rmdir", 1),
        ("rm", "umount2", 2), ("rm", "rename", 2), ("rm", "unlink", 3), ("rm", "rmdir", 2),
    ]  # fmt: skip
    words = {
        "create": ("pod", "create", "--network", "lan", "-p", "8084:80", POD),
        "start": ("pod", "start", POD),
        "stop": ("pod", "stop", POD),
        "rm": ("pod", "rm", "-f", POD),
    }
    for verb, call, number in steps:
        before = list(words)[: list(words).index(verb)]
        for one in before if verb != "rm" else ("create", "start"):
            sysbox(*words[one], check=True)
        trace = ["-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={number}"]
        subprocess.run(
            ["strace", "-qq", *trace, SYSBOX, *words[verb]],
            capture_output=True,
            check=False,
        )
        done = sysbox("run", "--rm", "--pod", POD, image, "true")
        assert done.returncode == 0 or "no such pod" in done.stderr, (
            verb,
            call,
            number,
            done.stderr,
        )
        sysbox("pod", "rm", "-f", "-i", POD, check=True)
        settled(sysbox)
        assert settled(sysbox) == [], (verb, call, number)
        assert nothing_is_left() == [], (verb, call, number)


def test_gc_takes_down_what_was_left(pod: Callable[..., str], sysbox: Sysbox) -> None:
    pod_id = pod("-p", "8085:80")
    sysbox("pod", "start", POD, check=True)
    assert settled(sysbox) == [], "a pod that is up without a container is whole"
    state_file = HELD / POD / "state.json"
    state_file.write_text(state_file.read_text().replace('"ready":true', '"ready":false'))
    assert settled(sysbox) == [f"took down the pod {POD}"]
    assert state(sysbox) == "Created"
    sysbox("pod", "start", POD, check=True)
    # its definition is lost: everything goes, the ids too
    for file in ("pod.json", "members"):
        subprocess.run(["rm", "-r", f"{paths.PODS}/{POD}/{file}"], check=True)
    Path(paths.PODS, POD).rmdir()
    assert f"took down the pod {POD}" in settled(sysbox)
    assert not list(Path(paths.STATE, "ids").glob(f"*-{pod_id}"))
    systemctl("stop", SLICE)


def test_a_damaged_state(
    pod: Callable[..., str], containers: Containers, sysbox: Sysbox, image: str
) -> None:
    pod()
    one = containers("--pod", POD)
    for text in ("{", "", '{"id": 7}', "\0" * 4096):
        (HELD / POD / "state.json").write_text(text)
        assert one.exec("echo", "it goes on") == "it goes on"
        assert settled(sysbox) == [], "it is in use"
        done = sysbox("run", "--rm", "--pod", POD, image, "true")
        assert (done.returncode, f"`sysbox pod stop {POD}`" in done.stderr) == (125, True)
        sysbox("pod", "stop", "--time", "0", POD, check=True)
        sysbox("pod", "start", POD, check=True)
    one("stop", "--time", "0")
    (HELD / POD / "state.json").write_text("{")
    assert settled(sysbox) == [f"took down the pod {POD}"]


def test_a_damaged_definition(pod: Callable[..., str], sysbox: Sysbox) -> None:
    pod()
    pod(name="good")
    Path(paths.PODS, POD, "pod.json").write_text("{")
    listed = sysbox("pod", "ps", "--format", "{{.Name}}")
    assert listed.stdout == "good\n"
    assert POD in listed.stderr
    assert sysbox("pod", "start", POD).returncode == 1
    sysbox("pod", "rm", "--force", POD, check=True)
    assert sysbox("pod", "ps", "--format", "{{.Name}}", check=True).stderr == ""


def test_many_at_once(pod: Callable[..., str], sysbox: Sysbox, image: str) -> None:
    """Of creations with one name one succeeds; containers that start share one pod."""
    with ThreadPoolExecutor(8) as crowd:
        made = list(crowd.map(lambda _: sysbox("pod", "create", POD), range(6)))
        assert sorted(one.returncode for one in made) == [0, 1, 1, 1, 1, 1]
        done = list(
            crowd.map(
                lambda _: sysbox(
                    "run", "--rm", "--pod", POD, image, "ip", "-4", "addr", "show", "eth0"
                ),
                range(8),
            )
        )
    addresses = {re.search(r"inet (\S+)", one.stdout)[1] for one in done}  # type: ignore[index]
    assert len(addresses) == 1


def test_removed_while_its_containers_start(
    pod: Callable[..., str], sysbox: Sysbox, image: str
) -> None:
    for _ in range(4):
        pod()
        starts = [popen("run", "--rm", "--pod", POD, image, "sleep", "0.1") for _ in range(3)]
        removed = sysbox("pod", "rm", "--force", POD)
        assert removed.returncode == 0 or "try again" in removed.stderr
        for one in starts:
            _, said = one.communicate(timeout=60)
            assert "Traceback" not in said, said
        sysbox("pod", "rm", "--force", "--ignore", POD, check=True)
        assert sysbox("ps", "-aq").stdout == ""
        assert nothing_is_left() == []
