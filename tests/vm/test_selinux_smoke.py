"""SELinux denies, and containers work (S9)."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from containers import PATIENCE, Containers, eventually
from denials import PROVOKED, denials
from denials import nothing_denied as nothing_denied
from lane import SLOWNESS, Sysbox

SERVE = "echo hello >/data/index.html; exec httpd -f -p 80 -h /data"
pytestmark = pytest.mark.enforcing("a denial that only is a line in the log breaks nothing")


def test_denials_are_seen() -> None:
    """That the fixture would see one: SELinux denies, and what it denies is in the journal."""
    assert Path("/sys/fs/selinux/enforce").read_text(encoding="ascii") == "1"
    assert PROVOKED not in denials()
    label = os.open("/proc/self/attr/current", os.O_WRONLY | os.O_CLOEXEC)
    try:
        with pytest.raises(PermissionError):
            os.write(label, b"system_u:system_r:container_t:s0")
    finally:
        os.close(label)
    # the kernel's thread for it hands the line to journald
    eventually(lambda: PROVOKED in denials(), "what was denied is seen")


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
        ["nft", "list", "table", "inet", "sysbox"], capture_output=True, text=True, check=True
    )
    assert one.id not in rules.stdout


def fetch() -> str:
    """What the published port answers, once it does."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen("http://192.0.2.2:8080/", timeout=5 * SLOWNESS) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_the_image_of_the_host(sysbox: Sysbox) -> None:
    """The machine's own files serve as a root: they have their own labels."""
    done = sysbox("run", "--rm", "host", "cat", "/etc/hostname")
    assert done.returncode == 0, done.stderr
