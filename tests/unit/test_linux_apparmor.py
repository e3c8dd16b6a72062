"""AppArmor's files: the kernel's list, the profile of a process, what is tried where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import hostfacts
import pytest
from forked import in_child, needs_root

from sysbox.base import paths
from sysbox.base.errors import Unsupported
from sysbox.cli.doctor import apparmor as doctor
from sysbox.linux import apparmor, lsm
from sysbox.linux.namespace import CLONE_NEWUSER
from sysbox.run import apparmor as loader
from sysbox.security.apparmor import DEFAULT, NOT_ACTIVE


def test_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may have spaces and parentheses; the mode comes last."""
    file = tmp_path / "profiles"
    monkeypatch.setattr(apparmor, "LIST", str(file))
    assert apparmor.loaded() == {}
    file.write_text(
        "a//b (enforce)\nmy (old) one (complain)\n/usr/bin/man (enforce)\n", encoding="ascii"
    )
    assert apparmor.loaded() == {
        "a//b": "enforce", "my (old) one": "complain", "/usr/bin/man": "enforce"
    }  # fmt: skip


def test_the_profile_of_a_process() -> None:
    """Of a process without one, or where there is no AppArmor, or no such process."""
    expected = "unconfined" if lsm.has_apparmor() else ""
    assert apparmor.profile_of(os.getpid()) == expected
    assert apparmor.profile_of((1 << 22) + 1) == ""


def test_what_a_host_can_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel's list cannot be read nothing can be given, and it says how it could."""
    facts = hostfacts.facts()
    assert loader.look(facts).lack == NOT_ACTIVE
    there = facts.replace(apparmor=True)
    monkeypatch.setattr(apparmor, "LIST", str(tmp_path / "profiles"))
    assert "cannot be read" in loader.look(there).lack
    (tmp_path / "profiles").write_text("mine (enforce)\n", encoding="ascii")
    assert loader.look(there, "mine").loaded == ("mine",)
    # nobody needs to know what else is loaded, where the parser can load the default
    assert loader.look(there).loaded == (() if loader.has_parser() else ("mine",))


def test_in_a_container_no_profile_is_given() -> None:
    there = hostfacts.facts().replace(apparmor=True)
    assert "this is a container" in in_child(lambda: loader.look(there).lack, CLONE_NEWUSER)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("cat >/dev/null; echo error at line 1 >&2; exit 1", "error at line 1"),
        ("exec sleep 1000", "it did not end within 0.1 seconds"),
        ("sleep 1000 & wait", "it did not end within 0.1 seconds"),
        ("exit 3", "exit status 3"),
    ],
    ids=["wrong", "hangs", "child-hangs", "silent"],
)
def test_a_parser_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    """One line, which names the file with the administrator's rules; nothing is noted as loaded."""
    parser = tmp_path / "parser"
    parser.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    parser.chmod(0o755)
    (tmp_path / "local").mkdir()
    for name, value in (
        ("PARSER", str(parser)), ("MARKS", str(tmp_path / "marks")), ("_LOCAL", str(tmp_path / "local")),
    ):  # fmt: skip
        monkeypatch.setattr(loader, name, value)
    if "sleep" in script:
        monkeypatch.setattr(loader, "_PATIENCE", "0.1")
    for rules in (False, True):
        if rules:
            (tmp_path / "local" / DEFAULT).touch()
        with pytest.raises(Unsupported) as caught:
            loader.ensure(DEFAULT)
        assert f"could not load the profile {DEFAULT}: {said}" in caught.value.message
        assert (f"look at {tmp_path}/local/{DEFAULT}" in caught.value.hint) is rules
    assert loader._marked(DEFAULT) == ""


@pytest.mark.parametrize(
    ("rules", "without"),
    [(None, True), ("deny /srv/** w,", True), ("deny network inet dgram,", False), ("/", False)],
    ids=["none", "files", "network", "directory"],
)
def test_what_the_profile_is_compiled_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rules: str | None, without: bool
) -> None:
    """The parser's description without sockets; the whole of it where the administrator's rules need it."""
    parser = tmp_path / "parser"
    parser.write_text(f"#!/bin/sh\ncat >{tmp_path}/given\n", encoding="ascii")
    parser.chmod(0o755)
    for name in ("abi", "local"):
        (tmp_path / name).mkdir()
    (tmp_path / "abi" / "3.0").write_text(
        "dbus {mask {send\n}\n}\nnetwork_v8 {af_mask {inet\n}\n}\n", encoding="ascii"
    )
    yours = tmp_path / "local" / DEFAULT
    if rules == "/":
        yours.mkdir()
    elif rules:
        yours.write_text(rules, encoding="ascii")
    for name, value in (
        ("PARSER", "parser"), ("MARKS", "marks"), ("_LOCAL", "local"), ("_ABIS", "abi"),
    ):  # fmt: skip
        monkeypatch.setattr(loader, name, str(tmp_path / value))
    loader.ensure(DEFAULT)
    first = (tmp_path / "given").read_text(encoding="ascii").split("\n", 1)[0]
    made = tmp_path / "marks" / "abi-3.0"
    assert first == (f'abi "{made}",' if without else "abi <abi/3.0>,")
    if without:
        assert made.read_text(encoding="ascii").split() == ["dbus", "{mask", "{send", "}", "}"]
    assert loader._marked(DEFAULT) == str(loader.VERSION)


def test_doctor_of_an_ordinary_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not read the records still gets all other checks."""
    needs_root()
    monkeypatch.setattr(paths, "CONTAINERS", str(tmp_path / "containers"))
    (tmp_path / "containers").mkdir(mode=0o700)

    def ask() -> tuple[str, str]:
        os.seteuid(65534)
        return doctor._not_in_force({})

    assert in_child(ask) == ("", "")


def test_a_mark_is_of_one_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, and with that of another version, a profile that is in the kernel is loaded anew."""
    monkeypatch.setattr(loader, "MARKS", str(tmp_path / "marks"))
    assert loader._marked(DEFAULT) == ""
    for version in (1, 2):
        monkeypatch.setattr(loader, "VERSION", version)
        (tmp_path / "marks").mkdir(exist_ok=True)
        (tmp_path / "marks" / f"{DEFAULT}.{os.getpid()}").symlink_to("of a start that was killed")
        loader._mark(DEFAULT)
        assert loader._marked(DEFAULT) == str(version)
    assert os.listdir(tmp_path / "marks") == [DEFAULT]
