"""Counters of network interfaces: proc_pid_net(5), the file `dev`."""

from __future__ import annotations

from sysbox.host import read_text

_SENT = 8  # the ninth number of a line; the first is what was received


def counters(pid: str = "self") -> dict[str, tuple[int, int]]:
    """Interface -> (bytes received, bytes sent), of the network namespace that a process is in.

    Empty when the process is gone.
    """
    return parse(read_text(f"/proc/{pid}/net/dev"))


def parse(text: str) -> dict[str, tuple[int, int]]:
    """The same from the file's text: two lines of headings, then `NAME: NUMBER...`."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = rest.split()
        if len(numbers) > _SENT:
            found[name.strip()] = (int(numbers[0]), int(numbers[_SENT]))
    return found
