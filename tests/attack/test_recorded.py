"""`seccomp=record:FILE` against the container that is recorded: the file, the recorder, its listener."""

from __future__ import annotations

import json
import os
from pathlib import Path

from containers import Containers, eventually
from lane import Sysbox

# calls that are none, and many at once, from many processes
FLOOD = """
import ctypes, os, threading
call = ctypes.CDLL(None).syscall
def numbers(first):
    for number in range(first, first + 30000):
        call(number | 0x10000, 0)
threads = [threading.Thread(target=numbers, args=(1 << 20 + bit,)) for bit in range(4)]
for one in threads: one.start()
for one in threads: one.join()
os.umask(0)
"""
# a listener of its own; descriptors of other processes by number; the recorder's, through the one filter
REACH = """
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7fff0000))
program = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", 1, ctypes.addressof(code)))
libc.prctl(38, 1, 0, 0, 0)
print(libc.syscall(317, 1, 8, program), ctypes.get_errno())
found = [os.readlink(f"/proc/{pid}/fd/{fd}") for pid in os.listdir("/proc") if pid.isdecimal()
         for fd in os.listdir(f"/proc/{pid}/fd") if os.path.lexists(f"/proc/{pid}/fd/{fd}")]
print(any("seccomp" in one for one in found))
"""


def asked(path: Path) -> tuple[str, ...]:
    return ("--network", "none", "--security-opt", f"seccomp=record:{path}")


def test_the_file_becomes_a_link(sysbox: Sysbox, image: str, tmp_path: Path) -> None:
    """The link is replaced, not followed."""
    shared, host = tmp_path / "shared", tmp_path / "host"
    shared.mkdir()
    host.write_text("the host's")
    path = shared / "made.json"
    work = f"ln -s {host} /shared/made.json"
    flags = ("--rm", "-v", f"{shared}:/shared", "--userns", "host", *asked(path))
    sysbox("run", *flags, image, "sh", "-ec", work, check=True)
    assert host.read_text() == "the host's"
    assert not path.is_symlink()
    assert json.loads(path.read_text())["syscalls"]
    assert [one.name for one in shared.iterdir()] == ["made.json"]


def test_the_directory_becomes_another(
    sysbox: Sysbox, containers: Containers, image: str, tmp_path: Path
) -> None:
    """Nothing is written through it, and that is said."""
    shared, host = tmp_path / "shared", tmp_path / "host"
    (shared / "sub").mkdir(parents=True)
    host.mkdir()
    path = shared / "sub/made.json"
    work = f"mv /shared/sub /shared/old && ln -s {host} /shared/sub"
    flags = ("-v", f"{shared}:/shared", "--userns", "host", *asked(path))
    done = sysbox("run", "--rm", *flags, image, "sh", "-ec", work)
    assert done.returncode == 125
    said = f"cannot write the profile {path}: its directory is not the one of the start any more"
    assert said in done.stderr
    assert not os.listdir(host)
    (shared / "sub").unlink()
    (shared / "old").rename(shared / "sub")
    one = containers(*flags, command=("sh", "-ec", f"{work}; exit 3"))
    one.await_state("exited")
    eventually(lambda: said in one.inspect("State.Error"), "its end says so")
    assert one.inspect("State.ExitCode") == 3
    assert not os.listdir(host)
    assert not os.listdir(shared / "old")


def test_it_floods_the_recorder(sysbox: Sysbox, tmp_path: Path) -> None:
    """Numbers that are no calls, without a filter that refuses them, take no place from those that are."""
    path = tmp_path / "made.json"
    flags = ("--rm", "--privileged", *asked(path))
    sysbox("run", *flags, "host", "python3", "-c", FLOOD, check=True)
    (rule, *_) = json.loads(path.read_text())["syscalls"]
    assert "umask" in rule["names"]
    assert path.stat().st_size < 1 << 16


def test_it_reaches_for_the_listener(sysbox: Sysbox, tmp_path: Path) -> None:
    """No process of the container has it, and none can have another."""
    path = tmp_path / "made.json"
    flags = ("--rm", "--cap-add", "SYS_PTRACE", *asked(path))
    done = sysbox("run", *flags, "host", "python3", "-c", REACH, check=True)
    assert done.stdout.split() == ["-1", "16", "False"]  # EBUSY
