"""The kernel's log is the host's: no container reads it or writes into it; and none sets a clock."""

from __future__ import annotations

import json

from containers import Containers
from ways import Attacker, attacker

__all__ = ["attacker"]

# What each attempt got, or its errno. It asks for what there is, so that nothing changes if it succeeds.
LOG = """
import ctypes, errno, json, os, stat, time
libc = ctypes.CDLL(None, use_errno=True)
found = {}
def attempt(name, call):
    try:
        found[name] = call()
    except OSError as error:
        found[name] = errno.errorcode[error.errno]
def klogctl(action):
    buffer = ctypes.create_string_buffer(4096)
    got = libc.klogctl(action, buffer, 4096)
    if got < 0:
        raise OSError(ctypes.get_errno(), "klogctl")
    return f"{got}: {buffer.raw[:64]!r}"
def opened(path, flags=os.O_RDONLY):
    fd = os.open(path, flags | os.O_NONBLOCK)
    try:
        return "nothing" if flags == os.O_RDONLY and not os.read(fd, 64) else "opened"
    finally:
        os.close(fd)
def node(where):
    path = f"{where}/log-of-the-kernel"
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 11))
    return opened(path)
# syslog(2): READ, READ_ALL, READ_CLEAR, SIZE_UNREAD, SIZE_BUFFER; two of them may need no capability
for action in (2, 3, 4, 9, 10):
    attempt(f"syslog {action}", lambda: klogctl(action))
attempt("/proc/kmsg", lambda: opened("/proc/kmsg"))
attempt("/dev/kmsg", lambda: opened("/dev/kmsg"))
attempt("write /dev/kmsg", lambda: opened("/dev/kmsg", os.O_WRONLY))
for where in ("/dev", "/tmp"):
    attempt(f"node in {where}", lambda: node(where))
attempt("the log's level", lambda: opened("/proc/sys/kernel/printk", os.O_WRONLY))
attempt("the clock", lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()) or "set")
attempt("the uptime", lambda: time.clock_settime(time.CLOCK_MONOTONIC, time.monotonic()) or "set")
print(json.dumps(found))
"""
REFUSED = {"EPERM", "EACCES", "EROFS", "ENOENT"}
# no clock but that of the day can be set, by anybody
ALSO = {"the uptime": {"EINVAL"}}


def test_it_is_not_read_and_not_written(attacker: Attacker) -> None:
    """syslog(2), /proc/kmsg, /dev/kmsg, and nodes of the container's own."""
    found: dict[str, str] = json.loads(attacker.python(LOG)[0])
    assert len(found) == 13
    reached = {
        name: got for name, got in found.items() if got not in REFUSED | ALSO.get(name, set())
    }
    assert reached == {}


def test_dmesg(attacker: Attacker) -> None:
    done = attacker("sh", "-c", "dmesg && echo shown; ls /dev/kmsg")
    assert done.stdout == ""
    assert "Operation not permitted" in done.stderr


def test_an_administrator_may_read_it(containers: Containers) -> None:
    """Else the others would not notice that dmesg never works."""
    one = containers("--network", "none", "--privileged")
    assert one.sh("dmesg -s 64 >/dev/null && echo read") == "read"
