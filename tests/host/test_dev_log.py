"""/dev/log in a container leads to the container's own log in the journal, and nowhere else.

In the guest: journald finds the scope in the hierarchy of v2.
"""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import pytest
from containers import Container, Containers, eventually
from lane import SLOWNESS, Sysbox

HOSTS = "/run/systemd/journal/dev-log"


def entries(*matches: str) -> list[dict[str, Any]]:
    command = ["journalctl", "-q", "-a", "-o", "json", *matches]
    done = subprocess.run(command, capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def texts(one: Container, name: str) -> list[str]:
    """What journalctl shows of a container for a tag, as the documents say."""
    return [entry["MESSAGE"] for entry in entries("-u", one.scope, "-t", name)]


@pytest.mark.guest("the hierarchy of v2")
def test_a_message_is_in_the_log_of_its_container(sysbox: Sysbox, containers: Containers) -> None:
    """Of a process that has ended before journald could ask who it was, as logger(1) has."""
    script = "logger -t first -p daemon.warning begun; echo shown; exec sleep 1000"
    one = containers("--name", "talker", command=("sh", "-c", script))
    for number in range(20):
        one.exec("logger", "-t", "again", str(number))
    expected = [str(number) for number in range(20)]
    eventually(lambda: texts(one, "again") == expected, "all of them, in order")
    eventually(lambda: texts(one, "first") == ["begun"], "that of its own script")
    found = entries("-u", one.scope, "-t", "first")[0]
    assert found["_SYSTEMD_UNIT"] == one.scope
    assert found["_TRANSPORT"] == "syslog"
    assert (found["PRIORITY"], found["SYSLOG_FACILITY"]) == ("4", "3")
    assert found["CONTAINER_NAME"] == "talker"
    # `logs` shows what docker's shows: standard output and standard error
    eventually(lambda: sysbox("logs", one.id, check=True).stdout == "shown\n", "its line, alone")


def test_of_any_user(containers: Containers) -> None:
    one = containers("-u", "user")
    one.exec("logger", "-t", "mine", "text")
    eventually(lambda: texts(one, "mine") == ["text"], "it is there")
    assert one.sh("stat -c %F /dev/log") == "socket"


@pytest.mark.parametrize("flags", [("--rm",), ("--rm", "-t"), ()])
def test_in_the_foreground(sysbox: Sysbox, image: str, flags: tuple[str, ...]) -> None:
    """Also with --rm, whose output is not kept, and of a container that ends at once."""
    name = "front" + "".join(flags).replace("-", "")
    try:
        script = f"logger -t tag-{name} one; logger -t tag-{name} two; echo done"
        done = sysbox("run", "--name", name, *flags, image, "sh", "-c", script, check=True)
        assert done.stdout.strip() == "done"
        # the command waits for journald, but not for long
        eventually(lambda: len(entries("-t", f"tag-{name}")) == 2, "both are in the journal")
        found = entries("-t", f"tag-{name}")
        assert [entry["MESSAGE"] for entry in found] == ["one", "two"]
        (unit,) = {entry["_SYSTEMD_UNIT"] for entry in found}
        assert unit.startswith("docker-")
        assert unit.endswith(".scope")
    finally:
        sysbox("rm", "-f", name)


def test_after_a_restart_of_either(containers: Containers) -> None:
    one = containers()
    one.exec("logger", "-t", "again", "1")
    eventually(lambda: texts(one, "again") == ["1"], "the first")
    subprocess.run(["systemctl", "restart", "systemd-journald.service"], check=True)
    one.exec("logger", "-t", "again", "2")
    eventually(lambda: texts(one, "again") == ["1", "2"], "after journald was started anew")
    one("restart", "-t", "0")
    one.exec("logger", "-t", "again", "3")
    eventually(lambda: texts(one, "again") == ["1", "2", "3"], "after the container was")


@pytest.mark.parametrize(
    "flags",
    [("--log-opt", "syslog=false"), ("--log-driver", "none"), ("--log-driver", "json-file")],
)
def test_none_where_the_log_is_not_the_journal(
    containers: Containers, flags: tuple[str, ...]
) -> None:
    one = containers("--network", "none", *flags)
    assert one.sh("ls -d /dev/log 2>/dev/null || echo none") == "none"


def test_bad_input(sysbox: Sysbox, image: str) -> None:
    done = sysbox("run", "--rm", "--log-opt", "syslog=off", image, "true")
    assert done.returncode == 125
    assert done.stderr.splitlines()[0] == "sysbox: --log-opt syslog off: not true or false"
    done = sysbox("run", "--rm", "--log-driver", "none", "--log-opt", "syslog=true", image, "true")
    assert "none has no such option" in done.stderr


def test_a_mount_of_the_users_takes_its_place(containers: Containers) -> None:
    """docker's way to the host's log: the message is then journald's to attribute."""
    one = containers("-v", f"{HOSTS}:/dev/log")
    assert " /dev/log " in one.sh("cat /proc/self/mountinfo")
    one.sh("logger -t direct text")
    eventually(lambda: entries("-t", "direct"), "it is in the journal")


def test_a_syslog_daemon_of_the_images_takes_its_place(containers: Containers) -> None:
    """It removes the socket, and makes its own."""
    one = containers()
    one.sh("syslogd -O /tmp/messages")
    # its first line comes when it has its socket, which it makes in the background
    messages = "cat /tmp/messages 2>/dev/null || true"
    eventually(lambda: "syslogd started" in one.sh(messages), "it has begun")
    one.sh("logger -t own text")
    eventually(lambda: "text" in one.sh(messages), "it has the message")
    assert texts(one, "own") == []


def test_systemd_inside_has_its_own(containers: Containers) -> None:
    one = containers("--network", "none", image="host", command=("/lib/systemd/systemd",))
    eventually(lambda: one.sh("readlink /dev/log || true") == HOSTS, "its own journald has it")
    one.exec("logger", "-t", "inner", "text")
    eventually(lambda: "text" in one.sh("journalctl -q -t inner"), "it is in the journal inside")
    assert texts(one, "inner") == []


@pytest.mark.guest("journald's own limit is by the cgroup of v2")
def test_a_flood_counts_against_the_rate_of_its_container(
    sysbox: Sysbox, containers: Containers
) -> None:
    """One for lines and messages; another container's messages arrive meanwhile."""
    other = containers("--network", "none")
    limits = ("--log-opt", "rate-limit=10", "--log-opt", "rate-burst=100")
    one = containers("--network", "none", *limits, image="host")
    flood = (
        "import socket\n"
        "log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "log.connect('/dev/log')\n"
        "for number in range(5000): log.send(b'<13>flood: %d' % number)\n"
    )
    begin = time.monotonic()
    one.exec("/usr/bin/python3", "-I", "-c", flood)
    other.exec("logger", "-t", "calm", "text")
    eventually(lambda: texts(other, "calm") == ["text"], "the other's")
    eventually(lambda: "lines dropped" in sysbox("logs", one.id).stderr, "a line says how many")
    most = 100 + 10 * (time.monotonic() - begin + 1)
    assert 90 <= len(texts(one, "flood")) <= most * SLOWNESS
