"""How a container's process comes to be: `attacker` makes an attack that must fail in each way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
from containers import Containers
from lane import Sysbox


class Way(NamedTuple):
    """One way: the flags of `run`, and whether the attack is made by a process of `exec`."""

    flags: tuple[str, ...] = ()
    entered: bool = False


# every attack that takes `attacker` is made in each of these
WAYS = {
    "default": Way(),
    "userns-host": Way(("--userns", "host")),
    "exec": Way(entered=True),
}

# the flags of `run` for each kind of user namespace
MODES = {"default": (), "userns-host": ("--userns", "host")}

PYTHON = os.path.realpath(sys.executable)


class Attacker:
    """Runs commands in containers, each in one of the WAYS."""

    def __init__(self, way: Way, sysbox: Sysbox, image: str, containers: Containers) -> None:
        self._way = way
        self._sysbox = sysbox
        self._image = image
        self._containers = containers

    def __call__(
        self, *command: str, flags: tuple[str, ...] = ("--network", "none"), image: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """What the command of a new container says, or one that `exec` starts in it."""
        flags = (*self._way.flags, *flags)
        if not self._way.entered:
            return self._sysbox("run", "--rm", *flags, image or self._image, *command)
        one = self._containers(*flags, image=image or self._image)
        return self._sysbox("exec", one.id, *command)

    def python(self, script: str, flags: tuple[str, ...] = ("--network", "none")) -> list[str]:
        """The lines that a Python script prints, in a container of the machine's own programs."""
        done = self(PYTHON, "-I", "-c", script, flags=flags, image="host")
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Flags of `run`: a user namespace of its own, and the host's, where another process makes the root."""
    return MODES[request.param]


@pytest.fixture(params=WAYS)
def attacker(
    request: pytest.FixtureRequest,
    sysbox: Sysbox,
    image: str,
    containers: Containers,
    requires: Callable[[object, str], None],
) -> Attacker:
    """`attacker(COMMAND...)` runs an attack in one of the WAYS, `attacker.python(SCRIPT)` likewise."""
    requires(PYTHON.startswith("/usr/bin/"), "the distribution's Python")
    return Attacker(WAYS[request.param], sysbox, image, containers)
