"""What the tests of pods share: the pod of a test, and a look at what there is of pods."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lane import Sysbox

from sysbox.base import paths
from sysbox.netns import leases, names, ports

POD = "shop"
SLICE = f"sysbox-pod-{POD}.slice"
HELD = Path(paths.RUN_PODS)


@pytest.fixture
def pod(sysbox: Sysbox) -> Iterator[Callable[..., str]]:
    """`pod(FLAGS...)` makes the pod, which the test need not remove; its id."""

    def make(*flags: str, name: str = POD) -> str:
        return sysbox("pod", "create", *flags, name, check=True).stdout.strip()

    yield make
    sysbox("pod", "rm", "-f", "-a")
    assert nothing_is_left() == []


def nothing_is_left() -> list[str]:
    """What there is of pods, on disk and in the kernel."""
    found = [str(one) for one in HELD.glob("*")]
    found += [str(one) for one in Path(paths.PODS).glob("[!.]*")]
    found += [str(one) for one in Path(paths.PODS).glob(".[!l]*/*")]
    found += [
        line for line in Path("/proc/1/mountinfo").read_text().splitlines() if str(HELD) in line
    ]
    found += [*leases.all(), *(str(one) for one in ports.load())]
    return found + [str(one) for one in Path(names.DIRECTORY).glob("*/*")]


def shown(sysbox: Sysbox, what: str = "", name: str = POD) -> Any:
    """`pod inspect`, or what is at a path in it."""
    text = sysbox("pod", "inspect", name, check=True).stdout
    found = json.loads(text)[0]
    for key in filter(None, what.split(".")):
        found = found[key]
    return found


def state(sysbox: Sysbox) -> str:
    return str(shown(sysbox, "State"))
