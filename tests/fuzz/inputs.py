"""What the parsers are fed with: words that nearly mean something, and JSON that was nearly right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from sysbox.base.errors import SysboxError
from sysbox.cli import output

# what command lines, files and the kernel can hold: any bytes, those that are no UTF-8 as surrogates
ANY_TEXT = st.one_of(
    st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape")),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(
        ["", "\0", "\n", "\x1b[2J", "é", "\u202e", "\udcff", "٣", "²", "١٢", "ß", "İ", " "]
    ),
)
NUMBERS = st.one_of(
    st.sampled_from(["0", "-1", "1", "00", "1.5", ".5", "5.", "1e9", "-0", "0x10", "017", "+1", "1_0", "inf",
                     "nan", "9" * 20, "9" * 400, "9" * 5000, "1." + "0" * 400]),
    st.integers(-(1 << 65), 1 << 65).map(str),
    st.integers(0, 100).map(str),
)  # fmt: skip


def words(vocabulary: str, *, size: int = 8) -> st.SearchStrategy[str]:
    """Text made of words of a language, numbers, and now and then of anything else."""
    known = st.sampled_from([*vocabulary.split(" "), " "])
    piece = st.one_of(known, known, known, NUMBERS, ANY_TEXT)
    return st.lists(piece, max_size=size).map("".join)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.just(""), ANY_TEXT,
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -1, 1 << 40, "x" * 300, [], {}]),
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(ANY_TEXT, inner, max_size=4)
    ),
    max_leaves=12,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all that is in a document."""
    found = [path]
    items: Any = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, one in items:
        found += places(one, (*path, key))
    return found


def changed(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """The document with what is at the path changed; a change to `...` takes it away."""
    if not path:
        return change(value)
    key, rest = path[0], path[1:]
    new = changed(value[key], rest, change)
    if isinstance(value, dict):
        kept = {name: one for name, one in value.items() if name != key}
        return kept if new is ... else {**kept, key: new}
    return [*value[:key], *([] if new is ... else [new]), *value[key + 1 :]]


@st.composite
def nearly(draw: st.DrawFn, documents: list[Any]) -> Any:
    """One of the documents, with a few things in it changed, left out, or added."""
    document = draw(st.sampled_from(documents))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(places(document)))
        new = draw(st.one_of(SCALARS, JSON, st.just(...)))
        if path or new is not ...:
            document = changed(document, path, lambda _, new=new: new)
        if isinstance(document, dict) and draw(st.integers(0, 5)) == 0:
            document = {**document, draw(ANY_TEXT): draw(SCALARS)}
    return document


class Refused:
    """What `outcome` gives where the input was refused."""


def outcome(call: Callable[[], Any]) -> Any:
    """The value, or Refused: any exception but ours fails the test, as does one that is not a clear line."""
    try:
        return call()
    except SysboxError as error:
        refusal = error
    assert refusal.message.strip()
    for text in (refusal.message, refusal.hint):
        shown = output.one_line(text)
        assert shown.isprintable()
        assert len(shown) <= 10 * output._LONGEST
        shown.encode()
    return Refused
