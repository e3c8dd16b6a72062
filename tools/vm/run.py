"""Usage: tools/vm/run.py [--flavour permissive|enforcing|apparmor|smp] [--silence SECONDS] [--shell | SCRIPT]

Runs a shell script in a guest with the project installed, resumed from a snapshot; shows its output as it is
written, and exits with its status. --shell: an interactive shell. Exit status 124: the script has written
nothing for SECONDS; 125: there is no guest, and standard error says why.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
import termios
import tty

import wire
from cache import Failed
from image import INSTALL, bundle, image
from machine import FLAVOURS, Machine, exit_on_signals, resume

# CI: no program that a test needs may be missing in the guest. SLOWNESS: see tests/host/lane.py
ENVIRONMENT = {"CI": "true", "SYSBOX_TEST_SLOWNESS": "5"}


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--flavour", choices=FLAVOURS, default="permissive")
    parser.add_argument("--silence", type=float, default=600)
    parser.add_argument("--shell", action="store_true")
    parser.add_argument("script", nargs="?")
    options = parser.parse_args()
    exit_on_signals()
    machine = resume(image(), options.flavour, bundle())
    try:
        if options.shell:
            return interact(machine)
        machine.request(INSTALL + (options.script or sys.stdin.read()), ENVIRONMENT)
        return machine.follow(options.silence)
    except TimeoutError:
        print(f"vm: no output for {options.silence:g} s: giving up", file=sys.stderr)
        return 124
    finally:
        machine.end()


def interact(machine: Machine) -> int:
    """A shell on this terminal."""
    size = os.get_terminal_size(0)
    environment = {"TERM": os.environ.get("TERM", "linux")}
    machine.request(f"{INSTALL}exec bash -i", environment, (size.lines, size.columns))
    before = termios.tcgetattr(0)
    signal.signal(signal.SIGWINCH, lambda *_: resized(machine))
    tty.setraw(0)
    try:
        while True:
            ready = select.select([0, machine.port], [], [])[0]
            if 0 in ready and not wire.copy(0, machine.port, wire.INPUT):
                return 0
            if machine.port in ready:
                kind, data = wire.receive(machine.port)
                if kind == wire.EXIT:
                    return int(data)
                os.write(1, data)
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def resized(machine: Machine) -> None:
    """Tell the guest the new size of the terminal."""
    size = os.get_terminal_size(0)
    wire.send(machine.port, wire.WINDOW, json.dumps([size.lines, size.columns]).encode())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        print(f"vm: {failure}", file=sys.stderr)
        sys.exit(125)
