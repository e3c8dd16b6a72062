"""Single values of flags: what is accepted, and that what is refused is named."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pyseccomp
import pytest
from forked import in_child, needs_root

from sysbox.base.errors import SpecError, Unsupported
from sysbox.linux.capability import NAMES, mask
from sysbox.parse import common, seccomp, service, storage, time
from sysbox.parse.network import parse_add_host, parse_host_port, parse_port
from sysbox.parse.process import parse_env_file, parse_groups, parse_umask, parse_user
from sysbox.parse.security import parse_cap, parse_security_opts, parse_ulimit
from sysbox.security import capabilities
from sysbox.spec import Device, Mount, Port, Security, Ulimit

FLAG = "--flag"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1b", 1),
        ("1k", 1 << 10),
        ("128m", 128 << 20),
        ("128M", 128 << 20),
        ("128MB", 128 << 20),
        ("128MiB", 128 << 20),
        ("1.5g", 3 << 29),
        (".5k", 512),
        ("2t", 2 << 40),
        ("64 k", 64 << 10),
    ],
)
def test_size(text: str, size: int) -> None:
    assert common.parse_size(text, FLAG) == size


@pytest.mark.parametrize(
    "text", ["", "m", "-1m", "1x", "1..5m", "1,5m", "1e3", "0x10", "٣m", "1mm", "9999999p", "nan"]
)
def test_size_refused(text: str) -> None:
    with pytest.raises(SpecError, match=FLAG):
        common.parse_size(text, FLAG)


@pytest.mark.parametrize(
    ("text", "nano"), [("1", 10**9), ("1.5", 1_500_000_000), (".5", 5 * 10**8), ("0.010", 10**7)]
)
def test_cpus(text: str, nano: int) -> None:
    assert common.parse_cpus(text, FLAG) == nano


@pytest.mark.parametrize("text", ["", ".", "-1", "1.", "x", "0.0000000001", "0.001"])
def test_cpus_refused(text: str) -> None:
    with pytest.raises(SpecError):
        common.parse_cpus(text, FLAG)


def test_rate_splits_at_the_last_colon() -> None:
    path = "/dev/disk/by-path/pci-0000:00:01.0"
    assert common.parse_bytes_rate(f"{path}:1m", FLAG) == (path, 1 << 20)


@pytest.mark.parametrize("text", ["/dev/sda", "sda:1m", "/dev/sda:", "/dev/sda:0", ":1m"])
def test_rate_refused(text: str) -> None:
    with pytest.raises(SpecError):
        common.parse_bytes_rate(text, FLAG)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [Port(container_port=80)]),
        ("8080:80", [Port(container_port=80, host_port=8080)]),
        ("8080:80/udp", [Port(container_port=80, host_port=8080, protocol="udp")]),
        ("8080:80/UDP", [Port(container_port=80, host_port=8080, protocol="udp")]),
        ("127.0.0.1:8080:80", [Port(container_port=80, host_port=8080, host_ip="127.0.0.1")]),
        ("127.0.0.1::80", [Port(container_port=80, host_ip="127.0.0.1")]),
        ("0:80", [Port(container_port=80)]),  # docker's and podman's way to say so
        ("127.0.0.1:0:80/udp", [Port(container_port=80, host_ip="127.0.0.1", protocol="udp")]),
        ("[::1]:8080:80", [Port(container_port=80, host_port=8080, host_ip="::1")]),
        ("[::]:8080:80", [Port(container_port=80, host_port=8080, host_ip="::")]),
        ("[::]::80", [Port(container_port=80, host_ip="::")]),
        ("8000-8010:80", [Port(container_port=80, host_port=8000, host_last=8010)]),
        ("8000-8000:80", [Port(container_port=80, host_port=8000)]),
        (
            "127.0.0.1:8000-8010:80/sctp",
            [
                Port(
                    container_port=80,
                    host_port=8000,
                    host_last=8010,
                    host_ip="127.0.0.1",
                    protocol="sctp",
                )
            ],
        ),
        (
            "9000-9001:80-81",
            [
                Port(container_port=80, host_port=9000),
                Port(container_port=81, host_port=9001),
            ],
        ),
    ],
)
def test_port(text: str, ports: list[Port]) -> None:
    assert parse_port(text, FLAG) == tuple(ports)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0",
        "65536",
        "-1",
        "80/sctpp",
        "80/",
        "1:2:3:4",
        "1.2.3:1:1",
        "[::1]8080:80",
        "::1:1:1",
        "1-2:1-3",
        "2-1",
        "2-1:80",
        "80:1-2",
        "0:80-82",  # docker refuses it too
        "0-5:80",
        "80:0",
        "0:0",
        "1-65536:80",
        "8080:",
        "1.2.3.4:80",
        "1.2.3.4:80:",
    ],
)
def test_port_refused(text: str) -> None:
    with pytest.raises(SpecError, match=FLAG):
        parse_port(text, FLAG)


@pytest.mark.parametrize("text", ["0", "127.0.0.1:0", "0/udp", ""])
def test_unpublish_names_a_port(text: str) -> None:
    """A free port has a number once it is published: 0 would be all that have none yet."""
    with pytest.raises(SpecError, match="is not a port"):
        parse_host_port(text, FLAG)


def test_ulimit() -> None:
    assert parse_ulimit("nofile=1024", FLAG) == Ulimit(name="nofile", soft=1024, hard=1024)
    assert parse_ulimit("core=0:-1", FLAG) == Ulimit(name="core", soft=0, hard=-1)
    with pytest.raises(SpecError) as caught:
        parse_ulimit("nofil=1", FLAG)
    assert "nofile" in caught.value.hint


@pytest.mark.parametrize("text", ["nofile", "nofile=", "nofile=a", "nofile=2:1", "nofile=-1:5"])
def test_ulimit_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_ulimit(text, FLAG)


def test_env_file(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text('# comment\n\nA=1\n  B=x y="z"\nHOME\nNOT_SET_ANYWHERE\nC=\n', encoding="utf-8")
    found = parse_env_file(str(path), FLAG)
    assert found[0] == "A=1"
    assert found[1] == 'B=x y="z"'
    assert found[2].startswith("HOME=/")
    assert found[3:] == ("C=",)


@pytest.mark.parametrize("data", [b"A B=1\n", b"=1\n", b"\xff=1\n", b"A=\0\n"])
def test_env_file_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_bytes(data)
    with pytest.raises(SpecError):
        parse_env_file(str(path), FLAG)


def test_an_error_says_nothing_of_what_an_env_file_has(tmp_path: Path) -> None:
    """It goes to the journal, where a line may be a part of a password."""
    path = tmp_path / "env"
    path.write_text("A=1\n# c\nmore of the pass phrase\n")
    with pytest.raises(SpecError, match="line 3 does not begin with a variable's name") as caught:
        parse_env_file(str(path), FLAG)
    assert "phrase" not in caught.value.message


def test_env_file_is_a_directory(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Is a directory") as caught:
        parse_env_file(str(tmp_path), FLAG)
    assert caught.value.hint == "a text file, one NAME=VALUE a line"


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_no_path_at_all(path: str) -> None:
    with pytest.raises(SpecError, match="not a path"):
        parse_env_file(path, FLAG)


@pytest.mark.parametrize("text", ["sys-admin", "SYS_ADMIN", "cap_sys_admin", "CAP_SYS_ADMIN"])
def test_cap(text: str) -> None:
    assert parse_cap(text, FLAG) == "SYS_ADMIN"


def test_a_capability_that_the_kernel_lacks() -> None:
    """A filter answers as an older kernel does: EINVAL for the last one (prctl(2), PR_CAPBSET_READ)."""
    needs_root()
    lacks = NAMES[-1]

    def ask() -> list[str]:
        filter_ = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        answer, same = pyseccomp.ERRNO(errno.EINVAL), pyseccomp.EQ
        arguments = (pyseccomp.Arg(0, same, 23), pyseccomp.Arg(1, same, len(NAMES) - 1))
        filter_.add_rule(answer, "prctl", *arguments)
        filter_.load()
        said = []
        for flag in ("--cap-add", "--cap-drop"):
            assert parse_cap(NAMES[-2], flag) == NAMES[-2]
            try:
                parse_cap(lacks, flag)
            except SpecError as error:
                said += [error.message, error.hint]
        try:
            capabilities.resolve(Security(cap_add=(lacks,)))
        except Unsupported as error:
            said += [error.message, error.hint]
        assert not capabilities.resolve(Security(cap_add=("ALL",))) & mask((lacks,))
        return said

    found = in_child(ask)
    assert found[:4] == [
        f"--cap-add {lacks}: this kernel has no such capability",
        f"its last one is {NAMES[-2]}: leave out --cap-add {lacks}",
        f"--cap-drop {lacks}: this kernel has no such capability",
        f"its last one is {NAMES[-2]}: leave out --cap-drop {lacks}",
    ]
    assert found[4] == f"cannot add the capability {lacks}: this kernel does not have it"
    assert NAMES[-2] in found[5]


def test_security_opts() -> None:
    security = parse_security_opts(
        [
            "no-new-privileges",
            "seccomp=unconfined",
            "label=type:a_t",
            "label:level:s0:c1,c2",
            "label=disable",
            "unmask=/a:/b",
        ],
        FLAG,
    )
    assert security.no_new_privileges
    assert security.seccomp == "unconfined"
    assert security.label == ("type:a_t", "level:s0:c1,c2", "disable")
    assert security.unmask == ("/a", "/b")
    covers = parse_security_opts(
        [
            "mask=/a/:/b",
            "mask=/c",
            "unmask=all:/proc/*",
            "proc-opts=gid=5",
            "proc-opts=hidepid=2,gid=7",
        ],
        FLAG,
    )
    assert (covers.mask, covers.unmask) == (("/a", "/b", "/c"), ("ALL", "/proc/*"))
    assert covers.proc_options == ("hidepid=2", "gid=7")
    for value, on in (("", True), ("=1", True), (":True", True), ("=false", False), ("=0", False)):
        assert parse_security_opts([f"no-new-privileges{value}"], FLAG).no_new_privileges is on
    assert parse_security_opts(["systempaths=unconfined"], FLAG).unmask == ("ALL",)
    assert parse_security_opts(["landlock=on"], FLAG).landlock
    assert parse_security_opts(["landlock:on"], FLAG).landlock
    assert not parse_security_opts(["landlock=on", "landlock=off"], FLAG).landlock
    for name in ("unconfined", "my profile", "/usr/bin/man", "docker:x"):
        assert parse_security_opts([f"apparmor={name}"], FLAG).apparmor == name
    assert parse_security_opts(["apparmor:p"], FLAG).apparmor == "p"


def test_a_profile_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor that reads it has another working directory."""
    monkeypatch.chdir(tmp_path)
    for text in ("seccomp=./p.json", f"seccomp={tmp_path}/p.json"):
        assert parse_security_opts([text], FLAG).seccomp == f"{tmp_path}/p.json"


def test_a_profile_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The administrator's come before those of packages; a file of the working directory comes last."""
    own, packaged, here = (tmp_path / name for name in ("own", "packaged", "here"))
    for directory in (own, packaged, here):
        directory.mkdir()
        (directory / "both.json").touch()
    (packaged / "base.json").touch()
    (here / "base").touch()
    (here / "only.txt").touch()
    monkeypatch.setattr(seccomp, "DIRECTORIES", (str(own), str(packaged)))
    monkeypatch.chdir(here)

    def parsed(value: str) -> str:
        return parse_security_opts([f"seccomp={value}"], FLAG).seccomp

    assert [parsed(name) for name in ("both", "base", "builtin")] == ["both", "base", "default"]
    assert seccomp.path_of("both") == f"{own}/both.json"
    assert parsed("both.json") == f"{here}/both.json"
    assert parsed("only.txt") == f"{here}/only.txt"
    assert parsed("./base") == f"{here}/base"
    assert parsed("record:made.json") == f"record:{here}/made.json"
    assert parsed("record:/a/../b") == "record:/b"
    for wrong in ("record:", "record:a/"):
        with pytest.raises(SpecError, match="not record:FILE"):
            parsed(wrong)
    assert seccomp.names() == ("base", "both")
    for wrong, hint in (
        ("bsae", "did you mean 'base'?"),
        ("unconfind", "did you mean 'unconfined'?"),
        ("something-else", "./something-else"),
        ("x" * 4000, "put it there as xxx"),
        (".hidden", "put it there"),
        ("a\0b", "put it there"),
    ):
        with pytest.raises(SpecError, match=f"no profile of this name in {own} or") as caught:
            parsed(wrong)
        assert hint in caught.value.hint


@pytest.mark.parametrize(
    "text", ["seccomp", "apparmor", "apparmor=", "apparmor= x", "apparmor=a\nb",
             "no-new-privileges=maybe", "bogus", "mask", "mask=", "mask=a",
             "mask=/", "mask=/sys/", "mask=/a::/b", "mask=/a/./b", "mask=/\0", "unmask=a", "unmask=/[",
             "mask=/proc/*", "mask=/a:/proc/?", "mask=/proc/[ak]*", "mask=/a,/b", "unmask=/a,/b",
             "unmask=/a /b",
             "unmask=", "proc-opts=", "proc-opts=ro", "proc-opts=hidepid=3", "proc-opts=gid=-1",
             "proc-opts=hidepid=2,", "systempaths=x", "landlock", "landlock=", "landlock=yes", "label=bogus",
             "label=type", "label=type:", "label=type:a:b", "label=level:s0 c1", "label=disable:x",
             "label=file:t"],
)  # fmt: skip
def test_security_opts_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_security_opts([text], FLAG)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("landlock=yes", "landlock=on or landlock=off"),
        ("landlock=ON", "landlock=on or landlock=off"),
        ("landlock", "landlock=on or landlock=off"),
        ("seccomp=", "seccomp=default, unconfined, record:FILE"),
        ("systempaths=x", "systempaths=unconfined"),
        ("seccomp=none", "did you mean unconfined?"),
        ("seccomp=Off", "did you mean unconfined?"),
        ("seccomp=disabled", "did you mean unconfined?"),
        ("seccomp=RuntimeDefault", "did you mean default?"),
        ("seccomp=runtime/default", "did you mean default?"),
        ("seccomp=record", "did you mean record:FILE?"),
        ("seccomp=record=", "did you mean record:FILE?"),
        ("seccomp=record=/x", "did you mean record:/x?"),
        ("seccomp=Record:/x", "did you mean record:/x?"),
        ("bogus=x", "valid: "),
        ("landlok=on", "did you mean landlock=?"),
        ("AppArmor=unconfined", "did you mean apparmor=?"),
        ("seccmp:a-long-name.json", "did you mean seccomp=?"),
        ("no_new_privs", "valid: "),
        ("no-new-privilege=true", "did you mean no-new-privileges?"),
        ("mask=/proc/*", "name each path"),
        ("unmask=/proc/a,/proc/b", "colons separate paths"),
    ],
    ids=["yes", "upper", "bare", "empty", "paths", "none", "off", "disabled", "kubernetes", "slash", "record",
         "nothing", "equals", "capital", "bogus", "misspelt", "case", "long-value", "far", "singular",
         "pattern", "comma"],
)  # fmt: skip
def test_what_was_meant_by_a_security_opt(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as caught:
        parse_security_opts([text], FLAG)
    assert caught.value.hint.startswith(said)
    known = text.partition("=")[0] in ("landlock", "seccomp", "systempaths", "mask", "unmask")
    assert ("unknown option" in caught.value.message) is not known


def test_a_profile_with_the_name_of_another_tools_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("none", "runtime/default"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        assert parse_security_opts([f"seccomp={name}"], FLAG).seccomp == f"{tmp_path}/{name}"


@pytest.mark.parametrize(("text", "bits"), [("0", 0), ("22", 0o22), ("0077", 0o77), ("777", 0o777)])
def test_umask(text: str, bits: int) -> None:
    assert parse_umask(text, FLAG) == bits


@pytest.mark.parametrize("text", ["", "8", "1000", "00022", "-1", "0o22", "٢٢", " 22"])
def test_umask_refused(text: str) -> None:
    with pytest.raises(SpecError, match="not a mode"):
        parse_umask(text, FLAG)


def test_groups() -> None:
    assert parse_groups([], FLAG) == ((), None)
    assert parse_groups(["5", "adm"], FLAG) == (("5", "adm"), None)
    assert parse_groups(["keep-groups"], FLAG) == (
        ("keep-groups",),
        tuple(sorted(set(os.getgroups()))),
    )
    for texts in (["keep-groups", "5"], ["5", "keep-groups"], ["a/b"], [""]):
        with pytest.raises(SpecError):
            parse_groups(texts, FLAG)


@pytest.mark.parametrize(
    "text", ["0", "root", "1000:1000", "www-data:www-data", "a_b$", "0:adm", "a:", ":b", ":"]
)
def test_user(text: str) -> None:
    assert parse_user(text, FLAG) == text


@pytest.mark.parametrize(
    "text", ["", "::", "a::", "-1", "a b", "4294967295", "99999999999", "a/b", "1:2:3", "٣"]
)
def test_user_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_user(text, FLAG)


@pytest.mark.parametrize("text", ["", "a", "-a", "a/b", "a b", "..", ".a", "ä", "a" * 129, "a\n"])
def test_name_refused(text: str) -> None:
    with pytest.raises(SpecError):
        common.check_name(text, FLAG)


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("db:10.0.0.1", "db:10.0.0.1"),
        ("db=10.0.0.1", "db:10.0.0.1"),
        ("db:::1", "db:::1"),
        ("db:[::1]", "db:::1"),
        ("db:host-gateway", "db:host-gateway"),
    ],
)
def test_add_host(text: str, entry: str) -> None:
    assert parse_add_host(text, FLAG) == entry


@pytest.mark.parametrize(
    "text", ["db", "db:", ":1.2.3.4", "db:1.2.3", "a b:1.2.3.4", "db:1.2.3.4\n"]
)
def test_add_host_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_add_host(text, FLAG)


@pytest.mark.parametrize("text", ["container:", "ns:relative", "bogus", "container", ""])
def test_mode_refused(text: str) -> None:
    with pytest.raises(SpecError):
        common.parse_mode(text, FLAG, ("host", "private"))


@pytest.mark.parametrize("text", ["0", "0-2,5", "1,3,5"])
def test_cpuset(text: str) -> None:
    assert common.parse_cpuset(text, FLAG) == text


@pytest.mark.parametrize("text", ["a", "2-1", "1,", "-1", "1-", "1-2-3"])
def test_cpuset_refused(text: str) -> None:
    with pytest.raises(SpecError):
        common.parse_cpuset(text, FLAG)


def bind(source: str, target: str, **more: object) -> Mount:
    return Mount(kind="bind", source=source, target=target, create=True).replace(**more)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a:/b", bind("/a", "/b")),
        ("/a/../c:/b/./d/", bind("/c", "/b/d")),
        ("/a:/b:ro", bind("/a", "/b", read_only=True)),
        ("/a:/b:ro,rslave,z", bind("/a", "/b", read_only=True, options=("rslave", "z"))),
        ("/a:/b:bind", bind("/a", "/b", recursive=False)),
        ("vol:/b", Mount(kind="volume", source="vol", target="/b")),
        ("vol:/b:nocopy", Mount(kind="volume", source="vol", target="/b", copy_up=False)),
        ("/b", Mount(kind="volume", target="/b")),
    ],
)
def test_volume(text: str, mount: Mount) -> None:
    assert storage.parse_mount_v(text, FLAG) == mount


def test_volume_takes_a_relative_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.parse_mount_v("./x:/b", FLAG).source == f"{tmp_path}/x"


@pytest.mark.parametrize(
    "text",
    ["", ":", "/a:", ":/b", "/a:b", "a/b:/c", "/a:/", "/a:/..", "/a:/b:rw,bogus", "/a:/b:c:d"],
)
def test_volume_refused(text: str) -> None:
    with pytest.raises(SpecError):
        storage.parse_mount_v(text, FLAG)


def test_mount() -> None:
    parse = storage.parse_mount
    assert parse("type=bind,src=/a,dst=/b,ro", FLAG) == Mount(
        kind="bind", source="/a", target="/b", read_only=True
    )
    assert parse('type=bind,"src=/a,b",target=/b,bind-propagation=rslave', FLAG) == Mount(
        kind="bind", source="/a,b", target="/b", options=("rslave",)
    )
    assert parse("source=vol,destination=/b,readonly=false", FLAG) == Mount(
        kind="volume", source="vol", target="/b"
    )
    tmpfs = parse("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770", FLAG)
    assert tmpfs.options[-2:] == ("size=1048576", "mode=1770")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "type=bind,dst=/b",
        "type=bind,src=/a",
        "type=nfs,src=/a,dst=/b",
        "type=tmpfs,src=/a,dst=/b",
        "type=bind,src=/a,dst=/b,tmpfs-size=1m",
        "type=bind,src=/a,dst=/b,bogus=1",
        "type=bind,src=/a,src=/c,dst=/b",
        "type=bind,src=/a,dst=/b,ro=maybe",
        "type=bind,src,dst=/b",
        "type=tmpfs,dst=/b,tmpfs-mode=999",
        '"type=bind',
        "src=../x,dst=/b",
    ],
)
def test_mount_refused(text: str) -> None:
    with pytest.raises(SpecError):
        storage.parse_mount(text, FLAG)


def test_mount_with_quotes() -> None:
    """As encoding/csv reads it: a quoted field may have commas, and quotes doubled."""
    parse = storage.parse_mount
    mount = parse('type=bind,"src=/a, ""b"",c",dst=/d', FLAG)
    assert mount.source == '/a, "b",c'
    assert parse('"dst=/d","src=vv"', FLAG).source == "vv"
    for text in ('"dst=/d', '"dst=/d"x', '"dst=/d""', '"src=a"b",dst=/d'):
        with pytest.raises(SpecError, match="unbalanced quote"):
            parse(text, FLAG)


def test_a_relative_path_is_no_volume() -> None:
    with pytest.raises(SpecError) as caught:
        storage.parse_mount_v("relative/dir:/b", FLAG)
    assert caught.value.hint == "for a host path write ./relative/dir"


def test_tmpfs_with_access_times_and_huge_pages() -> None:
    parse = storage.parse_tmpfs
    assert {"noatime", "huge=within_size"} <= set(
        parse("/t:noatime,huge=within_size", FLAG).options
    )
    with pytest.raises(SpecError, match="not a mode of huge="):
        parse("/t:huge=yes", FLAG)


def test_tmpfs() -> None:
    parse = storage.parse_tmpfs
    assert parse("/run", FLAG).options == ("nosuid", "nodev", "noexec")
    mount = parse("/run:ro,exec,size=64m,mode=755", FLAG)
    assert mount.read_only
    assert set(mount.options) == {"nosuid", "nodev", "exec", "size=67108864", "mode=755"}
    with pytest.raises(SpecError):
        parse("/run:size=x", FLAG)


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("/dev/fuse", Device(source="/dev/fuse", target="/dev/fuse")),
        ("/dev/fuse:r", Device(source="/dev/fuse", target="/dev/fuse", access="r")),
        ("/dev/a:/dev/b", Device(source="/dev/a", target="/dev/b")),
        ("/dev/a:/dev/b:rw", Device(source="/dev/a", target="/dev/b", access="rw")),
    ],
)
def test_device(text: str, device: Device) -> None:
    assert storage.parse_device(text, FLAG) == device


@pytest.mark.parametrize(
    "text", ["", "fuse", "/dev/a:x", "/dev/a:/dev/b:rr", "/a:/b:r:w", "/dev/a:"]
)
def test_device_refused(text: str) -> None:
    with pytest.raises(SpecError):
        storage.parse_device(text, FLAG)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10", 10),
        ("90s", 90),
        ("1m30s", 90),
        ("1h2m3s", 3723),
        ("1.5h", 5400),
        ("1min 30s", 90),
        ("2 days", 172800),
        ("500ms", 0.5),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert time.parse_duration(text, FLAG) == int(seconds * 10**6)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1y", "1 fortnight", "1.2.3s", "abc", "."])
def test_duration_refused(text: str) -> None:
    with pytest.raises(SpecError):
        time.parse_duration(text, FLAG)


@pytest.mark.parametrize(
    ("text", "offsets"),
    [
        ("boottime=1h", {"boottime": 3600 * 10**9}),
        ("monotonic=-1.5s,boottime=+2d", {"monotonic": -15 * 10**8, "boottime": 2 * 86400 * 10**9}),
        ("monotonic=0", {"monotonic": 0}),
        ("boottime=-36525d", {"boottime": -36525 * 86400 * 10**9}),
    ],
)
def test_time_offset(text: str, offsets: dict[str, int]) -> None:
    assert time.parse_time_offset(text, FLAG) == offsets


@pytest.mark.parametrize(
    "text",
    ["", "1h", "boottime", "boottime=", "boottime=-", "boottime=--1s", "boottime=+-1s", "boottime=1s,",
     "realtime=1s", "boottime=1s,boottime=1s", "boottime=36526d", "boottime=1s monotonic=1s"],
)  # fmt: skip
def test_time_offset_refused(text: str) -> None:
    with pytest.raises(SpecError) as raised:
        time.parse_time_offset(text, FLAG)
    assert FLAG in raised.value.message


def test_moment() -> None:
    parse = time.parse_moment
    assert parse("1700000000.5", FLAG, 0.0) == 1700000000.5
    assert parse("2023-11-14T22:13:20Z", FLAG, 0.0) == 1700000000.0
    assert parse("2023-11-14T23:13:20+01:00", FLAG, 0.0) == 1700000000.0
    assert parse("10m", FLAG, 1000.0) == 400.0
    with pytest.raises(SpecError):
        parse("2023-99-14T22:13:20Z", FLAG, 0.0)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigterm", 15),
        ("15", 15),
        ("RTMIN+3", 37),
        ("SIGRTMAX-1", 63),
    ],
)
def test_signal(text: str, number: int) -> None:
    assert time.parse_signal(text, FLAG) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "65",
        "FOO",
        "TERM+1",
        "RTMIN+99",
        "RTMIN+",
        "_BLOCK",
        "-9",
        "SIG_DFL",
        "99999",
        "\u017fIGTERM",
        "\u0661",
    ],
)
def test_signal_refused(text: str) -> None:
    with pytest.raises(SpecError):
        time.parse_signal(text, FLAG)


@pytest.mark.parametrize(
    "parse",
    [
        common.parse_size,
        parse_port,
        parse_ulimit,
        parse_cap,
        storage.parse_mount,
        storage.parse_mount_v,
        time.parse_signal,
    ],
)
def test_an_error_names_the_flag(parse: Callable[[str, str], object]) -> None:
    with pytest.raises(SpecError) as caught:
        parse("!?", FLAG)
    assert caught.value.message.startswith(f"{FLAG} !?: ")
    assert caught.value.status == 125


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("test -e /x", ("/bin/sh", "-c", "test -e /x")),
        ("CMD-SHELL wget -q x || exit 1", ("/bin/sh", "-c", "wget -q x || exit 1")),
        ("CMD /agent health", ("/agent", "health")),
        ('["CMD", "/a b", "c"]', ("/a b", "c")),
        ('["CMD-SHELL", "a | b"]', ("/bin/sh", "-c", "a | b")),
        ('["a", "b"]', ("a", "b")),
        ("[ -e /run/up ]", ("/bin/sh", "-c", "[ -e /run/up ]")),
    ],
)
def test_the_forms_of_a_health_check(text: str, words: tuple[str, ...]) -> None:
    assert service.parse_health({"cmd": text}, disabled=False).command == words


def test_a_health_check_without_a_command() -> None:
    for text in ("CMD", "CMD-SHELL ", "[]"):
        with pytest.raises(SpecError, match="no command"):
            service.parse_health({"cmd": text}, disabled=False)
