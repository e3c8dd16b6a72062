"""A statement's arguments as words: flags, quotes, the JSON form, announcements of here-documents."""

from __future__ import annotations

from sysbox.base import codec
from sysbox.base.errors import FormatError
from sysbox.build.model import Heredoc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SPACE = " \t\v\f\r"
_QUOTES = "'\""
_DIGITS = "0123456789"


class NotStrings(ValueError):
    """A JSON array that holds something else than strings."""


def plain_words(text: str) -> list[tuple[int, str]]:
    """(offset, word) for what spaces separate; quotes have no meaning."""
    words = []
    at = 0
    for word in text.translate(_SPACES).split(" "):
        if word:
            words.append((at, word))
        at += len(word) + 1
    return words


def quoted_words(text: str, escape: str) -> list[tuple[int, str]]:
    """(offset, word) for what spaces outside of quotes separate; quotes and escapes stay in the words.

    A quote that is not closed reaches to the end.
    """
    words = []
    at = 0
    while at < len(text):
        if text[at] in SPACE:
            at += 1
            continue
        end = _end_of_word(text, at, escape)
        words.append((at, text[at:end]))
        at = end
    return words


def _end_of_word(text: str, at: int, escape: str) -> int:
    quote = ""
    while at < len(text):
        letter = text[at]
        if letter == escape and quote != "'":
            at += 2
            continue
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        elif letter in SPACE:
            break
        at += 1
    return min(at, len(text))


def closed(word: str, escape: str) -> bool:
    """Whether each quote in a word has its end."""
    return _end_of_word(f"{word} ", 0, escape) == len(word)


def flags(text: str, escape: str) -> tuple[list[tuple[int, str, str | None]], int]:
    """The flags at the beginning of a text: (offset, name, value or None), and the offset of what follows.

    Quotes and escapes are removed. `--` alone ends the flags.
    """
    found: list[tuple[int, str, str | None]] = []
    at = 0
    while True:
        while at < len(text) and text[at] in SPACE:
            at += 1
        if not text.startswith("--", at):
            return found, at
        end = _end_of_word(text, at, escape)
        word = unquoted(text[at:end], escape)
        if word == "--":
            while end < len(text) and text[end] in SPACE:
                end += 1
            return found, end
        name, equals, value = word[2:].partition("=")
        found.append((at, name, value if equals else None))
        at = end


def unquoted(word: str, escape: str) -> str:
    """A word without its quotes and escape characters."""
    letters = []
    quote = ""
    at = 0
    while at < len(word):
        letter = word[at]
        if letter == escape and quote != "'":
            at += 1
            letters.append(word[at : at + 1])
        elif letter == quote:
            quote = ""
        elif letter in _QUOTES and not quote:
            quote = letter
        else:
            letters.append(letter)
        at += 1
    return "".join(letters)


def json_form(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array; None where the text is not JSON, so that it has the other form.

    Raises NotStrings for an array with other values, or with strings that no process can be given.
    """
    if not text.startswith("["):
        return None
    try:
        value = codec.loads(text, "")
    except FormatError:
        return None
    if type(value) is not list:
        return None
    for one in value:
        if type(one) is not str:
            raise NotStrings("the JSON form must be an array of strings")
        if "\0" in one:
            raise NotStrings("a string with a NUL character")
        if any("\ud800" <= character <= "\udfff" for character in one):
            raise NotStrings("a string with a lone surrogate")
    return tuple(value)


def heredoc_words(text: str, escape: str) -> Iterator[tuple[int, Heredoc]]:
    """(offset, here-document without content) for each `[N]<<[-]NAME` in a text.

    `<<` within a word, in quotes, and `<<<` announce none. Nothing is announced where a quote is not closed.
    """
    words = quoted_words(text, escape)
    if words and not closed(words[-1][1], escape):
        return
    after = iter([*words[1:], (len(text), "")])
    for offset, word in words:
        following = next(after)[1]
        descriptor = word[: len(word) - len(word.lstrip(_DIGITS))]
        rest = word[len(descriptor) :]
        if not rest.startswith("<<"):
            continue
        strips = rest.startswith("<<-")
        name = rest[3 if strips else 2 :]
        if not name and (following[:1].isalpha() or following[:1] in ("_", *_QUOTES)):
            name = following  # `<< NAME`
        bare = unquoted(name, escape)
        if bare and "<" not in name:
            number = int(descriptor) if 0 < len(descriptor) < 4 else 0
            quoted = bare != name
            yield (
                offset,
                Heredoc(
                    name=bare, content="", expands=not quoted, strips=strips, descriptor=number
                ),
            )


_SPACES = {ord(letter): " " for letter in SPACE}
