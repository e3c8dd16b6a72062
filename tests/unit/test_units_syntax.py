"""systemd.syntax(7), by its own examples and by what systemd's reader does at the edges."""

from __future__ import annotations

import pytest

from sysbox.base.errors import FormatError, SpecError
from sysbox.units import syntax

MANUAL = """\
[Section A]
KeyOne=value 1
KeyTwo=value 2

# a comment

[Section B]
Setting="something" "some thing" "..."
KeyTwo=value 2 \\
       value 2 continued

[Section C]
KeyThree=value 3\\
# this line is ignored
; this line is ignored too
       value 3 continued
"""


def shown(text: str) -> list[tuple[str, str, str, int]]:
    return [(one.section, one.key, one.value, one.line) for one in syntax.entries(text)]


def test_the_example_of_the_manual() -> None:
    assert shown(MANUAL) == [
        ("Section A", "KeyOne", "value 1", 2),
        ("Section A", "KeyTwo", "value 2", 3),
        ("Section B", "Setting", '"something" "some thing" "..."', 8),
        # each backslash is replaced by one space
        ("Section B", "KeyTwo", "value 2  value 2 continued", 9),
        ("Section C", "KeyThree", "value 3 value 3 continued", 13),
    ]
    found = syntax.read(MANUAL, "x")
    assert [one for one in found if one.key] == list(syntax.entries(MANUAL))
    assert [(one.section, one.line) for one in found if not one.key] == [
        ("Section A", 1),
        ("Section B", 7),
        ("Section C", 12),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("# [A]\n;b=1\n", []),
        ("[A]\n  a  =  b = c  \n", [("A", "a", "b = c", 2)]),
        ("[A]\na=1\na=2\na=\n", [("A", "a", "1", 2), ("A", "a", "2", 3), ("A", "a", "", 4)]),
        ("[A]\n[B]\na=1", [("B", "a", "1", 3)]),
        # an escaped backslash joins nothing; one before a blank does not either
        ("[A]\na=1\\\\\nb=2\n", [("A", "a", "1\\\\", 2), ("A", "b", "2", 3)]),
        ("[A]\na=1\\ \nb=2\n", [("A", "a", "1\\", 2), ("A", "b", "2", 3)]),
        # an empty line ends a continued one, as does the end of the file
        ("[A]\na=1\\\n\nb=2\n", [("A", "a", "1", 2), ("A", "b", "2", 4)]),
        ("[A]\na=1\\", [("A", "a", "1", 2)]),
        ("[A]\na=\\\n\\\n1\n", [("A", "a", "1", 2)]),
        # a comment is none inside a line
        ("[A]\na=1 # 2\n", [("A", "a", "1 # 2", 2)]),
        ("\ufeff[A]\r\na=1\r\nb=2\rc=3\0d=4", [("A", "a", "1", 2), ("A", "b", "2", 3), ("A", "c", "3", 4),
                                               ("A", "d", "4", 5)]),
        # what str.splitlines and str.strip would take for an end, or for a blank
        ("[A]\na=\x0b1\x1c2\u2028\n", [("A", "a", "\x0b1\x1c2\u2028", 2)]),
        ("[A]\na=\udcff\n[\udcff]\nb=1\n", [("A", "b", "1", 4)]),
        ("a=1\n[A]\nnonsense\n=2\nb=3\n[B\nc=4\n", [("", "a", "1", 1), ("A", "b", "3", 5)]),
    ],
)  # fmt: skip
def test_lines(text: str, found: list[tuple[str, str, str, int]]) -> None:
    assert shown(text) == found


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a=1\n", 1, "before the first section"),
        ("[A]\n\n# x\nnonsense\n", 4, "has no '='"),
        ("[A]\n=1\n", 2, "no key before"),
        ("[A\n", 1, "does not end in ']'"),
        ("[]\n", 1, "names no section"),
        ("[A]\na=1\\\n2\nb\n", 4, "has no '='"),
        ("[A]\na=\udcff\n", 2, "not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_file_of_ours(text: str, line: int, reason: str) -> None:
    with pytest.raises(FormatError, match=reason) as caught:
        syntax.read(text, "/etc/x.conf")
    assert caught.value.message.startswith(f"/etc/x.conf:{line}: ")
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", []),
        ('"something" "some thing" "..."', ["something", "some thing", "..."]),
        ("a  'b c'\td", ["a", "b c", "d"]),
        ("'' \"\"", ["", ""]),
        ("'a\"b' \"c'd\"", ['a"b', "c'd"]),
        ('--x="a b"c', ["--x=a bc"]),
        (r"\a\b\f\n\r\t\v\\\"\'\s", ["\a\b\f\n\r\t\v\\\"' "]),
        (r"\x41\102\u00e9\U0001f600", ["AB\u00e9\U0001f600"]),
        (r"\xc3\xa9 '\n'", ["\u00e9", "\n"]),
        (r"\xff", ["\udcff"]),
    ],
)
def test_words(value: str, words: list[str]) -> None:
    assert syntax.split(value, "x") == words


@pytest.mark.parametrize(
    "value",
    [
        "'a", '"', "a\\", r"\q", r"\x4", r"\xg1", r"\x00", r"\000", r"\400", r"\8", r"\u12", r"\ud800",
        r"\U00110000", r"\u0000", "\\\u00e9",
    ],
)  # fmt: skip
def test_what_is_no_word(value: str) -> None:
    with pytest.raises(FormatError, match=r"^f:3: Key=: ") as caught:
        syntax.split(value, "f:3: Key=")
    assert caught.value.hint


def test_a_file_is_written() -> None:
    text = syntax.dump(
        (("A", (("a", "1"), ("a", ""))), ("B", [("c", syntax.quote('x "y"\n'))])), "made\nby me"
    )
    assert text == '# made by me\n[A]\na=1\na=\n\n[B]\nc="x \\"y\\"\\n"\n'
    assert [(one.key, one.value) for one in syntax.read(text, "x") if one.key] == [
        ("a", "1"),
        ("a", ""),
        ("c", '"x \\"y\\"\\n"'),
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("", "1"), (" a", "1"), ("a=b", "1"), ("#a", "1"), ("[a", "1"), ("a", "1\n2"), ("a", "1\\"),
        ("a", " 1"), ("a", "1\r"), ("a", "\0"), ("a", "\udcff"),
    ],
)  # fmt: skip
def test_what_would_be_read_as_something_else_is_not_written(key: str, value: str) -> None:
    with pytest.raises(SpecError) as caught:
        syntax.assignment(key, value)
    assert caught.value.hint
    with pytest.raises(SpecError):
        syntax.dump((("A\n", ()),))


def test_specifiers() -> None:
    assert syntax.escape_specifiers("50% %n") == "50%% %%n"
    assert syntax.unescape_specifiers("50%% %%n") == "50% %n"


def test_rewriting_leaves_all_else_as_it_stands() -> None:
    text = "# c\r\n[A]\na=1\\\n; in it\n 2\n\nb=3\rc=4\n[B]\nnonsense\na=5"

    def change(one: syntax.Entry) -> str | None:
        return {"a": "z=1\nz=2\n", "b": ""}.get(one.key)

    assert syntax.rewrite(text, change) == (
        "# c\r\n[A]\nz=1\nz=2\n\nc=4\n[B]\nnonsense\nz=1\nz=2\n"
    )
    assert syntax.rewrite(text, lambda _: None) == text
