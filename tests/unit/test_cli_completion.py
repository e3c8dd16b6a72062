"""What the shells are offered: every verb, every flag, and the names that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete, get_completion_class

from sysbox.cli.parse import cold
from sysbox.cli.table.options import arguments
from sysbox.cli.table.verbs import GROUPS, VERBS, options_of
from sysbox.fs import volumes
from sysbox.image.store import Store


def offered(line: str) -> list[str]:
    """What completes the last word of a line: values, `file` for whatever file there is."""
    *words, incomplete = line.split(" ")
    shell = ShellComplete(cold.root(), {}, "sysbox", cold.COMPLETE_VARIABLE)
    found = shell.get_completions(words, incomplete)
    return sorted("(files)" if item.type == "file" else item.value for item in found)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two containers, and a volume."""
    for name, identity in {"web": "a", "worker": "b"}.items():
        (tmp_path / "names").mkdir(exist_ok=True)
        (tmp_path / "names" / name).symlink_to(identity * 64)
    (tmp_path / "volumes/data/_data").mkdir(parents=True)
    monkeypatch.setattr("sysbox.container.names.NAMES", str(tmp_path / "names"))
    monkeypatch.setattr(volumes, "VOLUMES", str(tmp_path / "volumes"))
    empty = Store(str(tmp_path / "images"))
    monkeypatch.setattr("sysbox.image.store.Store", lambda: empty)


def test_installed_units_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSBOX_HOST", "system")
    monkeypatch.setattr("sysbox.lifecycle.unit.DIRECTORY", str(tmp_path))
    (tmp_path / "other.service").write_text("[Service]\nExecStart=x\n")
    made = "[Unit]\nSourcePath=/x/web.container\n\n[X-Sysbox]\nDigest=0\n"
    (tmp_path / "web.service").write_text(made)
    assert offered("unit uninstall ") == offered("unit cat w") == ["web.service"]


def test_profiles_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "web.json").touch()
    monkeypatch.setattr("sysbox.parse.seccomp.DIRECTORIES", (str(tmp_path), str(tmp_path / "none")))
    assert offered("run --security-opt seccomp=") == ["seccomp=", "seccomp=record:", "seccomp=web"]


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_offered(name: str) -> None:
    group, _, verb = name.rpartition(" ")
    assert verb in offered(f"{group} ".lstrip() + verb[:1])


def test_the_groups_are_offered() -> None:
    assert {group for group in GROUPS if " " not in group} <= set(offered(""))


@pytest.mark.parametrize("name", sorted({verb.name for verb in VERBS.values()}))
def test_every_flag_is_offered(name: str) -> None:
    flags = {flag for option in options_of(VERBS[name]) for flag in option.names}
    assert {flag for flag in flags if flag.startswith("--")} <= set(offered(f"{name} --"))


@pytest.mark.parametrize("name", sorted({verb.name for verb in VERBS.values()}))
def test_every_choice_is_offered(name: str) -> None:
    for option in options_of(VERBS[name]):
        if option.choices:
            assert offered(f"{name} {option.names[-1]} ") == sorted(option.choices)


FILTERED = sorted(
    {
        verb.name
        for verb in VERBS.values()
        for option in options_of(verb)
        if option.names[-1] == "--filter" and option.metavar == "KEY=VALUE"
    }
)


@pytest.mark.parametrize("name", FILTERED)
def test_every_key_of_a_filter_is_offered(name: str) -> None:
    found = offered(f"{name} --filter ")
    assert "label=" in found
    assert all(re.fullmatch(r"[a-z-]+!?=", key) for key in found), found


def test_a_key_of_a_filter() -> None:
    assert offered("ps -f st") == ["status="]
    assert offered("ps --filter status=") == ["status="]


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    "name",
    sorted({verb.name for verb in VERBS.values() if verb.args.startswith("CONTAINER")}),
)
def test_containers_are_offered(name: str) -> None:
    assert arguments(VERBS[name])[0].name == "CONTAINER"
    assert offered(f"{name} w") == ["web", "worker"]


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("rm web ", ["worker"]),  # one of them is enough
        ("cp w", ["(files)", "web:", "worker:"]),
        ("inspect ", ["host", "web", "worker"]),
        ("run -d ", ["host"]),
        ("rename web ", []),
        ("volume rm ", ["data"]),
        ("run -v da", ["(files)", "data"]),
        ("run --cidfile ", ["(files)"]),
        ("import ", ["(files)"]),
        ("explain web memory-m", ["memory-min"]),
        ("kill -s KI", ["KILL"]),
        ("run --cap-drop A", ["ALL", "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE"]),
        ("completion ", ["bash", "fish", "zsh"]),
        ("help ren", ["rename"]),
        ("help net", ["network"]),
        ("help network con", ["connect"]),
        ("help rename ", []),
        ("run host w", []),  # the command's words are nobody's
    ],
)
def test_values(line: str, wanted: list[str]) -> None:
    assert offered(line) == wanted


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    ("shell", "line"),
    [("bash", "plain,web"), ("zsh", "plain\nweb\n_"), ("fish", "plain,web")],
)
def test_each_shell_gets_its_format(shell: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # fish gives the word itself, the others its number
    monkeypatch.setenv("COMP_WORDS", "sysbox stop we")
    monkeypatch.setenv("COMP_CWORD", "we" if shell == "fish" else "2")
    kind = get_completion_class(shell)
    assert kind
    assert kind(cold.root(), {}, "sysbox", cold.COMPLETE_VARIABLE).complete().strip() == line


def test_names_of_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSBOX_HOST", "embedded:other")
    monkeypatch.setattr("sysbox.embedded.state.sysbox_directory", lambda _: str(tmp_path))
    assert offered("volume rm ") == offered("secret rm ") == offered("pod rm ") == []
    for kind, name in {"volumes": "data", "secrets": "key.json", "pods": "shop"}.items():
        (tmp_path / kind).mkdir()
        (tmp_path / kind / ".lock").touch()
        (tmp_path / kind / name).touch()
    assert offered("volume rm ") == ["data"]
    assert offered("secret rm ") == ["key"]
    assert offered("pod rm ") == ["shop"]
