#!/usr/bin/python3
"""The agent in the guest: runs one command after the other for the host, over a virtio serial port.

Its commands get pipes or a terminal, never the port itself: SELinux allows no confined program to have it.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import wire


def main() -> None:
    """Serve for ever."""
    port = os.open(find_port(), os.O_RDWR | os.O_CLOEXEC)
    wire.send(port, wire.READY)
    while True:
        kind, data = wire.receive(port)
        if kind == wire.RUN:
            wire.send(port, wire.EXIT, str(serve(port, json.loads(data))).encode())


def find_port() -> str:
    """The port's device node, whose name differs from the port's."""
    while True:
        for name in Path("/sys/class/virtio-ports").glob("*/name"):
            if name.read_text().strip() == wire.PORT:
                return f"/dev/{name.parent.name}"
        time.sleep(0.1)


def serve(port: int, request: dict[str, Any]) -> int:
    """Run one script to its end; its exit status."""
    # both are as in the snapshot, and would be the same in every run
    time.clock_settime(time.CLOCK_REALTIME, request["now"])
    Path("/dev/urandom").write_bytes(bytes.fromhex(request["seed"]))
    command = ["/bin/bash", "-c", request["script"]]
    environment = {**os.environ, **request["environment"]}
    if request["terminal"]:
        return _with_terminal(port, command, environment, request["terminal"])
    child = subprocess.Popen(
        command, env=environment, cwd="/root", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout
    assert child.stderr
    streams = {child.stdout.fileno(): wire.OUTPUT, child.stderr.fileno(): wire.ERRORS}
    pump(port, child.pid, -1, streams)
    status = child.wait()
    return status if status >= 0 else 128 - status


def _with_terminal(
    port: int, command: list[str], environment: dict[str, str], size: list[int]
) -> int:
    pid, master = pty.fork()
    if pid == 0:
        os.chdir("/root")
        os.execve(command[0], command, environment)
    resize(master, size)
    pump(port, pid, master, {master: wire.OUTPUT})
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255


def resize(terminal: int, size: list[int]) -> None:
    """Set a terminal's size: rows, columns."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))


def pump(port: int, pid: int, terminal: int, streams: dict[int, bytes]) -> None:
    """Copy until the process has ended and the rest of its pipes has been sent."""
    ended = os.pidfd_open(pid)
    poll = select.poll()
    for fd in (ended, port, *streams):
        poll.register(fd, select.POLLIN)
    over = False
    while True:
        # processes that it left behind may keep the pipes open: read only what is in them already
        ready = [fd for fd, _ in poll.poll(0 if over else None)]
        if over and not any(fd in streams for fd in ready):
            break
        for fd in ready:
            if fd == ended:
                over = True
                poll.unregister(ended)
            elif fd == port:
                _input(port, terminal)
            elif not wire.copy(fd, port, streams[fd]):
                poll.unregister(fd)
    os.close(ended)


def _input(port: int, terminal: int) -> None:
    kind, data = wire.receive(port)
    try:
        if kind == wire.WINDOW:
            resize(terminal, json.loads(data))
        elif kind == wire.INPUT:
            os.write(terminal, data)
    except OSError:
        pass  # ignoring: the command has just ended


if __name__ == "__main__":
    main()
