"""What a container makes of its /dev/log: whose the messages are, how far they go, what else it takes."""

from __future__ import annotations

import json
import subprocess
import time

from containers import Containers, eventually
from lane import SLOWNESS, Sysbox

PYTHON = ("/usr/bin/python3", "-I", "-c")
OPEN = """
import array, os, socket, struct
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.connect("/dev/log")
"""


def journal(*matches: str) -> list[dict[str, str]]:
    command = ["journalctl", "-q", "-a", "-o", "json", *matches]
    return [json.loads(line) for line in subprocess.check_output(command).splitlines()]


def test_whose_a_message_is(sysbox: Sysbox, containers: Containers) -> None:
    """Fields in the text, another's pid and user, a sender that has ended: it is the container's own."""
    victim = containers("--network", "none", "--name", "victim", command=("echo", "true"))
    one = containers("--network", "none", "--cap-add", "SYS_ADMIN", image="host")
    script = (
        OPEN
        + f"""
fields = "_SYSTEMD_UNIT={victim.scope}\\nSYSBOX_STREAM=stdout\\nCONTAINER_NAME=victim\\n_PID=1\\n"
log.send(f"<13>forged: {{fields}}".encode())
for who in ((1, 0, 0), (os.getppid() or 1, 65534, 65534)):
    sender = (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("iii", *who))
    try:
        log.sendmsg([b"<13>forged: x"], [sender])
    except OSError:
        pass
for _ in range(50):
    if not os.fork():
        log.send(b"<13>forged: gone")
        os._exit(0)
    os.wait()
"""
    )
    one.exec(*PYTHON, script)
    eventually(lambda: len(journal("-t", "forged")) >= 51, "they are in the journal")
    found = journal("-t", "forged")
    assert {entry["_SYSTEMD_UNIT"] for entry in found} == {one.scope}
    assert {entry["_PID"] for entry in found} == {str(one.pid)}
    assert {entry["CONTAINER_ID_FULL"] for entry in found} == {one.id}
    assert not [entry for entry in found if "SYSBOX_STREAM" in entry]
    # its monitor may have had no turn yet
    shown = ("logs", "victim")
    eventually(lambda: sysbox(*shown, check=True).stdout == "true\n", "its own line, alone")
    assert sysbox("logs", one.id, check=True).stdout == ""


def test_how_far_it_goes(containers: Containers) -> None:
    """Not to the terminals of all users, and not into the host's own log files of auth and kern."""
    one = containers("--network", "none", image="host")
    one.exec(*PYTHON, OPEN + "for n in (0, 8, 32, 37, 86, 6): log.send(b'<%d>far: %d' % (n, n))")
    eventually(lambda: len(journal("-t", "far")) == 6, "they are in the journal")
    for entry in journal("-t", "far"):
        assert entry["PRIORITY"] != "0"
        assert entry["SYSLOG_FACILITY"] == "1"


def test_descriptors(containers: Containers) -> None:
    """They are closed, and what is sent with them arrives."""
    one = containers("--network", "none", image="host")
    supervisor = one.inspect("State.Pid")
    with open(f"/proc/{supervisor}/stat", encoding="ascii") as file:
        monitor = file.read().rpartition(") ")[2].split()[1]
    before = subprocess.check_output(["ls", f"/proc/{monitor}/fd"])
    script = """
for _ in range(100):
    fds = array.array("i", [log.fileno()] * 200)
    log.sendmsg([b"<13>sent: x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
"""
    one.exec(*PYTHON, OPEN + script)
    eventually(lambda: len(journal("-t", "sent")) == 100, "they are in the journal")
    after = subprocess.check_output(["ls", f"/proc/{monitor}/fd"])
    # and the socket to journald
    assert len(after.split()) <= len(before.split()) + 1


def test_a_flood_delays_nobody(sysbox: Sysbox, containers: Containers) -> None:
    """Ten processes that send as fast as they can: its own stop works, and another's messages arrive."""
    other = containers("--network", "none")
    one = containers("--network", "none", "--init", image="host", command=(
        *PYTHON, OPEN + """
for _ in range(9):
    if not os.fork():
        break
while True:
    log.send(b"<13>flood: " + b"x" * 1000)
""",
    ))  # fmt: skip
    eventually(lambda: journal("-n", "1", "-t", "flood"), "it floods")
    begin = time.monotonic()
    other.exec("logger", "-t", "calm", "text")
    eventually(lambda: journal("-u", other.scope, "-t", "calm"), "the other's")
    one("stop", "-t", "1")
    assert time.monotonic() - begin < 20 * SLOWNESS


def test_it_is_the_containers_to_change(containers: Containers) -> None:
    """Its own inode: what it does to it reaches no other."""
    one, two = containers("--network", "none"), containers("--network", "none")
    one.sh("chmod 0 /dev/log; chown 1:1 /dev/log; rm /dev/log; ln -s /proc/kmsg /dev/log")
    two.exec("logger", "-t", "still", "text")
    eventually(lambda: journal("-u", two.scope, "-t", "still"), "the other's is as it was")
    assert subprocess.run(["logger", "-t", "hosts", "text"], check=False).returncode == 0
    eventually(lambda: journal("-t", "hosts"), "the host's is as it was")
