"""SELinux labels of containers, where SELinux denies: what they are, and that they hold.

The rules of the policy are not what this is about, but that each process and each file has the label by which
it decides.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Containers
from denials import unexpected
from lane import Sysbox

from sysbox.linux import lsm

pytestmark = pytest.mark.enforcing("without it a label keeps nobody from anything")

PROCESS = re.compile(r"system_u:system_r:container_t:s0:c(\d+),c(\d+)")
NESTED = ("--security-opt", "label=nested")
HOST = ("--userns", "host")  # without a user namespace file modes keep root from nothing


def label_of(pid: int) -> str:
    return Path(f"/proc/{pid}/attr/current").read_text(encoding="ascii").strip("\0\n")


def file_label(path: Path | str) -> str:
    return os.getxattr(path, "security.selinux", follow_symlinks=False).decode().strip("\0")


def level(label: str) -> str:
    return label.split(":", 3)[3]


def test_the_label_of_processes_and_files(containers: Containers) -> None:
    one = containers("--tmpfs", "/scratch")
    process, files = one.inspect("ProcessLabel"), one.inspect("MountLabel")
    assert PROCESS.fullmatch(process)
    assert files == f"system_u:object_r:container_file_t:{level(process)}"
    assert label_of(one.pid) == process
    assert one.exec("cat", "/proc/self/attr/current").strip("\0") == process
    root = Path(f"/proc/{one.pid}/root")
    one.sh(
        "echo 1 >/new; echo 2 >/scratch/new; echo 3 >/dev/shm/new; cat /etc/hosts /etc/resolv.conf >/dev/null"
    )
    for path in (
        "",
        "new",
        "bin",
        "scratch/new",
        "dev",
        "dev/null",
        "dev/pts",
        "dev/shm/new",
        "etc/hosts",
    ):
        # with the slash the link of procfs leads to the root
        assert file_label(f"{root}/{path}") == files, path


def test_a_terminal_and_the_log(containers: Containers, sysbox: Sysbox, image: str) -> None:
    done = sysbox("run", "--rm", "-t", image, "sh", "-c", "tty; logger -t it hello; echo $?")
    assert done.stdout.split() == ["/dev/pts/0", "0"]
    piped = sysbox("run", "--rm", "-i", image, "cat", input="through a pipe\n")
    assert piped.stdout == "through a pipe\n", piped.stderr


def test_each_container_has_a_level_and_keeps_it(containers: Containers) -> None:
    first, second = containers(), containers()
    labels = [one.inspect("ProcessLabel") for one in (first, second)]
    assert labels[0] != labels[1]
    first("stop", "-t", "0")
    first("start")
    assert label_of(first.pid) == first.inspect("ProcessLabel") == labels[0]
    first("rm", "-f")
    leases = os.listdir("/var/lib/sysbox/levels")
    assert not [name for name in leases if name.endswith(first.id)]
    assert [name for name in leases if name.endswith(second.id)]


@pytest.fixture(autouse=True)
def told() -> Iterator[None]:
    """What a test here has denied is no news in the next file."""
    yield
    unexpected()


@pytest.fixture
def enforcing() -> Iterator[Path]:
    switch = Path("/sys/fs/selinux/enforce")
    yield switch
    switch.write_text("1", encoding="ascii")


def test_no_container_reads_anothers_files(
    containers: Containers, enforcing: Path, tmp_path: Path
) -> None:
    """Root with the host's ids, who may read any file by its mode; and permissive, where it does."""
    (tmp_path / "shared").mkdir()
    volume = ("-v", f"{tmp_path}/shared:/data")
    first = containers(*HOST, *volume, "--security-opt", "label=level:s0:c1,c2")
    subprocess.run(
        ["chcon", "system_u:object_r:container_file_t:s0:c1,c2", tmp_path / "shared"], check=True
    )
    first.sh("echo mine >/data/file")
    second = containers(*HOST, *volume)
    read = ("sh", "-c", "cat /data/file || echo denied")
    assert second.exec(*read).endswith("denied")
    enforcing.write_text("0", encoding="ascii")
    assert second.exec(*read) == "mine"


def test_volumes_are_relabelled_when_it_is_asked(containers: Containers, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    top = tmp_path / "top"
    (top / "below").mkdir(parents=True)
    outside.write_text("1", encoding="ascii")
    (top / "below/file").write_text("2", encoding="ascii")
    (top / "link").symlink_to(outside)
    before = file_label(outside)
    read = ("sh", "-c", "cat /data/below/file || echo denied")
    plain = containers("-v", f"{top}:/data")
    assert plain.exec(*read).endswith("denied")
    private = containers("-v", f"{top}:/data:Z")
    assert private.exec(*read) == "2"
    assert file_label(top / "below/file") == private.inspect("MountLabel")
    shared = containers("--mount", f"type=bind,src={top},dst=/data,relabel=shared")
    for one in (plain, shared, private):
        assert one.exec(*read) == "2"
    labels = {file_label(path) for path in (top, *top.rglob("*"))}
    assert labels == {"system_u:object_r:container_file_t:s0"}
    assert file_label(outside) == before


def test_a_volume_of_sysboxs_own(containers: Containers, sysbox: Sysbox) -> None:
    first = containers("-v", "shared-data:/data")
    first.sh("echo 1 >/data/file")
    second = containers("-v", "shared-data:/data")
    assert second.exec("cat", "/data/file") == "1"
    containers.remove()
    sysbox("volume", "rm", "shared-data", check=True)


@pytest.mark.parametrize(
    ("flags", "label"),
    [
        (("--security-opt", "label=disable"), "system_u:system_r:spc_t:s0"),
        (("--privileged",), "system_u:system_r:spc_t:s0"),
        (("--pid", "host"), "system_u:system_r:spc_t:s0"),
        (("--security-opt", "label=level:s0:c7,c8"), "system_u:system_r:container_t:s0:c7,c8"),
        (("--security-opt", "label=type:container_init_t", "--security-opt", "label=level:s0"),
         "system_u:system_r:container_init_t:s0"),
        (("--security-opt", "no-new-privileges", "--security-opt", "label=level:s0:c7,c8"),
         "system_u:system_r:container_t:s0:c7,c8"),
        ((*HOST, "--security-opt", "label=level:s0:c7,c8", "-u", "7"),
         "system_u:system_r:container_t:s0:c7,c8"),
    ],
    ids=["disable", "privileged", "pid-host", "level", "type", "no-new-privileges", "host-user"],
)  # fmt: skip
def test_what_is_asked_for(containers: Containers, flags: tuple[str, ...], label: str) -> None:
    one = containers(*flags)
    assert label_of(one.pid) == label
    assert one.inspect("ProcessLabel") == label


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("type:no_such_t", "label=type:no_such_t: the policy of SELinux has no label"),
        ("type:etc_t", "label=type:etc_t: the policy"),
        ("type:udev_t", "label=type:udev_t: SELinux would close the output"),
        ("type:init_t", "label=type:init_t: SELinux lets container_runtime_t start no process"),
        ("filetype:etc_t", "SELinux lets no process of container_t start from files of etc_t"),
        ("level:s0:c1,c2000", "label=level:s0:c1,c2000: the policy"),
        ("filetype:no_such_t", "label=filetype:no_such_t: the policy"),
        ("role:no_such_r", "label=role:no_such_r: the policy"),
    ],
    ids=[
        "type",
        "type-of-files",
        "no-container",
        "of-systemd",
        "no-program",
        "level",
        "filetype",
        "role",
    ],
)
def test_what_the_policy_lacks(sysbox: Sysbox, image: str, option: str, said: str) -> None:
    before = os.listdir("/var/lib/sysbox/containers")
    done = sysbox("run", "--rm", "--security-opt", f"label={option}", image, "true")
    assert done.returncode == 125
    assert said in done.stderr.splitlines()[0]
    assert os.listdir("/var/lib/sysbox/containers") == before


def test_what_the_host_needs_is_not_relabelled(sysbox: Sysbox, image: str) -> None:
    before = file_label(Path("/etc"))
    done = sysbox("run", "--rm", "-v", "/etc:/x:Z", image, "true")
    assert done.returncode == 125
    assert "volume /etc: Z must not relabel /etc" in done.stderr
    done = sysbox("run", "--rm", "-v", "/usr/not-there/deep:/x:z", image, "true")
    assert done.returncode == 125
    assert "/usr/not-there/deep: z must not relabel" in done.stderr
    assert not Path("/usr/not-there").exists()
    assert file_label(Path("/etc")) == before


# without a user namespace: what holds root back is the policy alone
REFUSED = """
! chcon -l s0 /new
! chcon -t etc_t /scratch/new
! chcon -l s0:c1022,c1023 /scratch/new
! runcon -t spc_t -l s0 true
! sh -c 'echo 0 >/sys/fs/selinux/enforce'
""".strip().replace("\n", " && ")


def test_labels_of_its_own(containers: Containers) -> None:
    """SELinux is visible inside, and files on a tmpfs get other labels, as far as the policy lets them."""
    plain = containers(image="host")
    assert plain.sh("ls -A /sys/fs/selinux; ! chcon -l s0 /dev/shm") == ""
    one = containers("--tmpfs", "/scratch", *NESTED, *HOST, image="host")
    assert one.exec("cat", "/sys/fs/selinux/enforce") == "1"
    # programs take SELinux for disabled without it
    one.sh("mkdir -p /etc/selinux; touch /etc/selinux/config")
    assert one.exec("id", "-Z") == one.inspect("ProcessLabel")
    own = one.inspect("MountLabel")
    one.sh(
        "touch /new /scratch/new /dev/shm/new; mkdir /scratch/shared; chcon -l s0 /scratch/shared"
    )
    found = one.exec("stat", "-c", "%C", "/", "/new", "/scratch", "/scratch/new", "/dev/shm/new")
    assert {text.split(":", 2)[2] for text in found.split()} == {own.split(":", 2)[2]}
    shared = one.exec("stat", "-c", "%C", "/scratch/shared")
    assert shared.split(":", 2)[2] == "container_file_t:s0"
    one.sh(REFUSED)
    assert Path("/sys/fs/selinux/enforce").read_text(encoding="ascii") == "1"


def test_files_of_a_shared_volume(containers: Containers, tmp_path: Path) -> None:
    """Who may remove a file may also close it to others, as docs/selinux.md says; and no more."""
    (tmp_path / "shared").mkdir()
    volume = (*HOST, "-v", f"{tmp_path}/shared:/data:z")
    taker = containers(*volume, *NESTED, image="host")
    reader = containers(*HOST, *NESTED, "-v", f"{tmp_path}/shared:/data:ro", image="host")
    taker.sh("echo 1 >/data/one; echo 2 >/data/two")
    own = taker.inspect("MountLabel")
    reader.sh(f"cat /data/one; ! chcon {own} /data/one")
    taker.sh(f"! chcon {reader.inspect('MountLabel')} /data/one; chcon {own} /data/one")
    assert file_label(tmp_path / "shared/one") == own
    reader.sh("! cat /data/one; cat /data/two")


def test_shared_namespaces_share_the_label(containers: Containers, sysbox: Sysbox) -> None:
    first = containers("--ipc", "private")
    label = first.inspect("ProcessLabel")
    for flag in ("--ipc", "--pid"):
        joined = containers(flag, f"container:{first.id}")
        assert label_of(joined.pid) == label
    sysbox("pod", "create", "--name", "labelled", check=True)
    try:
        members = [containers("--pod", "labelled") for _ in range(2)]
        assert len({one.inspect("ProcessLabel") for one in members}) == 1
        members[0].sh("echo 1 >/dev/shm/file")
        assert members[1].exec("cat", "/dev/shm/file") == "1"
        for one in members:
            one("rm", "-f")
    finally:
        sysbox("pod", "rm", "-f", "labelled")


def test_layers_and_copies_have_no_labels(
    containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    one = containers()
    one.sh("echo 1 >/new")
    exported = sysbox("export", "-o", str(tmp_path / "it.tar"), one.id)
    assert exported.returncode == 0, exported.stderr
    assert b"security.selinux" not in (tmp_path / "it.tar").read_bytes()
    assert "A /new" in one("diff")
    (tmp_path / "file").write_text("2", encoding="ascii")
    sysbox("cp", str(tmp_path / "file"), f"{one.id}:/copied", check=True)
    assert one.exec("cat", "/copied") == "2"
    assert file_label(Path(f"/proc/{one.pid}/root/copied")) == one.inspect("MountLabel")


def test_doctor_of_the_labels_on_disk(sysbox: Sysbox, image: str) -> None:
    """A layer without labels, as of a store from before SELinux, is found, and the advice helps."""

    def row() -> str:
        return next(
            line for line in sysbox("doctor").stdout.splitlines() if " SELinux labels " in line
        )

    layers = "/var/lib/sysbox/images/layers"
    run = ("run", "--rm", image, "true")
    sysbox(*run, check=True)
    assert row().split()[3] == "yes"
    subprocess.run(["chcon", "-R", "-t", "unlabeled_t", layers], check=True)
    try:
        assert f"{layers} is unlabeled_t, not container_ro_file_t" in row()
        assert "restorecon -R /var/lib/sysbox" in row()
    finally:
        subprocess.run(["restorecon", "-R", "/var/lib/sysbox"], check=True)
    assert row().split()[3] == "yes"
    sysbox(*run, check=True)


def test_who_may_do_what() -> None:
    """What sysbox asks the policy, before it makes a container whose output would be closed."""
    container, files = (
        f"system_u:{one}:s0" for one in ("system_r:container_t", "object_r:container_file_t")
    )
    assert lsm.allows(container, files, "file", "read")
    assert not lsm.allows(container, "system_u:object_r:shadow_t:s0", "file", "read")
    assert not lsm.allows(container, "no:such:label:s0", "file", "read")
    assert not lsm.allows(container, files, "file", "no_such_permission")
