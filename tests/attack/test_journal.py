"""What others write to the journal: local users, containers that reach its socket, and one that floods it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from containers import Container, Containers, eventually, popen
from lane import TIMEOUT, Sysbox
from test_lost_files import await_supervisor
from test_tidying import waits

from sysbox.container.events import MESSAGE_IDS

NOBODY = 65534
SEND = """
import json, socket, sys
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for fields in json.load(sys.stdin):
    text = "".join(f"{key}={value}\\n" for key, value in fields.items())
    sender.sendto(text.encode(), "/run/systemd/journal/socket")
"""
# each from a process that has ended by the time journald asks who it was
SEND_AND_END = """
import json, os, socket, sys
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for fields in json.load(sys.stdin) * 100:
    text = "".join(f"{key}={value}\\n" for key, value in fields.items()).encode()
    if not os.fork():
        try:
            sender.sendto(text, "/run/systemd/journal/socket")
        finally:
            os._exit(0)
    os.wait()
"""
FORGED = "0" * 64
# times that no event has, some too large for a clock
TIMES = ("9" * 30, "9" * 4000, "-99999999999999999999999", "-1", "1_0")


def forge(*entries: dict[str, str], user: int = NOBODY) -> None:
    """Write entries as a local user without privileges."""
    subprocess.run(
        [sys.executable, "-I", "-c", SEND], input=json.dumps(entries), text=True,
        user=user, group=user, extra_groups=[], check=True, timeout=TIMEOUT,
    )  # fmt: skip


def event(action: str, actor: str, name: str, **more: str) -> dict[str, str]:
    return {
        "MESSAGE": "forged",
        "MESSAGE_ID": MESSAGE_IDS["container", action],
        "SYSBOX_TYPE": "container",
        "SYSBOX_ACTION": action,
        "SYSBOX_ID": actor,
        "SYSBOX_NAME": name,
        "SYSBOX_TIME_NSEC": str(time.time_ns()),
        "SYSBOX_ATTRIBUTES": json.dumps({"name": name, "exitCode": "77"}),
        **more,
    }


def line(actor: str, name: str) -> dict[str, str]:
    return {
        "MESSAGE": "forged",
        "PRIORITY": "6",
        "SYSBOX_STREAM": "stdout",
        "CONTAINER_ID": actor[:12],
        "CONTAINER_ID_FULL": actor,
        "CONTAINER_NAME": name,
        "OBJECT_SYSTEMD_UNIT": f"docker-{actor}.scope",
        "UNIT": f"docker-{actor}.scope",
    }


def events(sysbox: Sysbox, start: float) -> list[dict[str, Any]]:
    command = ("events", "--since", f"{start:.6f}", "--until", "0s", "--format", "json")
    return [json.loads(one) for one in sysbox(*command, check=True).stdout.splitlines()]


def settled() -> float:
    """Seconds of the epoch from which on no event of an earlier test is in the journal: all are read."""
    subprocess.run(["journalctl", "--sync"], check=True)
    return time.time()


def written(*matches: str) -> bool:
    return b"forged" in subprocess.check_output(["journalctl", "-q", "-o", "cat", *matches])


def test_events_of_a_local_user(sysbox: Sysbox, containers: Containers) -> None:
    start = settled()
    watching = popen("events", "--format", "{{.Action}} {{.Actor.ID}}")
    try:
        forge(
            event("die", FORGED, "ghost"),
            event("die", FORGED, "ghost", SYSBOX_ATTRIBUTES=""),
            event("die", FORGED, "ghost", SYSBOX_ATTRIBUTES="[" * 50_000),
            event("die", FORGED, "ghost", SYSBOX_TIME_NSEC="soon", _UID="0"),
        )
        eventually(lambda: written(f"SYSBOX_ID={FORGED}"), "they are in the journal")
        one = containers()
        one("kill")
        eventually(
            lambda: "die" in [found["Action"] for found in events(sysbox, start)], "what is real"
        )
        assert {found["Actor"]["ID"] for found in events(sysbox, start)} == {one.id}
        # the one that follows has neither ended nor believed it
        one("kill", "-s", "WINCH", check=False)
        assert watching.poll() is None
    finally:
        watching.terminate()
        output, errors = watching.communicate(timeout=TIMEOUT)
    assert FORGED not in output
    assert "Error" not in errors


def test_the_status_that_wait_tells(sysbox: Sysbox, image: str) -> None:
    """Of a container that is removed at its end, wait learns it from the event."""
    sysbox("run", "-d", "--rm", "--name", "brief", image, "sh", "-c", "read x </dev/zero; exit 3")
    actor = sysbox("inspect", "-f", "{{.Id}}", "brief", check=True).stdout.strip()
    waiting = popen("wait", "--condition", "removed", "brief")
    waits(waiting)
    try:
        forge(event("die", actor, "brief"))
        eventually(lambda: written(f"SYSBOX_ID={actor}"), "it is in the journal")
    finally:
        sysbox("kill", "brief", check=True)
        output, _ = waiting.communicate(timeout=TIMEOUT)
    assert output == "137\n"


def test_the_log_of_a_container_that_was_removed(sysbox: Sysbox, containers: Containers) -> None:
    victim = containers("--name", "secret", command=("echo", "a secret"))
    gone = containers("--name", "gone", command=("echo", "long ago"))
    for one in (victim, gone):
        one.await_state("exited")
    gone("rm")
    for name in ("gone", "ghost"):
        # towards another's log
        forge(event("destroy", victim.id, name), {**line(victim.id, name)}, line(FORGED, name))
    eventually(lambda: written("CONTAINER_NAME=ghost"), "they are in the journal")
    assert sysbox("logs", "gone", check=True).stdout == "long ago\n"
    assert sysbox("logs", gone.id[:12], check=True).stdout == "long ago\n"
    assert sysbox("logs", "ghost").stdout == ""
    assert sysbox("logs", FORGED).stdout == ""
    # and into it
    assert sysbox("logs", "secret", check=True).stdout == "a secret\n"


def test_a_container_that_has_the_journals_socket(sysbox: Sysbox, containers: Containers) -> None:
    """Its root is the host's by number: what it writes is its own log, and nobody else's."""
    start = time.time()
    victim = containers("--name", "victim", command=("echo", "true"))
    victim.await_state("exited")
    victim("rm")
    entries = [
        event("destroy", FORGED, "victim"),
        event("die", FORGED, "x"),
        line(victim.id, "victim"),
    ]
    command = ("/usr/bin/python3", "-I", "-c", SEND.replace("sys.stdin", "open('/entries')"))
    socket = "/run/systemd/journal/socket"
    one = containers("-v", f"{socket}:{socket}", image="host", command=("sleep", "1000"))
    sysbox("exec", "-i", one.id, "sh", "-c", "cat >/entries", input=json.dumps(entries), check=True)
    one.exec(*command)
    eventually(
        lambda: written("CONTAINER_NAME=victim", "MESSAGE=forged"), "they are in the journal"
    )
    assert sysbox("logs", "victim", check=True).stdout == "true\n"
    assert FORGED not in {found["Actor"]["ID"] for found in events(sysbox, start)}


def without_cgroup() -> list[dict[str, Any]]:
    """Entries of root's of which journald does not know where they came from."""
    command = ["journalctl", "-q", "-o", "json", "-n", "1000", "MESSAGE=forged", "_UID=0"]
    found = map(json.loads, subprocess.check_output(command).splitlines())
    return [entry for entry in found if "_SYSTEMD_CGROUP" not in entry]


def test_a_container_whose_processes_end_at_once(sysbox: Sysbox, containers: Containers) -> None:
    """journald cannot tell that it was a container: who sent it is gone before it looks."""
    start = time.time()
    victim = containers("--name", "loser", command=("echo", "true"))
    victim.await_state("exited")
    victim("rm")
    journal = "/run/systemd/journal"
    # in a user namespace of its own it is not even the host's root that sends
    flags = ("--userns", "host", "-v", f"{journal}:{journal}")
    one = containers(*flags, image="host", command=("sleep", "1000"))
    entries = [event("destroy", one.id, "loser"), event("die", FORGED, "x")]
    sysbox("exec", "-i", one.id, "sh", "-c", "cat >/entries", input=json.dumps(entries), check=True)
    script = SEND_AND_END.replace("sys.stdin", "open('/entries')")

    def passed() -> set[str]:
        one.exec("/usr/bin/python3", "-I", "-c", script)
        return {entry["SYSBOX_ACTION"] for entry in without_cgroup()}

    eventually(lambda: passed() == {"destroy", "die"}, "some of each without a cgroup")
    found = events(sysbox, start)
    assert FORGED not in {each["Actor"]["ID"] for each in found}
    assert "destroy" not in [each["Action"] for each in found if each["Actor"]["ID"] == one.id]
    assert sysbox("logs", "loser", check=True).stdout == "true\n"


def test_what_root_writes_that_is_not_signed(sysbox: Sysbox, containers: Containers) -> None:
    """Also what a damaged time says: no event has it, and none after it is lost."""
    start = settled()
    forge(
        event("die", FORGED, "ghost", SYSBOX_SIGNATURE="0" * 64),
        *(event("die", FORGED, "ghost", SYSBOX_TIME_NSEC=moment) for moment in TIMES),
        user=0,
    )
    eventually(lambda: written(f"SYSBOX_ID={FORGED}", "_UID=0"), "they are in the journal")
    one = containers()
    one("kill")
    eventually(lambda: "die" in [each["Action"] for each in events(sysbox, start)], "what is real")
    assert {each["Actor"]["ID"] for each in events(sysbox, start)} == {one.id}


def test_a_copy_of_a_signed_event(sysbox: Sysbox, containers: Containers) -> None:
    """With a second name, by which journalctl finds it, it leads nowhere."""
    victim = containers("--name", "robbed", command=("echo", "true"))
    other = containers("--name", "robber", command=("echo", "false"))
    for one in (victim, other):
        one.await_state("exited")
        one("rm")
    command = ["journalctl", "-q", "-o", "json", f"SYSBOX_ID={other.id}", "SYSBOX_ACTION=destroy"]
    eventually(lambda: subprocess.check_output(command), "it was told")
    signed = json.loads(subprocess.check_output(command))
    fields = {key: value for key, value in signed.items() if not key.startswith("_")}
    # a line of its own in the datagram
    forge({**fields, "MESSAGE": "forged\nSYSBOX_NAME=robbed"}, user=0)
    eventually(lambda: written(f"SYSBOX_ID={other.id}", "SYSBOX_NAME=robbed"), "the copy is there")
    assert sysbox("logs", "robber", check=True).stdout == "false\n"
    assert sysbox("logs", "robbed", check=True).stdout == "true\n"


def monitor_of(one: Container) -> str:
    command = ["systemctl", "show", "-P", "MainPID", f"sysbox-{one.id}.service"]
    return subprocess.check_output(command, text=True).strip()


def test_a_flood(sysbox: Sysbox, containers: Containers) -> None:
    """It does not push everything else out of the journal: the rest is read, counted, and not kept."""
    script = "while :; do echo flood; done"
    one = containers("--log-opt", "rate-burst=5000", command=("sh", "-c", script))
    monitor = monitor_of(one)

    def taken() -> int:
        with open(f"/proc/{monitor}/io", encoding="ascii") as file:
            return int(file.readline().split()[1]) // len("flood\n")

    def kept() -> int:
        command = ["journalctl", "-q", "-o", "cat", f"_SYSTEMD_UNIT={one.scope}"]
        return subprocess.check_output(command).count(b"flood")

    eventually(lambda: kept() >= 5000, "as many as it may write at once")
    eventually(lambda: taken() > 200_000, "many times that")
    assert kept() < taken() / 2
    one("stop", "-t", "0")
    errors = sysbox("logs", one.id, check=True).stderr
    assert "lines dropped: more than 2000 a second (--log-opt rate-limit)\n" in errors


def test_a_reader_of_its_own_output(containers: Containers) -> None:
    """F9: it takes away what its monitor has been told of, which must not wait for it."""
    script = "cat </dev/stdout >/dev/null & while :; do echo line; done"
    one = containers("--log-opt", "rate-limit=100", command=("sh", "-c", script))
    await_supervisor(
        one
    )  # until then its files are those of the process that becomes it, and are closed
    monitor = monitor_of(one)

    def flags(fd: str) -> int:
        with open(f"/proc/{monitor}/fdinfo/{fd}", encoding="ascii") as file:
            return int(dict(line.split(":", 1) for line in file)["flags"].strip(), 8)

    pipes = [
        fd for fd in os.listdir(f"/proc/{monitor}/fd")
        if os.readlink(f"/proc/{monitor}/fd/{fd}").startswith("pipe:")
    ]  # fmt: skip
    assert len(pipes) == 2
    assert all(flags(fd) & os.O_NONBLOCK for fd in pipes)
    # the container's own ends are as they were
    inside = one.sh("cat /proc/1/fdinfo/1 /proc/1/fdinfo/2")
    assert all(
        not int(line.split()[1], 8) & os.O_NONBLOCK
        for line in inside.splitlines()
        if "flags" in line
    )
    attached = popen("attach", "--no-stdin", "--sig-proxy=false", one.id)
    try:
        assert attached.stdout
        assert attached.stdout.readline().endswith("\n")
    finally:
        attached.kill()
        attached.communicate()
    one("stop", "-t", "0")
    assert one.inspect("State.ExitCode") == 137
    assert one.inspect("Sysbox.End.How") != "lost"
