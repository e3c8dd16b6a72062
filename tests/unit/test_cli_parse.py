"""The hot parser against docker's conventions, and against click, which parses what it leaves."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from sysbox.base.errors import UsageError
from sysbox.cli.parse import cold, later
from sysbox.cli.parse import hot as hotparse
from sysbox.cli.parse.cold import Command, did_you_mean, root
from sysbox.cli.parse.hot import Fallback
from sysbox.cli.table.options import arguments
from sysbox.cli.table.verbs import GROUPS, OPTIONS, VERBS, options_of

RUN = VERBS["run"]
CLI = Path(hotparse.__file__).parents[1]


def parse(*words: str) -> hotparse.Values:
    return hotparse.parse(RUN, list(words))


def test_clusters_and_values() -> None:
    values = parse(
        "-it", "-m128m", "-c", "512", "--rm", "--memory-swap=1g", "img", "cmd", "-x", "--rm"
    )
    assert values.interactive
    assert values.tty
    assert values.rm
    assert values.memory == "128m"
    assert values.memory_swap == "1g"
    assert values.cpu_shares == "512"
    assert values.image == "img"
    assert values.command == ["cmd", "-x", "--rm"]
    assert values.detach is False
    assert values.env == []
    assert values.name is None


@pytest.mark.parametrize(
    ("words", "dest", "value"),
    [
        (["-e", "A=1", "-eB=2", "--env=C", "--env", "D"], "env", ["A=1", "B=2", "C", "D"]),
        (["--rm=true"], "rm", True),
        (["--rm", "--rm=false"], "rm", False),
        (["-t=false"], "tty", False),
        (["-itd"], "detach", True),
        (["-itu", "root"], "user", "root"),
        (["-ituroot"], "user", "root"),
        (["-u=root"], "user", "root"),
        (["--name="], "name", ""),
        (["--net", "none"], "network", ["none"]),
        (["--cpuset=0,1"], "cpuset_cpus", "0,1"),
        (["-h", "box"], "hostname", "box"),
        (["-e", "--rm"], "env", ["--rm"]),
    ],
)
def test_flags(words: list[str], dest: str, value: object) -> None:
    assert getattr(parse(*words, "img"), dest) == value


@pytest.mark.parametrize(
    ("words", "pull", "context"),
    [
        (["--pull", "."], "always", "."),
        (["--pull=never", "."], "never", "."),
        (["."], None, "."),
        (["--pull", "--no-cache", "-t", "x", "dir"], "always", "dir"),
    ],
    ids=["bare", "given", "absent", "flags after it"],
)
def test_a_value_that_may_be_left_out(words: list[str], pull: str | None, context: str) -> None:
    """docker's --pull is a switch, podman's has a value only behind `=`."""
    values = hotparse.parse(VERBS["build"], words)
    assert (values.pull, values.context) == (pull, context)
    command = Command(VERBS["build"], "build")
    assert command._plain_switches(["--pull", "."]) == ["--pull=always", "."]


def test_double_dash() -> None:
    assert parse("--rm", "--", "img", "-x").command == ["-x"]
    assert parse("img", "--", "-x").command == ["--", "-x"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--rm"],
        ["--help"],
        ["--bogus", "img"],
        ["--memor", "1m", "img"],
        ["-z", "img"],
        ["--rm=maybe", "img"],
        ["-e"],
        ["--name"],
    ],
)
def test_fallback(words: list[str]) -> None:
    with pytest.raises(Fallback):
        parse(*words)


def test_options_may_follow_arguments_elsewhere() -> None:
    values = hotparse.parse(VERBS["rm"], ["a", "-f", "b", "--", "-c"])
    assert values.force
    assert values.container == ["a", "b", "-c"]
    with pytest.raises(Fallback):
        hotparse.parse(VERBS["logs"], ["a", "b"])
    assert hotparse.parse(VERBS["port"], ["a"]).port is None


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_verb_is_consistent(name: str) -> None:
    verb = VERBS[name]
    assert verb.options in OPTIONS
    names: list[str] = []
    for option in options_of(verb):
        names += option.names + option.hidden
        assert option.help, option
        assert not option.help.removesuffix("...").endswith(".")
        assert option.dest.isidentifier()
    assert len(set(names)) == len(names), "a flag is there twice"
    dests = [option.dest for option in options_of(verb)]
    dests += [argument.dest for argument in arguments(verb)]
    assert len(set(dests)) == len(dests)
    assert Command(verb, name.rpartition(" ")[2]).name


@pytest.mark.parametrize("name", sorted({verb.name for verb in VERBS.values()}))
def test_no_flag_is_accepted_and_ignored(name: str) -> None:
    verb = VERBS[name]
    files = [f"commands/{verb.module}"]
    files += {
        "run": ["request/spec", "request/health", "request/limits", "request/networks", "pulling"],
        "create": [
            "request/spec",
            "request/health",
            "request/limits",
            "request/networks",
            "pulling",
        ],
        "pod create": ["request/pod", "request/spec", "request/limits", "request/networks"],
        "update": ["request/limits"],
        "restart": ["commands/stop"],
        "pod logs": ["commands/logs"],
        "build": [
            f"request/{one}"
            for one in ("build", "build_output", "limits", "networks", "registries")
        ],
        **{one: ["commands/stop"] for one in ("pod rm", "pod stop")},
        **{one: ["each", "commands/stop"] for one in ("kill", "rm", "stop")},
        **{one: ["request/registries"] for one in ("login", "manifest inspect", "pull", "push")},
    }.get(name, [])
    text = "".join((CLI / f"{file}.py").read_text(encoding="utf-8") for file in files)
    # docker's, which say nothing here: every image is always shown, and policy.json has the say
    trust = {"disable_content_trust"}
    ignored = {
        "build": {"builder", "compress", "force_rm", "layers", "rm"},
        "images": {"all"},
        "network create": {"attachable"},
        "pod create": {"infra"},
        "pull": trust,
        "push": trust,
    }.get(name, set())
    for option in options_of(verb):
        spellings = (f"values.{option.dest}", f"given.{option.dest}", f'given["{option.dest}"]')
        spellings += (f'"{option.dest}": "',)  # in a table of fields
        used = any(spelling in text for spelling in spellings)
        if option.dest.startswith("health_"):  # taken together, by a list of their last words
            used = f'"{option.dest.removeprefix("health_")}"' in text
        assert used != (option.dest in ignored), option.names


def test_groups_repeat_the_verbs() -> None:
    for verb in ("run", "create", "ps", "rm", "exec", "inspect", "logs"):
        assert VERBS[f"container {verb}"] is VERBS[verb]
    for spelling in ("container ls", "container list", "container ps"):
        assert VERBS[spelling] is VERBS["ps"]
    assert VERBS["image rm"] is VERBS["rmi"]
    assert {name.rpartition(" ")[0] for name in VERBS if " " in name} == set(GROUPS)


LINES = (
    ["--rm", "-it", "-m", "128m", "img"],
    ["--name=x", "-e", "A=1", "-e", "B=2", "img", "sh", "-c", "echo"],
    ["-dp", "8080:80", "--label", "a=b", "img"],
    ["--cpuset", "0", "-uroot", "--", "img", "-x"],
)


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_click_and_the_hot_parser_agree(words: list[str]) -> None:
    hot = vars(parse(*words))
    command = Command(RUN, "run")
    context = click.Context(command, info_name="run", **command.context_settings)
    click.Command.parse_args(command, context, list(words))
    given = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in context.params.items()
        if name != "help"
    }
    assert given == {name: value for name, value in hot.items() if name != "verb"}


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--memroy", "--memory"),
        ("--mem", ""),
        ("--bogus", ""),
        ("--nmae", "--name"),
        ("--network-alais", "--network-alias"),
        ("--runtime", ""),
        ("--env-fil", "--env-file"),
    ],
)
def test_did_you_mean(word: str, meant: str) -> None:
    known = [name for option in options_of(RUN) for name in option.names if name.startswith("--")]
    hint = did_you_mean(word, known)
    assert hint == (f"did you mean {meant}?" if meant else "")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("unit start web", "`systemctl start web` does that"),
        ("unit enable --now web", "`systemctl enable web` does that"),
        ("unit daemon-reload", "`systemctl daemon-reload` does that"),
        ("unit logs web", "`journalctl -u web` does that"),
        ("unit instal web", "did you mean install?"),
        ("quadlet install web.container", "`sysbox unit` does that"),
        ("generate systemd web", "`sysbox unit generate` does that"),
        ("volume export data", later.PODMANS["volume export"]),
        ("container restore web", "nothing here does that"),
    ],
)
def test_what_another_command_does(line: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        root().main(line.split(), standalone_mode=False)
    assert raised.value.hint == hint


def test_what_podman_makes_of_kubernetes() -> None:
    for line in ("generate kube web", "kube play x.yml", "play kube x.yml"):
        with pytest.raises(UsageError, match="unknown command") as raised:
            root().main(line.split(), standalone_mode=False)
        assert raised.value.hint.startswith("no Kubernetes YAML is read or made")


def test_hints_are_about_what_is_missing() -> None:
    """No verb and no flag that there is has one, and each that it names exists."""
    assert not set(later.PODMANS) & {*VERBS, *GROUPS}
    for verb, flags in later.FLAGS.items():
        assert not set(flags) & {name for one in options_of(VERBS[verb]) for name in one.names}, (
            verb
        )
    hints = [
        *later.PODMANS.values(),
        *(hint for flags in later.FLAGS.values() for hint in flags.values()),
    ]
    for hint in hints:
        for words in re.findall(r"sysbox ([a-z -]+)", hint):
            first, *rest = words.split()
            assert first in VERBS or " ".join([first, *rest[:1]]) in (*VERBS, *GROUPS), hint


@pytest.mark.parametrize("line", ["rm -a", "stop --all", "run --tz x", "exec -l true"])
def test_flags_of_podman(line: str) -> None:
    verb, flag, *_ = line.split()
    with pytest.raises(UsageError, match=later.NOT_YET) as raised:
        cold.main(line.split())
    assert raised.value.hint == later.FLAGS[verb][flag]
