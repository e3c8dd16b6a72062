"""`sysbox unit check`: every error of a file, with line and column, and none that follows from another."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysbox.base.errors import FormatError
from sysbox.cli import unit_errors
from sysbox.lifecycle import unit_files
from sysbox.linux import lsm


def said(path: Path, text: str) -> list[str]:
    """What is said of a declaration, without its path."""
    path.write_text(text)
    (chosen,) = unit_files.chosen([str(path)])
    found = [
        error for one in chosen.services() for error in unit_errors.errors_of(one, chosen.declared)
    ]
    return [one.message.replace(f"{path}:", "") for one in found]


def test_every_error_with_its_line_and_column(tmp_path: Path) -> None:
    text = """[Container]
Image=x
Imagee=y
PublishPort=80:80
PublishPort=99999:1
no equals sign
Network=back.network
  Memory = lots
User=a b
Environment=A=1 \\
  B="2
[Sevice]
Restart=always
[Container]
PodmanArgs=--init --no-such
"""
    found = said(tmp_path / "web.container", text)
    assert [one.partition(": ")[0] for one in found] == [
        "3:1", "5:13", "6:1", "7:9", "8:12", "9:6", "10:13", "12:1", "15:19",
    ], found  # fmt: skip
    assert "has no '='" in found[2]
    assert "no section [Sevice]" in found[-2]
    assert "PodmanArgs=: `sysbox run` has no flag --no-such" in found[-1]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("[Container]\nImag=x\n", ["2:1"]),  # it is what was meant: nothing is missing
        ("[Container]\nImag=x\nImag=y\nUser=a b\n", ["2:1", "3:1", "4:6"]),
        ("[Contianer]\nImage=x\nUser=a b\n", ["1:1", "3:6"]),
        ("[Container]\nUser=a b\n", ["", "2:6"]),
        ("[Container]\nImage=x\nListenStream=no\nProxyPort=80\nIdleStop=9\n", ["3:14"]),
        ("[Container]\nImage=x\nRemapUsers=what\nRemapUid=0:0:1\n", ["3:12"]),
        ("[Container]\nImage=none.image\nMemory=lots\n", ["2:7", "3:8"]),
        ("[Container]\nRootfs=/r\nMemory=lots\n", ["2:8", "3:8"]),
        ("[Container]\nImage x\nMemory=lots\n", ["2:1", "3:8"]),
        ("", [""]),
    ],
    ids=["key", "keys", "section", "no image", "socket", "remap", "reference", "rootfs", "line", "empty"],
)  # fmt: skip
def test_what_follows_from_another_error_is_none(
    tmp_path: Path, text: str, places: list[str]
) -> None:
    found = said(tmp_path / "web.container", text)
    assert [one.partition(": ")[0] if one[:1].isdigit() else "" for one in found] == places, found


def test_a_network_without_its_subnet_has_no_other_error(tmp_path: Path) -> None:
    found = said(
        tmp_path / "a.network", "[Network]\nSubnet=10.8.0.0/33\nGateway=10.8.0.1\nNope=1\n"
    )
    assert [one.partition(": ")[0] for one in found] == ["2:8", "4:1"], found


def test_errors_of_drop_ins_and_of_a_socket_file(tmp_path: Path) -> None:
    drop_in = tmp_path / "web.container.d" / "10.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Container]\nMemory=lots\nNope=1\n")
    socket = tmp_path / "web.socket"
    socket.write_text("[Socket]\nListenStream=80\nAccept=yes\nService=web.container\n")
    found = said(tmp_path / "web.container", "[Container]\nImage=x\n")
    assert [one.partition(": ")[0] for one in found] == [
        f"{drop_in}:2:8",
        f"{drop_in}:3:1",
        f"{socket}:3:8",
    ], found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SeccompProfile=word", "3:16: SeccompProfile=: word: no profile of this name in "),
        ("SeccompProfile=./none.json", "3:16: SeccompProfile=: {}/none.json: No such file"),
        ("SeccompProfile=./bad.json", "3:16: SeccompProfile=: {}/bad.json: "),
        ("SeccompProfile=record:no/r.json", "3:16: SeccompProfile=: record:{}/no/r.json: its directory: "),
        ("Mask=/a /dev\nMask=/b", "3:9: Mask=: /dev: /dev cannot be masked"),
        ("Mask=/proc/kcore\nUnmask=rel", "4:8: Unmask=: rel: "),
        ("AppArmor=nothere", "3:10: AppArmor=: nothere: "),
        ("SecurityLabelType=a b", "3:19: SecurityLabelType=: a b: "),
        ("PodmanArgs=--security-opt=seccomp=word", "--security-opt seccomp=word: no profile"),
    ],
    ids=["word", "no file", "broken", "record", "mask", "unmask", "apparmor", "label", "podman args"],
)  # fmt: skip
def test_protection_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    """A service starts elsewhere: ./word of the caller's directory is not what it would find."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "word").write_text("{}")
    (tmp_path / "bad.json").write_text("{")
    found = said(tmp_path / "web.container", f"[Container]\nImage=x\n{text}\n")
    assert len(found) == 1
    assert expected.format(tmp_path) in found[0].removeprefix(f"{tmp_path}/web.container: ")


def test_a_label_where_selinux_is_off(tmp_path: Path) -> None:
    """Its service would not start."""
    file, text = tmp_path / "web.container", "[Container]\nImage=x\n"
    found = said(file, f"{text}SecurityLabelType=container_t\n")
    expected = "3:19: SecurityLabelType=: container_t: SELinux is not enabled on this host"
    assert [one.partition("\n")[0] for one in found] == [expected] * (not lsm.has_selinux())
    assert said(file, f"{text}SecurityLabelDisable=yes\n") == []


def test_profiles_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "100%$x").mkdir()
    (tmp_path / "100%$x" / "s.json").write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    for value in ("./s.json", "record:r.json", "record:./r.json", "unconfined", "%h/nowhere.json"):
        text = f"[Container]\nImage=x\nSeccompProfile={value}\n"
        assert said(tmp_path / "100%$x" / "web.container", text) == []


def test_there_is_an_end(tmp_path: Path) -> None:
    lines = "no equals sign\n" * 60_000
    assert len(said(tmp_path / "web.container", f"[Container]\nImage=x\n{lines}")) == 50
    assert len(said(tmp_path / "web.container", "[Container]\nImage=x\n" + "Nope=1\n" * 60)) == 50


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "web.container"
    path.symlink_to(tmp_path / "nowhere")
    (chosen,) = unit_files.chosen([str(path)])
    (service,) = chosen.services()
    (error,) = unit_errors.errors_of(service, chosen.declared)
    assert "No such file" in error.message


def test_directories_and_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no declaration is in this directory"):
        unit_files.chosen([str(tmp_path)])
    with pytest.raises(FormatError, match="-: not the name of a declaration") as raised:
        unit_files.chosen(["-"])
    assert "write it to one" in raised.value.hint
    for name in ("b.volume", "a.container", "notes.txt"):
        (tmp_path / name).write_text("[Container]\nImage=x\n" if name[0] == "a" else "[Volume]\n")
    made = unit_files.made([f"{tmp_path}/./"])
    assert [(one.unit, one.source.path) for one in made] == [
        ("a.service", f"{tmp_path}/a.container"),
        ("b-volume.service", f"{tmp_path}/b.volume"),
    ]
    with pytest.raises(FormatError, match="not the name of a declaration") as raised:
        unit_files.chosen(["web.contianer"])
    assert raised.value.hint == "did you mean .container?"
