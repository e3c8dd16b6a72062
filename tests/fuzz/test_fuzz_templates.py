"""Templates: any text is a text or one line, and what is printed for a program can be read back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from inputs import ANY_TEXT, JSON, NUMBERS, Refused, outcome, words

from sysbox.base import visible
from sysbox.docker.shapes import NULL, Map, Strings, Struct
from sysbox.docker.template import compiled
from sysbox.docker.template_parse import FUNCTIONS

DATA = {
    "Name": "/web", "Id": "ab", "N": 5, "F": 1.5, "No": None, "Yes": True,
    "Config": Struct({"Labels": Strings({"a": "b"}), "Env": ["A=b", "C=d"]}), "Null": NULL, "Map": Map(),
    "List": [1, "a", None, {"x": []}],
    "Label": lambda key: key,
}  # fmt: skip
OPERANDS = st.one_of(
    st.sampled_from([
        *(f".{name}" for name in DATA), ".Config.Labels", ".Config.Labels.x", ".Config.Env", ".", "$", "$x",
        '"a"', '"%d %s %[1]v %*d %-5.2f|%q%x"', "`r`", "'c'", "true", "nil", "0", "-1", "2", "99999999999",
    ]), NUMBERS, ANY_TEXT,
)  # fmt: skip
COMMANDS = st.recursive(
    st.lists(OPERANDS, min_size=1, max_size=2).map(" ".join),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(sorted(FUNCTIONS)), st.lists(st.one_of(OPERANDS, inner.map("({})".format)),
                  max_size=3)).map(lambda pair: " ".join((pair[0], *pair[1]))),
        st.lists(inner, min_size=2, max_size=2).map(" | ".join),
    ),
    max_leaves=5,
)  # fmt: skip
ACTIONS = st.one_of(
    COMMANDS, COMMANDS.map("$x := {}".format), COMMANDS.map("$x = {}".format),
    COMMANDS.map("if {}".format), COMMANDS.map("with {}".format), COMMANDS.map("range $i, $x := {}".format),
    COMMANDS.map("range {}".format), COMMANDS.map("else if {}".format),
    st.sampled_from(["else", "end", "end", "end", "break", "continue", 'define "t"', 'template "t"',
                     'template "t" .', 'block "b" .', "/* c */", "", "- 1 -"]),
)  # fmt: skip
TEMPLATES = st.lists(st.one_of(ACTIONS.map("{{{{{}}}}}".format), ANY_TEXT), max_size=8).map("".join)


@given(
    st.one_of(
        TEMPLATES,
        words('{{ }} {{- -}} . $ | ( ) := = , " ` if end range printf .Name "a" /* */ \\ \''),
    )
)
def test_a_text_or_one_line(template: str) -> None:
    found = outcome(lambda: compiled(template)(DATA))
    if found is not Refused:
        assert isinstance(found, str)
        found.encode("utf-8", "surrogateescape")
    titles = outcome(lambda: compiled(template, titles=True)({"Name": "NAME", "Id": "ID"}))
    assert titles is Refused or isinstance(titles, str)


@given(TEMPLATES)
def test_values_are_shown_without_control_sequences(template: str) -> None:
    """But for what the template itself says: with printable text in it, all that comes out is printable."""
    if visible.printable(template) == template:
        render = outcome(lambda: compiled(template))
        if render is not Refused:
            data = {
                **DATA,
                "Name": "\x1b[2J\u202e",
                "Config": {"Labels": {"\x07": "\x9b"}, "Env": ["\udcff"]},
            }
            found = outcome(lambda: render(data, lambda text: visible.printable(text, "\n\t")))
            assert found is Refused or visible.printable(found, "\n\t") == found


@given(ANY_TEXT)
def test_what_printf_quotes_is_that_text(text: str) -> None:
    for form in ("%q", "%+q", "%#q"):
        quoted = compiled(f'{{{{printf "{form}" .}}}}')(text)
        assert compiled(f"{{{{{quoted}}}}}")({}) == text


@given(JSON)
def test_json_can_be_read(value: Any) -> None:
    text = compiled("{{json .}}")(value)
    text.encode()
    assert json.loads(visible.printable(text)) == json.loads(text)


@given(ANY_TEXT)
def test_what_is_shown(text: str) -> None:
    """By numbers; to a program that reads JSON these are escapes that mean the same."""
    shown = visible.printable(text)
    assert shown.isprintable()
    shown.encode()
    assert visible.printable(shown) == shown
