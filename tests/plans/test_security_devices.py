"""Device nodes, and the device controller's rules for them."""

from __future__ import annotations

import errno
import os
import posix
from pathlib import Path

import pytest

from sysbox.base.errors import KernelError, SpecError
from sysbox.security import devices
from sysbox.spec import Device

NULL = devices.DeviceNode(path="/dev/null", kind="c", major=1, minor=3)


def test_the_default_rules_allow_no_disk_and_no_fuse_or_tun() -> None:
    rules = dict(devices.rules_of(()))
    assert rules["/dev/char/1:3"] == "rwm"
    assert rules["char-*"] == rules["block-*"] == "m"
    for access in ("r", "w"):
        opened = {what for what, how in rules.items() if access in how}
        assert not any(what.startswith("/dev/block") or what == "block-*" for what in opened)
    assert "/dev/char/10:229" not in rules
    assert "/dev/char/10:200" not in rules


def test_a_device_is_found_by_its_numbers() -> None:
    asked = Device(source="/dev/null", target="/dev/nothing", access="r")
    (node,) = devices.resolve_devices((asked,))
    assert (node.path, node.kind, node.major, node.minor) == ("/dev/nothing", "c", 1, 3)
    assert node.access == "r"
    rules = devices.rules_of(devices.resolve_devices((asked, asked)))
    assert rules == (*devices.DEFAULT_RULES, ("/dev/char/1:3", "r"))


def test_a_link_to_a_device_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/dev/zero")
    node = devices.resolve_device(str(link))
    assert (node.path, node.minor) == (str(link), 5)


def test_a_directory_stands_for_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are there now: a device, or a directory of them, may be unplugged at any time."""
    asked = Device(source="/dev", target="/dev/some/", access="rw")
    names = {"/dev": ["bus", "gone", "null"], "/dev/bus": ["disk", "gone"]}

    def listdir(path: str) -> list[str]:
        if path not in names:
            raise FileNotFoundError(errno.ENOENT, "unplugged")
        return names[path]

    def lstat(path: str) -> os.stat_result:
        if path.endswith("gone"):
            raise FileNotFoundError(errno.ENOENT, "unplugged")
        return os.stat("/" if path == "/dev/bus" else "/dev/null")

    # not the machine's own: others open and close terminals meanwhile
    monkeypatch.setattr(posix, "listdir", listdir)
    monkeypatch.setattr(posix, "lstat", lstat)
    found = {node.path for node in devices.resolve_devices((asked,))}
    assert found == {"/dev/some/null", "/dev/some/bus/disk"}
    del names["/dev/bus"]
    found = {node.path for node in devices.resolve_devices((asked,))}
    assert found == {"/dev/some/null"}
    del names["/dev"]
    with pytest.raises(KernelError, match="list devices in /dev"):
        devices.resolve_devices((asked,))


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (Device(source="/dev/nosuch", target="/dev/x"), "No such file"),
        (Device(source="/etc/passwd", target="/dev/x"), "not a character or block device"),
        (Device(source="null", target="/dev/x"), "absolute path"),
        (Device(source="/etc/security", target="/dev/x"), "no device in this directory"),
        (Device(source="/dev/null", target="../x"), "absolute path"),
        (Device(source="/dev/null", target="/dev/../../x"), "without '..'"),
        (Device(source="/dev/null", target="/"), "absolute path"),
        (Device(source="/dev/null", target="/dev/x", access="rwx"), "made of r, w and m"),
        (Device(source="/dev/null", target="/dev/x", access="rr"), "made of r, w and m"),
        (Device(source="/dev/null\0", target="/dev/x"), "absolute path|null"),
    ],
)
def test_what_is_no_device(device: Device, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        devices.resolve_devices((device,))


def test_the_nodes_of_a_container() -> None:
    asked = (
        Device(source="/dev/null", target="/dev/full"),
        Device(source="/dev/zero", target="/dev/z"),
    )
    nodes = {node.path: node for node in devices.nodes_of(devices.resolve_devices(asked))}
    assert set(nodes) == {node.path for node in devices.DEFAULT_NODES} | {"/dev/z"}
    assert nodes["/dev/full"].minor == 3  # what was asked for wins
    assert nodes["/dev/null"] == NULL


def test_a_privileged_container_sees_the_hosts_devices_but_not_its_terminals() -> None:
    paths = {node.path for node in devices.nodes_of((), devices.host_nodes())}
    assert "/dev/urandom" in paths
    assert not paths & {"/dev/console", "/dev/ptmx"}
    assert not any(path.startswith(("/dev/pts/", "/dev/shm/")) for path in paths)


def test_links_stay_inside() -> None:
    for path, text in devices.DEFAULT_LINKS:
        assert path.startswith("/dev/")
        assert text.startswith("/proc/self/fd") or text == "pts/ptmx"


@pytest.mark.parametrize(
    ("kind", "major", "minor", "console"),
    [
        ("c", 4, 0, True),
        ("c", 4, 63, True),
        ("c", 4, 64, False),  # ttyS0
        ("c", 7, 1, True),  # vcs1
        ("c", 7, 129, True),  # vcsa1
        ("b", 7, 1, False),  # loop1
        ("c", 1, 11, True),  # kmsg
        ("c", 1, 3, False),
        ("c", 5, 1, False),
    ],
)
def test_what_is_a_console_of_the_host(kind: str, major: int, minor: int, console: bool) -> None:
    """Numbers of devices.txt of Linux."""
    node = devices.DeviceNode(path="/dev/x", kind=kind, major=major, minor=minor)
    assert devices.is_console(node) is console
