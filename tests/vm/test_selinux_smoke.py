"""SELinux denies, and containers work (S9): what sysbox does today needs no more than its callers may.

The labels of containers themselves are not what this is about.
"""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Sysbox
from containers import Containers

SERVE = "echo hello >/data/index.html; exec httpd -f -p 80 -h /data"
pytestmark = pytest.mark.enforcing("a denial that only is a line in the log breaks nothing")


def denials() -> list[str]:
    """What has been denied since boot, as the kernel says it."""
    subprocess.run(["journalctl", "--sync"], check=True)
    done = subprocess.run(
        ["journalctl", "-b", "-q", "-o", "cat", "_TRANSPORT=audit", "--grep", "avc: +denied"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.splitlines()


@pytest.fixture(autouse=True)
def nothing_denied() -> Iterator[None]:
    """A test in which anything is denied has failed, whatever it saw."""
    before = denials()
    yield
    assert denials() == before


def test_denials_are_seen() -> None:
    """That the fixture would see one: what this machine denies is in the journal."""
    assert Path("/sys/fs/selinux/enforce").read_text(encoding="ascii") == "1"
    # systemd's own at boot, which are Debian's
    assert denials()


def test_foreground(sysbox: Sysbox, image: str) -> None:
    """A container with a network starts, writes, and ends."""
    done = sysbox(
        "run", "--rm", "-m", "64m", image, "sh", "-c", "echo 1 >/file && cat /file; exit 3"
    )
    assert (done.returncode, done.stdout) == (3, "1\n")


def test_detached(containers: Containers) -> None:
    """Under a service, with a limit, a published port and a volume: made, looked into, stopped, removed."""
    one = containers("-m", "64m", "-p", "8080:80", "-v", "/data", command=("sh", "-c", SERVE))
    assert one.exec("id", "-u") == "0"
    assert fetch() == "hello\n"
    one("stop", "-t", "1")
    assert one.inspect("State.Status") == "exited"
    one("start")
    one("rm", "-f", "-v")
    rules = subprocess.run(
        ["iptables-legacy", "-t", "nat", "-S"], capture_output=True, text=True, check=True
    )
    assert one.id not in rules.stdout


def fetch() -> str:
    """What the published port answers, once it does."""
    for attempt in range(20):
        try:
            with urllib.request.urlopen("http://192.0.2.2:8080/", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            if attempt == 19:
                raise
            time.sleep(0.2)
    return ""


def test_the_image_of_the_host(sysbox: Sysbox) -> None:
    """The machine's own files serve as a root: they have their own labels."""
    done = sysbox("run", "--rm", "host", "cat", "/etc/hostname")
    assert done.returncode == 0, done.stderr
