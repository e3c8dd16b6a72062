"""systemd's syntax: what is written is read again, and any bytes are a value or an error of ours."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from inputs import ANY_TEXT, Refused, outcome, words

from sysbox.units import syntax

TEXT = st.one_of(
    words("[A] [B] [ ] \n \r \0 # ; \\ \\\n a= b c = x \ufeff \t \" ' \\x41 % %%", size=16),
    st.binary(max_size=60).map(syntax.decode),
)
WORDS = words("\" ' \\ \\x \\n \\u00e9 \\101 a b \t \n % $")


@given(
    st.lists(st.tuples(ANY_TEXT, st.lists(st.tuples(ANY_TEXT, ANY_TEXT), max_size=3)), max_size=3),
    ANY_TEXT,
)
def test_what_is_written_is_read_again(
    sections: list[tuple[str, list[tuple[str, str]]]], comment: str
) -> None:
    text = outcome(lambda: syntax.dump(sections, comment))
    if text is Refused:
        return
    wanted = [
        (name, key, value) for name, pairs in sections for key, value in (("", ""), *pairs)
    ]  # a header has no key
    assert [(one.section, one.key, one.value) for one in syntax.read(text, "x")] == wanted
    assert syntax.rewrite(text, lambda one: syntax.assignment(one.key, one.value)) == text


@given(st.lists(ANY_TEXT | WORDS, max_size=4))
def test_words_are_split_as_they_were_quoted(given_words: list[str]) -> None:
    value = outcome(lambda: " ".join(map(syntax.quote, given_words)))
    if value is not Refused:
        # the same bytes: surrogates side by side may stand for those of one character
        whole = [syntax.decode(one.encode("utf-8", "surrogateescape")) for one in given_words]
        assert syntax.split(value, "x") == whole
        # and stand in a file as one line
        line = syntax.assignment("Key", value)
        assert next(syntax.entries(f"[A]\n{line}")).value == value


@given(TEXT)
def test_any_file(text: str) -> None:
    found = list(syntax.entries(text))
    strict = outcome(lambda: syntax.read(text, "x"))
    assert strict is Refused or [one for one in strict if one.key] == found
    assert syntax.rewrite(text, lambda _: None) == text
    left = syntax.rewrite(text, lambda one: "" if one in found else None)
    assert not list(syntax.entries(left))
    for one in found:
        assert 1 <= one.line <= one.last <= len(syntax._lines(text))


@given(st.one_of(WORDS, TEXT))
def test_any_words(value: str) -> None:
    outcome(lambda: syntax.split(value, "x"))


@given(ANY_TEXT)
def test_specifiers(text: str) -> None:
    assert syntax.unescape_specifiers(syntax.escape_specifiers(text)) == text
