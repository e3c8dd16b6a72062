"""Labels of the files of a volume: what gets one, and what never does.

Without SELinux the attribute is one like others, which root may set: the walk is the same.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from forked import in_child, needs_root

from sysbox.base import paths
from sysbox.base.errors import KernelError, SpecError
from sysbox.container.records import Record
from sysbox.fs import relabel, relabel_source
from sysbox.fs.rootfs import Bind
from sysbox.linux import _sys
from sysbox.linux.mount import MS_BIND
from sysbox.linux.namespace import CLONE_NEWNS
from sysbox.spec import ContainerSpec, Mount

ATTRIBUTE = "security.selinux"
SHARED = "system_u:object_r:container_file_t:s0"
OWN = "system_u:object_r:container_file_t:s0:c1,c2"
RECORD = Record(
    id="a" * 64, name="one", created_ns=1, spec=ContainerSpec(image="i"), image_id=f"sha256:{'b' * 64}",
    image_name="i", argv=("true",),
)  # fmt: skip


def label_of(path: Path) -> str:
    try:
        found = os.getxattr(path, ATTRIBUTE, follow_symlinks=False)
    except OSError:
        return ""
    return found.rstrip(b"\0").decode()


def unlabelled(path: Path) -> bool:
    """Whether a walk has left it alone, on a host with SELinux too."""
    return label_of(path) not in (SHARED, OWN)


def test_everything_below_gets_it_and_no_link_is_followed(tmp_path: Path) -> None:
    needs_root()
    top, outside = tmp_path / "top", tmp_path / "outside"
    deep = top.joinpath(*"abcdefghijklmnop")
    deep.mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("")
    (deep / "file").write_text("")
    (top / "to-file").symlink_to(outside / "secret")
    (top / "to-directory").symlink_to(outside)
    (top / "dangling").symlink_to("none")
    os.mkfifo(top / "fifo")
    relabel.apply(str(top), OWN, "Z")
    found = [top, *top.rglob("*")]
    assert len(found) == 22
    assert {label_of(one) for one in found} == {OWN}
    assert unlabelled(outside)
    assert unlabelled(outside / "secret")


def test_a_file_by_itself(tmp_path: Path) -> None:
    needs_root()
    file = tmp_path / "file"
    file.write_text("")
    relabel.apply(str(file), SHARED)
    assert label_of(file) == SHARED
    assert unlabelled(tmp_path)


def test_another_mount_is_left_alone(tmp_path: Path) -> None:
    """Also one of the same file system, which has the same device number."""
    top, other = tmp_path / "top", tmp_path / "other"
    for path in (top / "mounted", top / "beside", other / "below"):
        path.mkdir(parents=True)

    def apply() -> bool:
        _sys.mount(str(other), str(top / "mounted"), None, MS_BIND, None)
        relabel.apply(str(top), OWN, "Z")
        return unlabelled(other) and unlabelled(other / "below")

    assert in_child(apply, CLONE_NEWNS)
    assert label_of(top / "beside") == OWN
    assert label_of(top) == OWN


def test_a_tree_whose_top_has_the_label_is_done(tmp_path: Path) -> None:
    needs_root()
    (tmp_path / "file").write_text("")
    relabel.apply(str(tmp_path), SHARED)
    os.setxattr(tmp_path / "file", ATTRIBUTE, OWN.encode())
    relabel.apply(str(tmp_path), SHARED, fully=False)
    assert label_of(tmp_path / "file") == OWN
    relabel.apply(str(tmp_path), SHARED)
    assert label_of(tmp_path / "file") == SHARED


def test_the_top_is_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was interrupted is done again at the next start."""
    needs_root()
    (tmp_path / "below").mkdir()
    order = []
    real = relabel._set

    def watched(fd: int, label: str) -> None:
        order.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd, label)

    monkeypatch.setattr(relabel, "_set", watched)
    relabel.apply(str(tmp_path), SHARED)
    assert order == [str(tmp_path / "below"), str(tmp_path)]


@pytest.mark.parametrize(
    "path",
    ["/", "/etc", "/usr", "/var", "/var/lib", "/etc/passwd", "/etc/hosts", "/usr/share/doc", "/bin/sh",
     "/proc/1/fd", "/sys/kernel", "/dev/null"],
)  # fmt: skip
def test_what_the_host_needs_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is walked: a mistake here must not relabel the machine that runs the test."""
    walked: list[str] = []
    monkeypatch.setattr(relabel, "_all_of", lambda _top, label: walked.append(label))
    with pytest.raises(SpecError, match=f"volume {path}: Z must not relabel"):
        relabel.apply(path, OWN, "Z")
    assert not walked


def test_by_what_it_is_and_not_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "homes" / "me"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    link = tmp_path / "link"
    link.symlink_to(home)
    for path in (home, link, tmp_path / "homes"):
        with pytest.raises(SpecError, match=r"must not relabel .*/homes"):
            relabel.apply(str(path), OWN, "Z")

    def through_a_mount() -> str:
        (tmp_path / "mounted").mkdir()
        _sys.mount(str(home), str(tmp_path / "mounted"), None, MS_BIND, None)
        try:
            relabel.apply(str(tmp_path / "mounted"), OWN, "Z")
        except SpecError as error:
            return error.message
        return ""

    assert "must not relabel" in in_child(through_a_mount, CLONE_NEWNS)
    assert unlabelled(home)


def test_what_is_in_home_and_what_sysbox_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home directory whose user has not called; files of a container, whose label they have."""
    for name in ("home/user/data", "kept/container/upper"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(relabel_source, "_HOMES", str(tmp_path / "home"))
    monkeypatch.setattr(relabel_source, "_TREES", (str(tmp_path / "kept"),))
    for name in ("home/user", "kept/container", "kept/container/upper"):
        with pytest.raises(SpecError, match=f"Z must not relabel {tmp_path}/{name}, "):
            relabel.apply(str(tmp_path / name), OWN, "Z")
        assert unlabelled(tmp_path / name)
    os.close(relabel_source.open_source(f"{tmp_path}/home/user/data", "Z"))


def test_all_that_sysbox_keeps_is_refused() -> None:
    """But what a build mounts for its steps, and the data of volumes."""
    own = {
        one
        for name, one in vars(paths).items()
        if isinstance(one, str)
        and name.isupper()
        and one.startswith((f"{paths.STATE}/", paths.RUN))
    }
    kept = own & {*relabel_source.SYSTEM, *relabel_source._TREES}
    assert own - kept == {paths.IMAGES}  # it has the layers in it


def test_links_of_users(tmp_path: Path) -> None:
    """One leads to what is its owner's, or is root's own; also within the path."""
    needs_root()
    user, other = 1234, 4321
    for name, uid in (("theirs", user), ("others", other)):
        (tmp_path / name / "below").mkdir(parents=True)
        os.chown(tmp_path / name / "below", uid, uid)
    for name, target, uid in (
        ("good", "theirs/below", user), ("roots", f"{tmp_path}/others/below", 0),
        ("bad", f"{tmp_path}/others/below", user), ("in", "others/../others", user), ("twice", "bad", 0),
        ("round", "round", user),
    ):  # fmt: skip
        (tmp_path / name).symlink_to(target)
        os.chown(tmp_path / name, uid, uid, follow_symlinks=False)
    for name in ("good", "roots"):
        top = relabel_source.open_source(f"{tmp_path}/{name}", "z")
        assert os.fstat(top).st_uid == (user if name == "good" else other)
        os.close(top)
    for name in ("bad", "in/below", "twice"):
        with pytest.raises(SpecError, match=f"link of user {user}, which leads to .*/others/below"):
            relabel.apply(f"{tmp_path}/{name}", OWN, "Z")
    assert unlabelled(tmp_path / "others/below")
    with pytest.raises(KernelError, match="symbolic links"):
        relabel.apply(f"{tmp_path}/round", OWN, "Z")


def test_an_immutable_file_is_named(tmp_path: Path) -> None:
    needs_root()
    file = tmp_path / "below/file"
    file.parent.mkdir()
    file.touch()
    if subprocess.run(["chattr", "+i", file], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        with pytest.raises(KernelError, match=f"the SELinux label of {file}: ") as raised:
            relabel.apply(str(tmp_path), OWN, "Z")
    finally:
        subprocess.run(["chattr", "-i", file], check=True)
    assert "chattr(1)" in raised.value.hint


def test_it_is_refused_before_anything_is_made() -> None:
    options = [("Z",), ("z", "ro"), ("rprivate",)]
    mounts = [Mount(kind="bind", source="/usr", target="/x", options=one) for one in options]
    for one in mounts[:2]:
        with pytest.raises(SpecError, match="/usr"):
            relabel.check([one])
    relabel.check(mounts[2:])
    relabel.check([mounts[0].replace(source="/no/such/directory")])


def test_a_source_that_is_refused_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one that a mount before it has made; what was there already stays."""
    needs_root()
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(relabel_source, "_TREES", (str(tmp_path / "kept"),))
    sources = [tmp_path / "first/deep", tmp_path / "kept/second/deep"]
    mounts = tuple(
        Mount(kind="bind", source=str(one), target=f"/{one.parent.name}", options=("z",))
        for one in sources
    )
    record = RECORD.replace(spec=RECORD.spec.replace(mounts=mounts), mount_label=OWN)
    binds = [Bind(source=one.source, target=one.target, create=True) for one in mounts]
    relabel.volumes(record, binds[:1], fully=True)
    assert label_of(sources[0]) == SHARED
    sources[0].rmdir()
    with pytest.raises(SpecError, match="which is in"):
        relabel.volumes(record, binds, fully=True)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "first", tmp_path / "kept"]
