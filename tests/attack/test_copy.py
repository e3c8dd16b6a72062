"""`cp` has the host's rights, and the container chooses what it finds: a link, or a mount on a file.

What a file of the kernel shows depends on who opens and who reads it.
"""

from __future__ import annotations

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from containers import Container, Containers
from lane import SYSBOX, Sysbox
from ways import mode

__all__ = ["mode"]

LOG = "/proc/kmsg"
PYTHON = "/usr/bin/python3"
# with all capabilities in its own user namespace it takes off what covers files, and mounts them elsewhere
MOUNT = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for line in reversed(open("/proc/self/mountinfo").readlines()):
    target = line.split()[4]
    if target.startswith("/proc/"):
        libc.umount2(target.encode(), 2)
for name in ("kmsg", "kallsyms"):
    open("/data/" + name, "w").close()
    assert libc.mount(b"/proc/" + name.encode(), b"/data/" + name.encode(), None, 4096, None) == 0
"""


def archived(one: Container, path: str) -> tuple[dict[str, bytes], str]:
    """The files of `cp ONE:PATH -`, and what it says."""
    done = subprocess.run([SYSBOX, "cp", f"{one.id}:{path}", "-"], capture_output=True, check=False)
    found = {}
    with tarfile.open(fileobj=BytesIO(done.stdout), ignore_zeros=True) as archive:
        for member in archive:
            if file := archive.extractfile(member):
                found[member.name] = file.read()
    return found, done.stderr.decode()


def addresses(text: bytes) -> set[bytes]:
    """What a list of the kernel's symbols tells: addresses, unless they are zero."""
    return {line.split()[0] for line in text.splitlines()} - {b"0" * 16}


def test_the_kernels_log_by_its_name_and_by_a_link(
    sysbox: Sysbox, containers: Containers, mode: tuple[str, ...], tmp_path: Path
) -> None:
    one = containers(*mode)
    one.sh(f"mkdir /data; ln -s {LOG} /data/log; ln -s /proc /data/down")
    for flags, path in (((), LOG), (("-L",), "/data/log"), ((), "/data/down/kmsg")):
        done = sysbox("cp", *flags, f"{one.id}:{path}", tmp_path / "copy")
        assert done.returncode == 1
        assert "Permission denied" in done.stderr or "not permitted" in done.stderr
        assert not (tmp_path / "copy").exists()
        done = sysbox("cp", *flags, f"{one.id}:{path}", "-")
        assert (done.returncode, b"log" in done.stdout.encode()[512:]) == (1, False)


def test_no_address_of_the_kernels(containers: Containers, mode: tuple[str, ...]) -> None:
    one = containers(*mode)
    found, _ = archived(one, "/proc/kallsyms")
    assert found["kallsyms"]
    assert addresses(found["kallsyms"]) == set()
    # the proof that there is something to hide
    assert addresses(Path("/proc/kallsyms").read_bytes())


def test_what_the_container_mounts_on_a_file(
    sysbox: Sysbox, containers: Containers, tmp_path: Path
) -> None:
    """With CAP_SYS_ADMIN in its user namespace it may mount; `cp` of its directory is none of the host."""
    command = (
        PYTHON,
        "-I",
        "-c",
        f"import os; os.mkdir('/data'){MOUNT}import time; time.sleep(1000)",
    )
    one = containers("--systemd=always", image="host", command=command)
    sysbox(
        "exec",
        one.id,
        "sh",
        "-c",
        "while ! grep -q /data/kallsyms /proc/mounts; do :; done",
        check=True,
    )
    found, said = archived(one, "/data")
    assert "left out data/kmsg" in said
    assert not found.get("data/kmsg")
    assert addresses(found["data/kallsyms"]) == set()
    done = sysbox("cp", f"{one.id}:/data", tmp_path / "copy")
    assert "left out copy/kmsg" in done.stderr
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["kallsyms"]
    # and nothing is written to the kernel
    (tmp_path / "file").write_text("x")
    done = sysbox("cp", tmp_path / "file", f"{one.id}:/data/kmsg")
    assert done.returncode == 1
    assert "a file of the kernel is mounted there" in done.stderr


@pytest.mark.parametrize("path", ["/proc/1/status", "/sys/class/net/lo/mtu"])
def test_what_the_container_may_read_is_read(
    containers: Containers, mode: tuple[str, ...], path: str
) -> None:
    one = containers(*mode, "--network", "none")
    (content,) = archived(one, path)[0].values()
    assert content.endswith(b"\n")
