"""What SELinux has denied, from the kernel's log and from systemd's and the bus's, which ask it too."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

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
_told: set[tuple[str, ...]] = set()


def denials() -> dict[tuple[str, ...], str]:
    """What has been denied since boot, and the line about it."""
    subprocess.run(["journalctl", "--sync"], check=True)
    log = ["journalctl", "-b", "-q", "-o", "cat", "_TRANSPORT=audit"]
    lines = subprocess.run(log, capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict[tuple[str, ...], str] = {}
    for line in filter(re.compile("avc: +denied").search, lines):
        parts = DENIAL.search(line)
        assert parts, f"not understood: {line}"
        found[parts["domain"], parts["type"], parts["kind"], parts["permissions"]] = line
    return found


def unexpected() -> list[str]:
    """The lines about what should not have been denied, and was not told before."""
    found = {key: line for key, line in denials().items() if key not in EXPECTED | _told}
    _told.update(found)
    return list(found.values())


@pytest.fixture(autouse=True)
def nothing_denied() -> Iterator[None]:
    """A test in which something is denied has failed, whatever it saw."""
    yield
    lines = unexpected()
    assert not lines, "\n".join(lines)
