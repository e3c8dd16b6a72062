"""The hot argv parser: docker's conventions, in a few microseconds.

Long flags with `=` or a following word, clustered short ones (-it, -m128m), `--`. It accepts only what it
fully understands. Everything else, from `--help` to a misspelt flag, raises Fallback: click then parses
the same words and explains the error.
"""

from __future__ import annotations

from sysbox.cli.table.options import Option, Values, Verb, arguments
from sysbox.cli.table.verbs import GROUPS, VERBS, options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TRUE = ("true", "1", "t", "T", "TRUE", "True")  # Go's strconv.ParseBool
FALSE = ("false", "0", "f", "F", "FALSE", "False")


class Fallback(Exception):
    """The hot parser does not understand these words: no error, click parses them."""


class _Parser:
    def __init__(self, verb: Verb, words: list[str]) -> None:
        self.words = words
        self.at = 0
        self.given: dict[str, Any] = {}
        self.by_name: dict[str, Option] = {}
        for option in options_of(verb):
            self.given[option.dest] = [] if option.repeat else None if option.metavar else option.on
            for name in option.names + option.hidden:
                self.by_name[name] = option

    def next_word(self) -> str:
        if self.at >= len(self.words):
            raise Fallback
        self.at += 1
        return self.words[self.at - 1]

    def store(self, option: Option, text: str) -> None:
        if option.repeat:
            self.given[option.dest].append(text)
        else:
            self.given[option.dest] = text

    def long(self, word: str) -> None:
        name, equals, text = word.partition("=")
        option = self.by_name.get(name)
        if option is None:
            raise Fallback
        if option.metavar:
            self.store(option, text if equals else option.bare or self.next_word())
        elif not equals or text in TRUE:
            self.given[option.dest] = True
        elif text in FALSE:
            self.given[option.dest] = False
        else:
            raise Fallback

    def short(self, word: str) -> None:
        at = 1
        while at < len(word):
            option = self.by_name.get("-" + word[at])
            at += 1
            if option is None:
                raise Fallback
            if option.metavar:
                # the rest of the word is the value, with or without `=` (pflag takes both)
                rest = word[at:].removeprefix("=")
                self.store(option, rest if at < len(word) else self.next_word())
                return
            if word[at : at + 1] == "=":
                self.long(f"{option.names[-1]}{word[at:]}")
                return
            self.given[option.dest] = True


def read(words: list[str]) -> Values | None:
    """The values of a whole command line; None if click must parse it."""
    verb, rest = find_verb(words)
    if verb is None or not verb.hot:
        return None
    try:
        return parse(verb, rest)
    except Fallback:
        return None


def find_verb(words: list[str]) -> tuple[Verb | None, list[str]]:
    """The verb that a command line begins with, and the words after it."""
    if len(words) > 1 and words[0] in GROUPS:
        verb = VERBS.get(f"{words[0]} {words[1]}")
        if verb is not None:
            return verb, words[2:]
        verb = VERBS.get(" ".join(words[:3]))  # of a group in a group
        if verb is not None:
            return verb, words[3:]
    verb = VERBS.get(words[0]) if words and " " not in words[0] else None
    return verb, words[1:]


def parse(verb: Verb, words: list[str]) -> Values:
    """The values of a command line, verb not included.

    Raises Fallback for anything it does not accept.
    """
    parser = _Parser(verb, words)
    rest: list[str] = []
    while parser.at < len(words):
        word = parser.next_word()
        if word == "--":
            rest += words[parser.at :]
            break
        if word.startswith("--"):
            parser.long(word)
        elif len(word) > 1 and word[0] == "-":
            parser.short(word)
        elif verb.interspersed:
            rest.append(word)
        else:
            rest += words[parser.at - 1 :]
            break
    return place(verb, parser.given, rest)


def place(verb: Verb, given: dict[str, Any], rest: list[str]) -> Values:
    """Give the positional words their names; raises Fallback if their number is wrong."""
    for argument in arguments(verb):
        if argument.repeat:
            if argument.required and not rest:
                raise Fallback
            given[argument.dest], rest = rest, []
        elif rest:
            given[argument.dest], rest = rest[0], rest[1:]
        elif argument.required:
            raise Fallback
        else:
            given[argument.dest] = None
    if rest:
        raise Fallback
    return Values(verb, given)
