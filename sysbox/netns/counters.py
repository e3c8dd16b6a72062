"""Counters of network interfaces: /proc/PID/net/dev, proc_pid_net(5)."""

from __future__ import annotations

from sysbox.host import read_text

_SENT = 8  # index of the bytes sent in a line; the bytes received are first


def counters(pid: str = "self") -> dict[str, tuple[int, int]]:
    """Interface -> (bytes received, bytes sent) in the network namespace of a process.

    Empty where the process has ended.
    """
    return parse(read_text(f"/proc/{pid}/net/dev"))


def parse(text: str) -> dict[str, tuple[int, int]]:
    """`counters` for the file's text: two lines of headings, then `NAME: NUMBER...`."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = rest.split()
        if len(numbers) > _SENT:
            found[name.strip()] = (int(numbers[0]), int(numbers[_SENT]))
    return found
