"""SELinux denies, and containers work (S9): what sysbox does today needs no more than its callers may.

The labels of containers themselves are not what this is about.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import PATIENCE, Containers
from lane import SLOWNESS, Sysbox

SERVE = "echo hello >/data/index.html; exec httpd -f -p 80 -h /data"
pytestmark = pytest.mark.enforcing("a denial that only is a line in the log breaks nothing")


# nobody becomes a container without executing something
PROVOKED = ("unconfined_t", "container_t", "process", "dyntransition")
# what may be denied, and why: domain, type, class, permissions
EXPECTED = {
    # Debian's own units as the guest boots, in Debian's policy
    ("udev_t", "sysctl_fs_t", "dir", "search"),
    ("udev_t", "udev_t", "process", "setrlimit"),
    ("systemd_tmpfiles_t", "etc_t", "lnk_file", "relabelfrom"),
    ("systemd_tmpfiles_t", "user_home_dir_t", "dir", "relabelfrom"),
    PROVOKED,
}
DENIAL = re.compile(
    r"avc: +denied +\{ (?P<permissions>[^}]+) \}.* scontext=\w+:\w+:(?P<domain>\w+)"
    r".* tcontext=\w+:\w+:(?P<type>\w+).* tclass=(?P<kind>\w+)"
)


def denials() -> dict[tuple[str, ...], str]:
    """What has been denied since boot, and the kernel's line about it."""
    subprocess.run(["journalctl", "--sync"], check=True)
    log = ["journalctl", "-b", "-q", "-o", "cat", "_TRANSPORT=audit"]
    lines = subprocess.run(log, capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict[tuple[str, ...], str] = {}
    for line in filter(re.compile("avc: +denied").search, lines):
        parts = DENIAL.search(line)
        assert parts, f"not understood: {line}"
        found[parts["domain"], parts["type"], parts["kind"], parts["permissions"]] = line
    return found


@pytest.fixture(autouse=True)
def nothing_denied() -> Iterator[None]:
    """A test in which something is denied has failed, whatever it saw."""
    yield
    unexpected = [line for key, line in denials().items() if key not in EXPECTED]
    assert not unexpected, "\n".join(unexpected)


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
    assert PROVOKED in denials()


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
