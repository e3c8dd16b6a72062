"""Images that attack whoever starts them: the host must be as it was, and the container confined.

Each is the defence to a row of the catalogue of container CVEs; `decoy` is a tree of the host's that the
attack would change. `mode` is the user namespace: with one of its own another process makes the root.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pty
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import lane
import pytest
from lane import SYSBOX, Sysbox
from ways import mode

__all__ = ["mode"]

NAME = "hostile:test"
Mode = tuple[str, ...]
Entries = dict[str, tuple[str, str]]  # path -> (kind: dir, link, file or program, content)


def digest(top: Path) -> str:
    """Names, types, owners, modes and contents of a tree."""
    seen = hashlib.sha256()
    for directory, names, files in os.walk(top):
        for name in sorted(names + files):
            path = Path(directory) / name
            found = path.lstat()
            seen.update(
                f"{path} {found.st_mode} {found.st_uid} {found.st_gid} {found.st_rdev}\n".encode()
            )
            if path.is_file() and not path.is_symlink():
                seen.update(path.read_bytes())
    return seen.hexdigest()


@pytest.fixture
def decoy(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host's that nothing may touch."""
    top = tmp_path / "decoy"
    for name in ("pts", "shm", "mqueue", "fd", "sub", "b"):
        (top / name).mkdir(parents=True)
    for name in ("null", "console", "ptmx", "shadow", "sub/file"):
        (top / name).write_text("of the host\n")
    before = digest(top)
    yield top
    assert digest(top) == before, "a hostile image changed the host"


def archive(entries: Entries) -> bytes:
    """The small image with some entries replaced."""
    busybox = Path("/bin/busybox")
    source = tarfile.open(fileobj=io.BytesIO(lane.rootfs(busybox)))
    buffer = io.BytesIO()
    with source, tarfile.open(fileobj=buffer, mode="w") as result:
        for member in source:
            if member.name not in entries:
                result.addfile(member, source.extractfile(member) if member.isreg() else None)
        for name, (kind, content) in entries.items():
            entry = tarfile.TarInfo(name)
            data = content.encode("latin-1") if kind in ("file", "program") else b""
            entry.type = {"dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}.get(
                kind, tarfile.REGTYPE
            )
            entry.mode = 0o644 if kind == "file" else 0o755
            entry.linkname = content if kind == "link" else ""
            entry.size = len(data)
            result.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def hostile(sysbox: Sysbox) -> Iterator[Callable[..., str]]:
    """`hostile(entries, "WORKDIR /x", ...)` imports an image and gives its name."""

    def make(entries: Entries, *changes: str) -> str:
        flags = [word for change in changes for word in ("--change", change)]
        words = [SYSBOX, "import", *flags, "-", NAME]
        done = subprocess.run(words, input=archive(entries), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return NAME

    yield make
    sysbox("rmi", "-f", NAME)


def run(
    sysbox: Sysbox, image: str, *words: str, flags: Mode = ()
) -> subprocess.CompletedProcess[str]:
    return sysbox("run", "--rm", "--network", "none", *flags, image, *words)


def outward(decoy: Path) -> tuple[str, ...]:
    """Texts of symbolic links that would lead from a root to the decoy."""
    return str(decoy), "../" * 20 + str(decoy).lstrip("/")


# --- the file systems of the kernel ----------------------------------------------------------------


@pytest.mark.parametrize("place", ["dev", "proc", "sys"])
@pytest.mark.parametrize("relative", [False, True])
def test_a_kernel_file_system_is_not_mounted_through_a_link(
    sysbox: Sysbox, hostile: Callable[..., str], decoy: Path, place: str, relative: bool, mode: Mode
) -> None:
    """CVE-2026-41579, CVE-2019-19921, CVE-2023-27561."""
    image = hostile({place: ("link", outward(decoy)[relative])})
    done = run(sysbox, image, "true", flags=mode)
    assert done.returncode == 125
    assert f"/{place}" in done.stderr
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize("place", ["dev", "proc", "sys"])
def test_nor_through_a_link_inside_the_image(
    sysbox: Sysbox, hostile: Callable[..., str], place: str, mode: Mode
) -> None:
    image = hostile({place: ("link", "tmp")})
    assert run(sysbox, image, "true", flags=mode).returncode == 125
    image = hostile({place: ("file", "x")})
    assert run(sysbox, image, "true", flags=mode).returncode == 125


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(
    "entry", ["dev/null", "dev/console", "dev/ptmx", "dev/pts", "dev/fd", "dev/shm", "dev/mqueue"]
)
def test_what_an_image_has_in_dev_is_never_used(
    sysbox: Sysbox, hostile: Callable[..., str], decoy: Path, entry: str, relative: bool, mode: Mode
) -> None:
    """CVE-2025-31133, CVE-2025-52565."""
    link = f"{outward(decoy)[relative]}/{entry.removeprefix('dev/')}"
    image = hostile({entry: ("link", link)})
    done = run(sysbox, image, "stat", "-c", "%t:%T", "/dev/null", "/dev/pts/ptmx", flags=mode)
    assert done.stdout.split() == ["1:3", "5:2"], done.stderr


@pytest.mark.parametrize("entry", [("link", "/proc/sys/kernel/core_pattern"), ("file", "attack")])
def test_masks_are_the_null_device(
    sysbox: Sysbox, hostile: Callable[..., str], entry: tuple[str, str], mode: Mode
) -> None:
    """CVE-2025-31133: what covers /proc/kcore is never something of the image's."""
    image = hostile({"dev/null": entry})
    look = ("stat", "-c", "%F %t:%T", "/proc/keys", "/proc/timer_list")
    done = run(sysbox, image, *look, flags=mode)
    assert set(done.stdout.splitlines()) == {"character special file 1:3"}


def test_the_console_is_the_terminal(hostile: Callable[..., str], decoy: Path, mode: Mode) -> None:
    """CVE-2025-52565, with a terminal this time."""
    image = hostile({"dev/console": ("link", str(decoy / "console"))})
    master, slave = pty.openpty()
    words = [
        "run",
        "--rm",
        "-t",
        "--network",
        "none",
        *mode,
        image,
        "sh",
        "-c",
        "stat -c %t /dev/console; tty; stat -c %u:%a /dev/console",
    ]
    done = subprocess.run(
        [SYSBOX, *words], stdin=slave, stdout=slave, stderr=slave, check=False, timeout=60
    )
    os.close(slave)
    output = b""
    while chunk := read(master):
        output += chunk
    os.close(master)
    assert done.returncode == 0, output
    lines = output.decode().split()
    assert lines[0] == "88", lines  # major 136: a pty
    assert lines[1].startswith("/dev/")
    assert lines[2] == "0:620"


def read(master: int) -> bytes:
    try:
        return os.read(master, 4096)
    except OSError as error:
        if error.errno != errno.EIO:  # every writer is gone
            raise
        return b""


# --- places that the image or the user chose -------------------------------------------------------


@pytest.mark.parametrize("relative", [False, True])
def test_mount_targets_stay_inside(
    sysbox: Sysbox,
    hostile: Callable[..., str],
    decoy: Path,
    tmp_path: Path,
    relative: bool,
    mode: Mode,
) -> None:
    """CVE-2024-45310, CVE-2015-3627: nothing is made or mounted beyond the root."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "of-the-user").write_text("x")
    link = outward(decoy)[relative]
    image = hostile({"mnt": ("link", link), "etc/hosts": ("link", f"{link}/shadow")})
    for flags in (
        ("-v", f"{source}:/mnt/new/deep"),
        ("-v", f"{source}:/mnt"),
        ("--tmpfs", "/mnt/new"),
        ("--mount", f"type=bind,src={source},dst=/mnt/sub"),
        ("-v", "/mnt/volume"),
        ("-w", "/mnt/new"),
    ):
        done = run(sysbox, image, "true", flags=(*mode, *flags))
        assert done.returncode in (0, 125), flags
        assert not (decoy / "new").exists()


@pytest.mark.parametrize("target", ["/../../x", "/mnt/../../../x", "relative", "/mnt/\n"])
def test_targets_that_are_no_paths(sysbox: Sysbox, image: str, target: str, mode: Mode) -> None:
    done = run(sysbox, image, "true", flags=(*mode, "--tmpfs", target))
    assert done.returncode in (0, 125)
    assert not Path("/x").exists()


@pytest.mark.parametrize("relative", [False, True])
def test_the_images_own_directories_stay_inside(
    sysbox: Sysbox, hostile: Callable[..., str], decoy: Path, relative: bool, mode: Mode
) -> None:
    """CVE-2026-55686, CVE-2022-23648: WORKDIR and VOLUME below a link; nothing of the host's is copied."""
    image = hostile(
        {"a": ("link", outward(decoy)[relative])}, "WORKDIR /a/b", "VOLUME /a/sub /a/fresh"
    )
    done = run(sysbox, image, "sh", "-c", "pwd; ls -A /a/sub /a/b .; cat /a/shadow", flags=mode)
    assert "of the host" not in done.stdout
    assert "file" not in done.stdout
    assert not (decoy / "fresh").exists()


@pytest.mark.parametrize(
    "text", ["../run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/stub-resolv.conf"]
)
def test_a_resolv_conf_of_systemd_resolved(
    sysbox: Sysbox, hostile: Callable[..., str], text: str, mode: Mode
) -> None:
    """The image has the link, and what it leads to is made by a service that does not run in it."""
    image = hostile({"etc/resolv.conf": ("link", text)})
    for flags in (mode, (*mode, "--read-only"), (*mode, "--tmpfs", "/run")):
        done = sysbox("run", "--rm", *flags, image, "cat", "/etc/resolv.conf", check=True)
        assert "nameserver" in done.stdout
        done = sysbox("run", "--rm", *flags, image, "readlink", "/etc/resolv.conf", check=True)
        assert done.stdout == f"{text}\n"


def test_a_link_that_leads_out(
    sysbox: Sysbox, hostile: Callable[..., str], decoy: Path, mode: Mode
) -> None:
    """A mount target is made where it leads inside the container."""
    for text in outward(decoy):
        image = hostile({"etc/resolv.conf": ("link", f"{text}/made")})
        run(sysbox, image, "test", "-f", f"{decoy}/made", flags=mode).check_returncode()


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"etc/resolv.conf": ("link", "resolv.conf")}, "Too many levels of symbolic links"),
        ({"etc/resolv.conf": ("link", "/proc/1/made")}, "/proc/1/made"),
        ({"etc/resolv.conf": ("link", "/dev/shm/made")}, "/dev/shm/made"),
        ({"etc/resolv.conf": ("link", "/tmp/..")}, "/etc/resolv.conf"),
        (
            {f"etc/{n}": ("link", f"{n + 1}") for n in range(12)}
            | {"etc/resolv.conf": ("link", "0")},
            "lead nowhere",
        ),
    ],
)
def test_a_link_that_leads_nowhere(
    sysbox: Sysbox, hostile: Callable[..., str], entries: Entries, why: str, mode: Mode
) -> None:
    done = run(sysbox, hostile(entries), "true", flags=mode)
    assert done.returncode == 125
    assert why in done.stderr
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize("name", ["etc/passwd", "etc/group"])
def test_the_user_database_is_the_images(
    sysbox: Sysbox, hostile: Callable[..., str], tmp_path: Path, name: str, mode: Mode
) -> None:
    """A link to a file of the host's that would make somebody root."""
    planted = tmp_path / "planted"
    planted.write_text("attacker:x:0:0::/:/bin/sh\nattackers:x:0:\n")
    for link in (str(planted), "../" * 20 + str(planted)):
        image = hostile({name: ("link", link)})
        for user in ("attacker", "user:attackers"):
            done = run(sysbox, image, "id", flags=(*mode, "-u", user))
            assert done.returncode == 125, done.stdout


@pytest.mark.parametrize("special", ["/dev/zero", "/proc/self/fd/0", "/dev/stdin", "/dev/console"])
def test_a_user_database_that_never_ends(
    sysbox: Sysbox, hostile: Callable[..., str], special: str
) -> None:
    image = hostile({"etc/passwd": ("link", special)})
    done = sysbox(
        "run", "--rm", "-i", "--network", "none", "-u", "user", image, "id", input="x", timeout=20
    )
    assert done.returncode == 125


# --- sysbox's own program and libraries ------------------------------------------------------------

LOADER = r"""
/* Takes the place of the dynamic loader of whatever is executed, and tries to open that for writing. */
static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}
void _start(void) {
    long fd = call(2, (long)"/proc/self/exe", 01001, 0); /* open, O_WRONLY | O_TRUNC */
    char text[4] = {'0' + -fd / 10, '0' + -fd % 10, '\n', 0};
    if (fd >= 0)
        call(1, 1, (long)"open\n", 5);
    else
        call(1, 1, (long)text, 3);
    call(231, 0, 0, 0);
}
"""


@pytest.fixture(scope="session")
def loader(tmp_path_factory: pytest.TempPathFactory, requires: Callable[..., None]) -> str:
    """A static program that stands in for ld.so, as Latin-1 text."""
    requires(os.uname().machine == "x86_64", "the system call numbers of x86_64")
    directory = tmp_path_factory.mktemp("loader")
    source, program = directory / "loader.c", directory / "loader"
    source.write_text(LOADER)
    flags = ("-O1", "-static", "-nostdlib", "-fno-stack-protector", "-fno-pic", "-no-pie")
    subprocess.run(["gcc", *flags, "-o", program, source], check=True)
    return program.read_bytes().decode("latin-1")


def test_the_interpreter_cannot_be_overwritten(
    sysbox: Sysbox, hostile: Callable[..., str], loader: str, mode: Mode
) -> None:
    """CVE-2019-5736: /proc/self/exe of what starts a command must not be writable from inside.

    EROFS comes from the mount, so it holds at all times; ETXTBSY only while somebody runs the program.
    """
    script = "#!/proc/self/exe\n"
    entries: Entries = {"lib64": ("dir", ""), "evil": ("program", script)}
    entries["lib64/ld-linux-x86-64.so.2"] = ("program", loader)
    image = hostile(entries)
    sleep = ("--network", "none", *mode, image, "sleep", "100")
    sysbox("run", "-d", "--name", "hostile", *sleep, check=True)
    try:
        started = run(sysbox, image, "/evil", flags=mode)
        entered = sysbox("exec", "hostile", "/evil")
    finally:
        sysbox("rm", "-f", "hostile", check=True)
    for done in (started, entered):
        allowed = {f"{errno.EROFS}\n", f"{errno.ENOENT:02}\n", ""}
        assert done.stdout in allowed, f"opening gave errno {done.stdout!r} {done.stderr}"


CANARY = """
#include <fcntl.h>
__attribute__((constructor)) static void sing(void) { open("/flag/library", O_CREAT | O_WRONLY, 0600); }
"""
LIBRARIES = (
    "libnss_files.so.2", "libnss_compat.so.2", "libnss_systemd.so.2", "libnss_dns.so.2", "libgcc_s.so.1",
    "libc.so.6", "libseccomp.so.2", "libselinux.so.1", "libm.so.6",
)  # fmt: skip


def test_nothing_of_the_image_is_loaded_before_its_command(
    sysbox: Sysbox, hostile: Callable[..., str], tmp_path: Path, mode: Mode
) -> None:
    """CVE-2019-14271: libraries, modules, helpers and databases that sing when somebody uses them."""
    source, canary = tmp_path / "canary.c", tmp_path / "canary.so"
    source.write_text(CANARY)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", canary, source], check=True)
    library = canary.read_bytes().decode("latin-1")
    entries: Entries = {
        "flag": ("dir", ""),
        "etc/nsswitch.conf": ("file", "passwd: files systemd dns\n"),
    }
    for directory in (
        "lib",
        "lib/x86_64-linux-gnu",
        "lib64",
        "usr/lib",
        "usr/lib/x86_64-linux-gnu",
    ):
        entries[directory] = ("dir", "")
        for name in LIBRARIES:
            entries[f"{directory}/{name}"] = ("program", library)
    module = "open('/flag/module', 'w')\n"
    for version in ("3.11", "3.12", "3.13"):
        for directory in ("", "/encodings", "/site-packages", "/sysbox"):
            entries[f"usr/lib/python{version}{directory}"] = ("dir", "")
        for name in (
            "os",
            "site",
            "pwd",
            "encodings/__init__",
            "encodings/idna",
            "traceback",
            "linecache",
        ):
            entries[f"usr/lib/python{version}/{name}.py"] = ("file", module)
    for helper in (
        "sbin/ldconfig",
        "usr/bin/gcc",
        "bin/mount",
        "usr/bin/nsenter",
        "bin/getent",
        "usr/bin/tar",
    ):
        for above in Path(helper).parents:
            if str(above) != "." and str(above) != "bin":
                entries[str(above)] = ("dir", "")
        entries[helper] = ("program", "#!/bin/sh\n: > /flag/helper\n")
    ordered = dict(sorted(entries.items(), key=lambda item: item[0].count("/")))
    flag = tmp_path / "flag"
    flag.mkdir()
    image = hostile(ordered, "USER user:user")
    run_flags = ("-v", f"{flag}:/flag", "--network", "none", *mode)
    sysbox("run", "-d", "--name", "hostile", *run_flags, image, "sleep", "100", check=True)
    try:
        for words in (
            "-u user hostile true",
            "-u nosuch hostile true",
            "hostile /nosuch",
            "-w /x hostile true",
        ):
            sysbox("exec", *words.split())
        sysbox("run", "--rm", *run_flags, "-u", "user", image, "true", check=True)
        assert sysbox("run", "--rm", *run_flags, "-u", "nosuch", image, "true").returncode == 125
    finally:
        sysbox("rm", "-f", "hostile", check=True)
    assert list(flag.iterdir()) == []


SCANNER = """
rm /etc/passwd /etc/group # which are read for each, and would be seen open in one look of many
while :; do
    for process in /proc/[0-9]*; do
        case $process in /proc/1|/proc/$$) continue ;; esac
        for link in $process/fd/* $process/cwd; do readlink $link; done
        if [ -e $process/root$0 ]; then echo "the host's root"; fi
        if [ -e $process/cwd/pyproject.toml ]; then echo "the caller's directory"; fi
    done
done 2>/dev/null >> /tmp/seen
"""
HARMLESS = ("pipe:", "socket:", "anon_inode:[pidfd]", "/dev/null", "/tmp/seen", "/proc", "/dev/pts")


def test_a_process_that_enters_shows_nothing_of_the_hosts(
    sysbox: Sysbox, image: str, mode: Mode
) -> None:
    """CVE-2016-9962, with a container that may ptrace everything it sees."""
    name = "scanner"
    flags = ("-d", "--name", name, "--network", "none", "--cap-add", "SYS_PTRACE", *mode)
    sysbox("run", *flags, image, "sh", "-c", SCANNER, str(SYSBOX), check=True)
    try:
        for _ in range(25):
            sysbox("exec", name, "true", check=True)
        done = sysbox("exec", name, "sort", "-u", "/tmp/seen", check=True)
    finally:
        sysbox("rm", "-f", name, check=True)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line != "/" and not line.startswith(HARMLESS)] == []
