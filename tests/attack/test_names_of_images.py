"""Names in an image that lead to the kernel: its accounts, and the targets of mounts."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lane import SYSBOX, Sysbox
from test_hostile_images import Entries, hostile, run

from sysbox.linux import capability
from sysbox.security import capabilities

__all__ = ["hostile"]

Image = Callable[..., str]
KERNEL_LOG_UNREAD = 9  # syslog(2), SYSLOG_ACTION_SIZE_UNREAD


def unread() -> int:
    """Bytes of the kernel's log that its reader has not taken."""
    return ctypes.CDLL(None).klogctl(KERNEL_LOG_UNREAD, None, 0)


@pytest.mark.parametrize("target", ["/proc/kmsg", "/proc/self/environ", "/sys/kernel/notes"])
def test_accounts_are_files(
    sysbox: Sysbox, hostile: Image, requires: Callable[[object, str], None], target: str
) -> None:
    """They are read before the container runs, by a process of the host's: /proc/kmsg would be drained."""
    entries: Entries = {"etc/passwd": ("link", target), "etc/group": ("link", target)}
    image = hostile(entries)
    before = unread()
    requires(before, "a kernel log that nobody has read")
    done = run(sysbox, image, "id", "-u")
    assert done.stdout == "0\n", done.stderr
    done = sysbox("run", "--rm", "--network", "none", "-u", "user", image, "true")
    assert done.returncode == 125
    assert "no user 'user' in the image's /etc/passwd" in done.stderr
    # a full buffer drops its oldest lines while new ones come; to drain it would leave next to nothing
    assert unread() > before // 2


@pytest.mark.parametrize("place", ["/dev", "/proc", "/sys", "/proc/sys/kernel", "/dev/shm"])
def test_a_mount_is_not_led_into_the_kernels_file_systems(
    sysbox: Sysbox, hostile: Image, tmp_path: Path, place: str
) -> None:
    """A volume at /data would be the container's /dev, because its image says so."""
    image = hostile({"data": ("link", place), "up": ("dir", ""), "up/data": ("link", f"..{place}")})
    for target in ("/data", "/up/data", "/data/x"):
        done = sysbox("run", "--rm", "-v", f"{tmp_path}:{target}", image, "true")
        assert done.returncode == 125, (target, done.stderr)
        assert "it leads to" in done.stderr or "Read-only" in done.stderr, done.stderr
    done = sysbox("run", "--rm", "--tmpfs", "/data", image, "true")
    assert done.returncode == 125, done.stderr
    # by its own name it is what its user wants
    command = ("run", "--rm", "--network", "none", "-v", f"{tmp_path}:/dev/shm/x", image, "true")
    assert sysbox(*command).returncode == 0


def test_a_name_in_an_image_gives_no_rights(sysbox: Sysbox, hostile: Image) -> None:
    """It gets what systemd needs to start, and no capability, because its command is called systemd."""
    script = "#!/bin/sh\ngrep -h CapPrm /proc/1/status\n"
    image = hostile({"bin/systemd": ("program", script)}, 'ENTRYPOINT ["/bin/systemd"]')
    common = capability.mask(capabilities.DEFAULT)
    for flags, more in (
        ((), ()),
        (("--systemd=always",), ("SETPCAP", "SYS_BOOT")),
        (("--entrypoint", "/bin/systemd"), ("SETPCAP", "SYS_BOOT")),
    ):
        host = ("--rm", "--network", "none", "--userns", "host")
        done = sysbox("run", *host, *flags, image)
        assert int(done.stdout.split()[1], 16) == common | capability.mask(more), done.stderr
    done = sysbox("run", "--rm", "--network", "none", image)
    assert int(done.stdout.split()[1], 16) == common, done.stderr


def test_a_closed_stream_is_empty(sysbox: Sysbox, image: str) -> None:
    """The first file that is opened would have its number, and a container would read it as its input."""
    for closed in ("<&-", "<&- >&-", "<&- >&- 2>&-"):
        script = f"exec 9>&1; {SYSBOX} run -i --rm --network none {image} sh -c 'wc -c' {closed}"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (closed, done)
        assert done.stdout == ("0\n" if ">&-" not in closed else ""), (closed, done)
    script = f"{SYSBOX} exec -i closed wc -c <&-; {SYSBOX} cp - closed:/tmp <&-"
    sysbox("run", "-d", "--name", "closed", "--network", "none", image, "sleep", "1000", check=True)
    try:
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        assert done.stdout == "0\n", done
        assert sysbox("exec", "closed", "ls", "-A", "/tmp", check=True).stdout == ""
    finally:
        sysbox("rm", "-f", "closed", check=True)
