"""cp, diff, commit, export: a container's files, while it runs and when it does not."""

from __future__ import annotations

import io
import os
import re
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Container, Containers, eventually, popen
from lane import SYSBOX, Sysbox
from sampletree import described, everything

from sysbox.base.files import remove_tree
from sysbox.host import probe
from sysbox.linux import freezer

STATES = ("running", "stopped", "created")
SCRIPT = (
    "mkdir /made /data/sub; echo one >/made/file; echo two >/data/sub/file; echo three >/tf/file;"
    " echo x >>/etc/passwd; rm /etc/os-release; ln -s /made /link; touch /ready; sleep 1000"
)


@pytest.fixture(params=STATES)
def box(request: pytest.FixtureRequest, containers: Containers, sysbox: Sysbox) -> Container:
    """A container with a volume and a tmpfs that has written to all of them, running or not."""
    flags = ("-v", "/data", "--tmpfs", "/tf", "--stop-timeout", "0")
    if request.param == "created":
        made = containers(*flags, verb=("create",))
        for path in ("/made/file", "/data/sub/file"):
            top = path.rpartition("/")[0]
            entry = tarfile.TarInfo(f".{path}")
            data = b"one\n" if top == "/made" else b"two\n"
            entry.size = len(data)
            pack(made, entry, data)
        return made
    made = containers(*flags, command=("sh", "-c", SCRIPT))
    eventually(lambda: sysbox("exec", made.id, "test", "-e", "/ready").returncode == 0, "is ready")
    if request.param == "stopped":
        made("stop")
    return made


@pytest.fixture
def images(sysbox: Sysbox) -> Iterator[list[str]]:
    """Names of images that are removed at the end."""
    made: list[str] = []
    yield made
    for name in made:
        sysbox("rmi", "-f", name)


def pack(box: Container, entry: tarfile.TarInfo, data: bytes) -> None:
    """One file into a container, as a stream."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(entry, io.BytesIO(data))
    subprocess.run([SYSBOX, "cp", "-", f"{box.id}:/"], input=buffer.getvalue(), check=True)


def stream(box: Container, path: str) -> dict[str, tarfile.TarInfo]:
    """`cp CONTAINER:PATH -`, read."""
    done = subprocess.run([SYSBOX, "cp", f"{box.id}:{path}", "-"], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        return {member.name: member for member in archive}


def test_out_of_a_container(box: Container, sysbox: Sysbox, tmp_path: Path) -> None:
    for path, text in (("/made/file", "one"), ("data/sub/file", "two")):
        done = sysbox("cp", f"{box.id}:{path}", tmp_path, check=True)
        assert (tmp_path / "file").read_text() == f"{text}\n"
        assert done.stderr == f"Successfully copied 4B to {tmp_path}\n"
    assert sysbox("cp", "-q", f"{box.id}:/made", tmp_path / "new", check=True).stderr == ""
    assert (tmp_path / "new" / "file").read_text() == "one\n"
    assert set(stream(box, "/data")) == {"data", "data/sub", "data/sub/file"}
    assert set(stream(box, "/data/.")) == {".", "sub", "sub/file"}


def test_into_a_container(box: Container, sysbox: Sysbox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("mine")
    os.chown(source, 1000, 1000)
    source.chmod(0o4755)
    sysbox("cp", source, f"{box.id}:/made/plain", check=True)
    sysbox("cp", "-a", source, f"{box.id}:/data/archived", check=True)
    plain, archived = stream(box, "/made/plain")["plain"], stream(box, "/data/archived")["archived"]
    assert (plain.uid, plain.gid, oct(plain.mode)) == (0, 0, "0o755")
    assert (archived.uid, archived.gid, oct(archived.mode)) == (1000, 1000, "0o4755")
    if box.inspect("State.Status") == "running":
        # what its processes see, in the volume too
        assert box.sh("cat /made/plain /data/archived") == "minemine"


def test_a_tmpfs_is_seen_while_it_runs(containers: Containers, sysbox: Sysbox) -> None:
    made = containers("--tmpfs", "/tf")
    made.sh("echo there >/tf/file")
    assert stream(made, "/tf/file")["file"].size == 6
    sysbox("cp", "/etc/hostname", f"{made.id}:/tf/", check=True)
    assert made.sh("ls /tf") == "file\nhostname"


def test_a_mounted_file_is_written_in_place(
    containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    made = containers()
    (tmp_path / "hosts").write_text("127.0.0.1 mine\n")
    sysbox("cp", tmp_path / "hosts", f"{made.id}:/etc/hosts", check=True)
    assert made.sh("cat /etc/hosts") == "127.0.0.1 mine"
    assert "/etc/hosts" in made.sh("cat /proc/mounts"), "it is still mounted"


def test_from_one_to_another(containers: Containers, sysbox: Sysbox) -> None:
    one, other = containers(), containers("-v", "/data", verb=("create",))
    one.sh("mkdir /d; echo x >/d/f; ln /d/f /d/g")
    sysbox("cp", f"{one.id}:/d", f"{other.id}:/data/", check=True)
    found = stream(other, "/data/d")
    assert found["d/g"].islnk()
    # and within one
    sysbox("cp", f"{one.id}:/d/f", f"{one.id}:/d/h", check=True)
    assert one.sh("cat /d/h") == "x"


@pytest.mark.parametrize("verb", [("run", "-d"), ("create",)])
def test_what_is_read_only_is_not_written(
    containers: Containers, sysbox: Sysbox, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    (tmp_path / "ro").mkdir()
    made = containers("--read-only", "-v", f"{tmp_path}/ro:/ro:ro", "-v", "/rw", verb=verb)
    for path in ("/tmp", "/ro"):
        done = sysbox("cp", "/etc/hostname", f"{made.id}:{path}")
        assert done.returncode == 1
        assert "is mounted read-only in the container" in done.stderr
    assert not list((tmp_path / "ro").iterdir())
    sysbox("cp", "/etc/hostname", f"{made.id}:/rw", check=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("/etc/hostname", "/tmp/x"), "neither SOURCE nor DESTINATION is in a container"),
        (("/etc/hostname", "none:/x"), "no such container: none"),
        (("ID:/none", "/tmp/x"), "no such file or directory"),
        (("/none", "ID:/x"), "no such file or directory"),
        (("/etc/hostname", "ID:/none/x"), "there is no"),
        (("/etc", "ID:/etc/passwd"), "a directory cannot be copied onto a file"),
        (("-", "ID:/etc/passwd"), "not a directory"),
        (("", "ID:/"), "the source can not be empty"),
        (("ID:/etc/passwd", ""), "the destination can not be empty"),
    ],
)
def test_what_cannot_be_copied(
    containers: Containers, sysbox: Sysbox, words: tuple[str, str], message: str
) -> None:
    made = containers(verb=("create",))
    done = sysbox("cp", *(word.replace("ID:", f"{made.id}:") for word in words), input="")
    assert done.returncode == 1
    assert message in done.stderr


def test_what_was_named_and_is_left_out_is_an_error(
    containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    made, copy = containers(), tmp_path / "zero"
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    done = sysbox("cp", f"{made.id}:/dev/zero", copy)
    assert (done.returncode, copy.exists()) == (1, False)
    assert "it is a device" in done.stderr
    assert "`cp -a` copies device nodes" in done.stderr
    assert "Successfully" not in done.stderr
    sysbox("cp", "-a", f"{made.id}:/dev/zero", copy, check=True)
    assert copy.is_char_device()
    done = sysbox("cp", tmp_path / "socket", f"{made.id}:/tmp/")
    assert done.returncode == 1
    assert "it is a socket" in done.stderr
    assert "-a" not in done.stderr
    # those of a tree are left out with a line
    assert "left out" in sysbox("cp", tmp_path, f"{made.id}:/tmp/tree", check=True).stderr


def test_a_tmpfs_is_not_there_while_it_does_not_run(
    containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    """A file would go into the layer below, where it is never seen."""
    (tmp_path / "bound").mkdir()
    flags = ("--tmpfs", "/tmp", "--mount", "type=tmpfs,target=/no/dir", "--read-only")
    made = containers(*flags, "-v", f"{tmp_path}/bound:/tmp/b", verb=("create",))
    link = tmp_path / "link"
    link.symlink_to("/tmp")
    for path in ("/tmp", "/tmp/x", "/etc/../tmp/", "/no/dir", "/no/dir/x/y"):
        done = sysbox("cp", "/etc/hostname", f"{made.id}:{path}")
        assert done.returncode == 1
        assert "is a tmpfs, which is there only while the container runs" in done.stderr
    assert "is a tmpfs" in sysbox("cp", "-", f"{made.id}:/tmp", input="").stderr
    sysbox("cp", "/etc/hostname", f"{made.id}:/tmp/b/", check=True)
    sysbox("cp", f"{made.id}:/tmp/.", tmp_path / "out", check=True)
    other = containers("--tmpfs", "/tmp", verb=("create",))
    sysbox("cp", link, f"{other.id}:/link", check=True)
    assert "/tmp is a tmpfs" in sysbox("cp", "/etc/hostname", f"{other.id}:/link/").stderr
    other("start")
    sysbox("cp", "/etc/hostname", f"{other.id}:/link/", check=True)


def test_the_kernels_file_systems_take_no_files(containers: Containers, sysbox: Sysbox) -> None:
    for flags in ((), ("--userns", "host")):
        made = containers(*flags)
        for path, kind in (("/proc/x", "proc"), ("/sys/", "sysfs")):
            done = sysbox("cp", "/etc/hostname", f"{made.id}:{path}")
            assert done.returncode == 1
            assert f"{kind} takes no files" in done.stderr


SWAP = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
os.makedirs("/s/dir" + sys.argv[1])
open(f"/s/dir{sys.argv[1]}/canary", "w").write("inside")
os.symlink("/", "/s/link")
open("/ready", "w")
while True:
    libc.renameat2(-100, b"/s/dir", -100, b"/s/link", 2)
"""


def test_a_container_that_swaps_names_reaches_nothing_outside(
    containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    """CVE-2018-15664: a directory becomes a symbolic link to / and back, as fast as it can."""
    # where the link leads to if it is followed on the host; the machine's /tmp is that of all hosts
    canary, planted = tmp_path / "canary", tmp_path / "planted"
    canary.write_text("secret of the host")
    made = containers(image="host", command=("python3", "-c", SWAP, str(tmp_path)))
    eventually(lambda: sysbox("exec", made.id, "test", "-e", "/ready").returncode == 0, "it swaps")
    copied = turn = 0
    # at half of the looks the name is the link's, in which there is no such file
    while turn < 8 or not copied:
        turn += 1
        assert turn < 60, "none could be copied"
        out = tmp_path / f"out{turn}"
        sysbox("cp", canary, f"{made.id}:/s/dir{planted}")
        assert not planted.exists()
        copied += sysbox("cp", f"{made.id}:/s/dir{canary}", out).returncode == 0
        assert not out.exists() or out.read_text() == "inside"
        sysbox("cp", f"{made.id}:/s", tmp_path / f"all{turn}")
        for top, _, files in os.walk(tmp_path / f"all{turn}"):
            texts = [(Path(top) / name).read_text() for name in files]
            # what was planted is a copy of the canary: made in the container, by us
            assert set(texts) <= {"inside", "secret of the host"}
            assert not (Path(top) / "canary").exists() or "inside" in texts
    assert canary.read_text() == "secret of the host"


def test_a_large_file_takes_no_memory(
    containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    made = containers()
    made.sh("truncate -s 8G /big; echo end >>/big; dd if=/dev/zero of=/full bs=1M count=100")
    for path, size in (("/big", (8 << 30) + 4), ("/full", 100 << 20)):
        # by a process that is small itself: what a child has had before its execve counts as its own
        script = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"""
        words = [SYSBOX, "cp", "-q", f"{made.id}:{path}", str(tmp_path)]
        used = subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True
        )
        copy = tmp_path / path[1:]
        assert copy.stat().st_size == size
        assert int(used.stdout) < 64 << 10, "KiB"
    assert (tmp_path / "big").stat().st_blocks * 512 < 1 << 20, "it is sparse still"
    sysbox("cp", tmp_path / "big", f"{made.id}:/back", check=True)
    assert int(made.sh("du -k /back").split()[0]) < 1024
    assert made.sh("tail -c 4 /back") == "end"


def test_diff(box: Container, sysbox: Sysbox) -> None:
    found = box("diff").splitlines()
    if box.inspect("State.Status") == "created":
        assert found == ["A /made", "A /made/file"]
        return
    assert found == [
        "C /etc", "D /etc/os-release", "C /etc/passwd",
        "A /link", "A /made", "A /made/file", "A /ready",
    ]  # fmt: skip


def test_diff_of_a_container_that_did_nothing(containers: Containers) -> None:
    made = containers("-v", "/deep/in/side", "--tmpfs", "/t", "-w", "/tmp")
    assert made("diff") == ""


def test_commit(box: Container, sysbox: Sysbox, images: list[str]) -> None:
    images.append("committed:1")
    flags = (
        "-a",
        "Me <me@example.org>",
        "-m",
        "why",
        "-c",
        "ENV A=b",
        "-c",
        'CMD ["cat", "/made/file"]',
    )
    done = sysbox("commit", *flags, box.id, "committed:1", check=True)
    image_id = done.stdout.strip()
    assert sysbox("run", "--rm", "committed:1", check=True).stdout == "one\n"
    script = "echo $A; ls /data /tf; test -e /etc/os-release && echo there; tail -n1 /etc/passwd"
    words = sysbox("run", "--rm", "committed:1", "sh", "-c", script, check=True).stdout.splitlines()
    assert words[0] == "b"
    # neither the volume's content nor the tmpfs's is part of it
    assert "sub" not in words
    assert "file" not in words
    if box.inspect("State.Status") != "created":
        assert words[-1] == "x"
        assert "there" not in words
    template = "{{.Id}} {{.Author}} {{.Comment}}"
    seen = sysbox("image", "inspect", "-f", template, "committed:1", check=True).stdout
    assert seen == f"{image_id} Me <me@example.org> why\n"
    if box.inspect("State.Status") == "running":
        assert box.sh("echo alive") == "alive"


def test_commit_keeps_what_the_container_was_given(
    containers: Containers, sysbox: Sysbox, images: list[str]
) -> None:
    flags = ("-e", "GIVEN=1", "-u", "1000", "-w", "/home", "-l", "a=b", "--entrypoint", "/bin/echo")
    made = containers(*flags, command=("hello",), verb=("create",))
    images.append("given")
    image_id = sysbox("commit", "--pause=false", made.id, "given", check=True).stdout.strip()
    assert sysbox("run", "--rm", "given", check=True).stdout == "hello\n"
    script = "id -u; pwd; echo $GIVEN"
    words = ("run", "--rm", "--entrypoint", "sh", "given", "-c", script)
    assert sysbox(*words, check=True).stdout.split() == ["1000", "/home", "1"]
    found = sysbox("image", "inspect", "-f", "{{.Config.Labels.a}}", image_id, check=True)
    assert found.stdout == "b\n"


def test_layer_upon_layer(containers: Containers, sysbox: Sysbox, images: list[str]) -> None:
    """Whiteouts and opaque directories, over several layers."""
    images += ["first", "second"]
    one = containers(
        command=("sh", "-c", "mkdir /d /e; touch /d/a /d/b /e/x; touch /ready; sleep 99")
    )
    eventually(lambda: sysbox("exec", one.id, "test", "-e", "/ready").returncode == 0, "is ready")
    sysbox("commit", one.id, "first", check=True)
    script = "rm /d/a; rm -r /e; mkdir /e; touch /e/y; rm -r /home; touch /done; sleep 99"
    two = containers(image="first", command=("sh", "-c", script))
    eventually(lambda: sysbox("exec", two.id, "test", "-e", "/done").returncode == 0, "is done")
    assert "D /e/x" in two("diff")
    sysbox("commit", two.id, "second", check=True)
    seen = sysbox("run", "--rm", "second", "sh", "-c", "ls /d /e; ls / | grep home", check=False)
    assert seen.stdout.split() == ["/d:", "b", "/e:", "y"]
    # nothing is left to be said of a container that changes nothing
    assert containers(image="second", verb=("create",))("diff") == ""


def test_nothing_runs_while_it_is_committed(
    containers: Containers, sysbox: Sysbox, images: list[str]
) -> None:
    script = "cd /; for i in $(seq 1000); do echo $i >f$i; done; touch /ready; exec sleep 1000"
    made = containers(command=("sh", "-c", script))
    eventually(lambda: sysbox("exec", made.id, "test", "-e", "/ready").returncode == 0, "is ready")
    images.append("still")

    def is_frozen() -> bool:
        return freezer.is_frozen(probe(), f"/system.slice/{made.scope}")

    # slowed down, so that there is something to be seen
    slowly = ("systemd-run", "--quiet", "--scope", "--property=CPUQuota=10%")
    command = [*slowly, SYSBOX, "commit", made.id, "still"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        eventually(is_frozen, "it stands still")
        assert process.wait() == 0
    assert not is_frozen()
    # whatever becomes of the commit, the container goes on
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        eventually(is_frozen, "it stands still")
        process.kill()
    eventually(lambda: not is_frozen(), "it goes on")
    assert made.inspect("State.Status") == "running"
    # one that is paused already stays so
    made("pause")
    sysbox("commit", made.id, "still", check=True)
    assert made.inspect("State.Status") == "paused"


def test_an_image_on_the_machines_own(
    containers: Containers, sysbox: Sysbox, images: list[str]
) -> None:
    """Of `host`, whose /usr is bound: the bind is part of what is committed."""
    images.append("ours")
    made = containers(image="host", command=("sh", "-c", "echo mine >/srv/file; sleep 99"))
    eventually(lambda: sysbox("exec", made.id, "test", "-s", "/srv/file").returncode == 0, "wrote")
    assert made("diff").splitlines() == ["C /srv", "A /srv/file"]
    sysbox("commit", made.id, "ours", check=True)
    assert (
        sysbox("run", "--rm", "ours", "python3", "-c", "print(open('/srv/file').read())").stdout
        == "mine\n\n"
    )


@pytest.mark.parametrize("verb", [("run", "-d"), ("create",)])
def test_export_and_import_make_the_same_tree(
    containers: Containers,
    sysbox: Sysbox,
    tmp_path: Path,
    images: list[str],
    verb: tuple[str, ...],
) -> None:
    """cp into it, export, import, cp out of it: everything is as it was, and the holes are filled."""
    top = everything(tmp_path)
    with (top / "sparse").open("r+b") as file:
        file.truncate(3 << 20)
    os.utime(top / "sparse", ns=(1, 1_600_000_000_123_456_789))
    made = containers("-v", "/tree/sticky", "--tmpfs", "/tree/deep", verb=("create",))
    sysbox("cp", "-a", f"{top}/.", f"{made.id}:/copied", check=True)
    if verb != ("create",):
        made("start")
    images.append("again")
    sysbox("export", "-o", tmp_path / "box.tar", made.id, check=True)
    sysbox("import", tmp_path / "box.tar", "again", check=True)
    again = containers(image="again", verb=("create",))
    assert again("diff") == ""
    sysbox("cp", "-a", f"{again.id}:/copied", tmp_path / "back", check=True)
    assert described(tmp_path / "back") == described(top)
    assert (tmp_path / "box.tar").stat().st_mode & 0o777 == 0o600
    with tarfile.open(tmp_path / "box.tar") as archive:
        names = set(archive.getnames())
    assert {".", "bin/busybox", "proc", "dev", "etc/passwd"} <= names
    assert not [name for name in names if name.startswith(("proc/", "dev/", "sys/"))]


def test_export_leaves_volumes_out(box: Container, sysbox: Sysbox) -> None:
    done = subprocess.run([SYSBOX, "export", box.id], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        names = archive.getnames()
    assert "made/file" in names
    assert not [name for name in names if name.startswith(("data/", "tf/"))]


@pytest.mark.parametrize("path", ["/proc/meminfo", "/proc/1/mounts", "/sys/kernel/mm/hugepages"])
def test_files_of_the_kernels_are_read_to_their_end(
    containers: Containers, sysbox: Sysbox, tmp_path: Path, path: str
) -> None:
    """Their size is 0, or a page, whatever is in them."""
    made = containers()
    sysbox("cp", f"{made.id}:{path}", tmp_path / "copy", check=True)
    file = "" if path.startswith("/proc") else "/hugepages-2048kB/nr_hugepages"
    copied = (tmp_path / f"copy{file}").read_text()
    assert copied.endswith("\n")
    assert "\0" not in copied
    name = path.rpartition("/")[2] + file
    done = subprocess.run([SYSBOX, "cp", f"{made.id}:{path}", "-"], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        member = archive.extractfile(name)
        assert member
        assert member.read().decode().splitlines()[0][:8] == copied.splitlines()[0][:8]


def test_a_whole_root_while_it_runs(containers: Containers, sysbox: Sysbox, tmp_path: Path) -> None:
    """What the kernel shows is not a container's to copy, and what vanishes meanwhile is no error."""
    churn = "while :; do mkdir -p /c/a/b; touch /c/a/b/1 /c/2; rm -r /c; done"
    made = containers("-v", "/data", "--tmpfs", "/tf", command=("sh", "-c", churn))
    made.sh("echo here >/data/file; echo there >/tf/file; echo root >/root/file")
    done = sysbox("cp", f"{made.id}:/", tmp_path / "copy", check=True)
    for one in ("proc", "sys", "dev/pts", "dev/mqueue"):
        assert f"left out copy/{one}: it is a file system of the kernel's" in done.stderr
        assert list((tmp_path / "copy" / one).iterdir()) == []
    for one, text in (("data", "here"), ("tf", "there"), ("root", "root")):
        assert (tmp_path / "copy" / one / "file").read_text() == f"{text}\n"
    done = subprocess.run([SYSBOX, "cp", f"{made.id}:/", "-"], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        names = archive.getnames()
    assert {"./proc", "./data/file", "./tf/file"} <= {f"./{name.lstrip('./')}" for name in names}
    assert not [name for name in names if "proc/" in name]


@pytest.mark.parametrize("words", [("{}:", "."), ("/etc/hostname", "{}:")])
def test_no_path_in_the_container(
    containers: Containers, sysbox: Sysbox, words: tuple[str, str]
) -> None:
    made = containers(verb=("create",))
    done = sysbox("cp", *(word.format(made.id) for word in words))
    assert done.returncode == 1
    assert "names no path in the container" in done.stderr


DEEP = "/a" * 2000


@pytest.mark.parametrize(
    "flags", [("-w", DEEP), ("-v", f"/tmp:{DEEP}"), ("-v", f"{DEEP}"), ("--tmpfs", DEEP)]
)
def test_paths_without_end(sysbox: Sysbox, image: str, flags: tuple[str, str]) -> None:
    done = sysbox("run", "--rm", *flags, image, "true")
    assert done.returncode == 125
    assert "more than 200 directories deep" in done.stderr
    assert len(done.stderr) < 200


def test_a_source_without_end(sysbox: Sysbox, image: str, tmp_path: Path) -> None:
    """`-v` makes a missing directory, however deep."""
    try:
        done = sysbox(
            "run", "--rm", "--network", "none", "-v", f"{tmp_path}{'/a' * 1900}:/b", image, "true"
        )
        assert done.returncode == 0, done.stderr[-300:]
    finally:
        remove_tree(str(tmp_path / "a"))


def test_the_machines_usr_is_announced(
    containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    """An export of the image `host` is as large as the machine's /usr, which few expect."""
    made = containers(image="host", verb=("create",))
    with popen("export", made.id, stdout=subprocess.PIPE) as process:
        assert process.stderr
        announced = process.stderr.readline()
        process.kill()
    assert re.fullmatch(
        r"sysbox: export: about [\d.]+[GM]B, with the machine's own /usr\n", announced
    )
