"""Whole command lines: the hot parser, click, and the specification that comes of them."""

from __future__ import annotations

import click
from hypothesis import given
from hypothesis import strategies as st
from inputs import ANY_TEXT, NUMBERS, Refused, outcome, words

from sysbox.base import codec
from sysbox.cli.parse import cold, hot
from sysbox.cli.request.spec import build
from sysbox.cli.table.verbs import GROUPS, VERBS, options_of
from sysbox.spec import ContainerSpec

NAMES = sorted(
    {name for verb in VERBS.values() for option in options_of(verb) for name in option.names}
)
VALUES = words(
    "a = : , / . 1 64m on-failure host none bridge /a:/b type=bind,src=/a,dst=/b 80:80 sh SIGTERM 5s"
)
WORDS = st.one_of(
    st.sampled_from([*NAMES, "--", "-", "--=", "-=", "---", "-it", "-itd", "-e=", "--rm=true", "--rm=x"]),
    st.tuples(st.sampled_from(NAMES), VALUES).map("=".join),
    VALUES, NUMBERS, ANY_TEXT.filter(lambda text: "\0" not in text),
)  # fmt: skip
VERB_WORDS = st.one_of(
    st.sampled_from(sorted(VERBS)).map(lambda name: name.split(" ")),
    st.sampled_from(sorted(GROUPS)).map(lambda name: [name]),
    st.lists(ANY_TEXT, max_size=2),
)


@given(VERB_WORDS, st.lists(WORDS, max_size=8))
def test_the_hot_parser(verb: list[str], rest: list[str]) -> None:
    """Values for all of a verb's names, or the words are left to click."""
    found = hot.read([*verb, *rest])
    if found is not None:
        known = {option.dest for option in options_of(found.verb)}
        assert known <= vars(found).keys()


@given(st.sampled_from(sorted(VERBS)), st.lists(WORDS, max_size=6))
def test_click(name: str, rest: list[str]) -> None:
    command = cold.Command(VERBS[name], name.rpartition(" ")[2])
    try:
        command.make_context(name, list(rest))
    except (click.ClickException, click.exceptions.Exit):
        pass  # its words, or the help


@given(st.lists(st.tuples(st.sampled_from([
    one for one in options_of(VERBS["run"]) if one.metavar]), VALUES), max_size=3),
    st.sets(st.sampled_from([one for one in options_of(VERBS["run"]) if not one.metavar]), max_size=3),
    st.lists(ANY_TEXT, max_size=3))  # fmt: skip
def test_what_is_asked_for(given_values: list, switches: set, command: list[str]) -> None:  # type: ignore[type-arg]
    """A specification that its record gives back as it was, or one line."""
    line = [
        f"{option.names[-1]}={text}"
        for option, text in given_values
        if option.names[-1][:2] == "--"
    ]
    line += [option.names[-1] for option in switches]
    values = hot.read(["run", *line, "--", "image", *command])
    if values is None:
        return
    spec = outcome(lambda: build(values))
    if spec is Refused:
        return
    again = ContainerSpec.from_data(codec.loads(codec.dumps(spec.to_data()), "a record"))
    assert again == spec
