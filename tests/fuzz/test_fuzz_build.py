"""Containerfiles and ignore files: any bytes are a plan or one line that names the place."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import ANY_TEXT, words

from sysbox.base.errors import SpecError
from sysbox.build import expansion, globs, graph, ignore, parser, variables
from sysbox.build.errors import FileError
from sysbox.build.ignore import Seen
from sysbox.build.model import Onbuild, Plan, Request, Variables

FILES = [
    b"""# syntax=docker/dockerfile:1
# escape=\\
ARG BASE=alpine:3 X
FROM --platform=$BUILDPLATFORM ${BASE} AS build
ARG TARGETARCH VERSION="1 2"
ENV A=b C="d $A" E=${F:-g} H=${A#b*} I=${A/b/c}
WORKDIR /src/$VERSION
COPY --chown=1:2 --chmod=u=rwX --exclude=*.md . ./
RUN --mount=type=cache,target=/c,id=$A --mount=type=secret,id=s,required \\
    --network=none \\
# a comment

    make all && echo "<<NO" 'it''s'
RUN <<-EOF
\techo one
\tEOF
RUN ["a", "b\\u00e9"]
""",
    b"""FROM scratch AS a
ADD --checksum=sha256:00 https://example.org/x.tar /
COPY <<"ONE" <<TWO /d/
$x
ONE
\\$y
TWO
FROM a
COPY --from=a --link --parents /x /y
ONBUILD RUN --mount=from=a,target=/z <<E
x
E
LABEL "a b"='c' d=e
EXPOSE 80 90-92/udp
VOLUME ["/v", "/w"]
USER u:g
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --retries=3 CMD ["x"]
SHELL ["/bin/bash", "-c"]
ENTRYPOINT ["/e"]
CMD echo hi
MAINTAINER me
FROM 0
""",
]
PIECES = [
    b"FROM ", b"RUN ", b"COPY ", b"ONBUILD ", b"ENV ", b"ARG ", b"--from=", b"--mount=", b"<<EOF",
    b"<<-'E'", b"EOF\n", b"AS ", b"/", b"..", b"\\\n", b"\\", b"`", b"$", b"${", b"}", b"${a:-", b"${a//",
    b"#", b"##", b"%", b"'", b'"', b"[", b"]", b",", b"=", b"\n", b"\r\n", b" ", b"\t", b"\0", b"\xff",
    b"\xc3\xa9", b"\xef\xbb\xbf", b"# escape=`\n", b"*", b"?", b"-", b"a", b"0", b'["x"]', b"\\udc80",
    b"\x0b\x0c", b"999999999999999999999", b"\xe2\x80\xae",
]  # fmt: skip
COUNT = int(os.environ.get("SYSBOX_FUZZ", "0")) or 20_000


def mutated(chance: random.Random) -> bytes:
    """One of the files with a few bytes changed, put in, taken out, doubled or moved."""
    data = bytearray(chance.choice(FILES))
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data) + 1)
        end = min(at + chance.choice((1, 1, 3, 20)), len(data))
        kind = chance.randrange(5)
        if kind == 0:
            data[at:at] = chance.choice(PIECES)
        elif kind == 1:
            data[at:end] = b""
        elif kind == 2:
            data[at:end] = chance.choice(PIECES)
        elif kind == 3:
            data[at:at] = data[at:end] * chance.choice((1, 2, 30))
        else:
            to = chance.randrange(len(data) + 1)
            data[to:to] = data[at:end]
    return bytes(data)


def planned(data: bytes) -> Plan | None:
    """The plan for a file, everything expanded; None for an error, which names a place in the file."""
    try:
        plan = graph.make_plan(parser.parse(data, "C"), Request(arguments={"X": "x", "U": None}))
        for stage in plan.stages:
            state = Variables(environment={"PATH": "/bin"})
            for instruction in stage.instructions:
                done = expansion.expand(instruction, state)
                state = expansion.after(state, done, plan)
                if isinstance(done, Onbuild):
                    parser.triggers([done.trigger], "i")
    except FileError as error:
        wrong = error
    else:
        return plan
    assert min(wrong.line, wrong.column) >= 1
    assert wrong.line <= data.count(b"\n") + 1 or wrong.file != "C"
    return None


def test_mutated_files() -> None:
    chance = random.Random(f"{os.environ.get('SYSBOX_FUZZ', '')}containerfile")
    made = 0
    for _ in range(COUNT):
        data = mutated(chance)
        try:
            made += planned(data) is not None
        except Exception as error:  # what failed is the file, which the traceback does not show
            pytest.fail(f"{error!r} for {data!r}")
    # neither all of them are refused, nor none
    assert COUNT // 20 < made < COUNT


LINES = words("FROM a\n RUN COPY ENV ARG \\\n <<E E\n # $ ${ } ' \" [ ] -- = / \t", size=20)


@given(st.one_of(LINES, ANY_TEXT), st.binary(max_size=40))
def test_any_bytes(text: str, junk: bytes) -> None:
    planned(text.encode("utf-8", "surrogateescape"))
    planned(b"FROM a\n" + text.encode("utf-8", "surrogateescape") + junk)


VALUES = st.dictionaries(st.sampled_from(["a", "b", "c"]), ANY_TEXT, max_size=3)
TEXT = words("$ a b ${a} ${ } :- :+ :? # ## % %% / // ' \" \\ \\} * ? x")


@given(TEXT, VALUES)
def test_any_word(text: str, values: dict[str, str]) -> None:
    """`check` refuses what `expand` refuses, but for ${a:?}."""
    checked = wrong_with(lambda: variables.check(text, "\\"))
    expanded = wrong_with(lambda: variables.expand(text, values, "\\"))
    for error in (checked, expanded):
        assert error is None or 0 <= error.offset <= len(text) + 1
    if checked:
        assert expanded
    elif expanded:
        assert "?" in text


def wrong_with(work: Callable[[], object]) -> variables.ExpansionError | None:
    try:
        work()
    except variables.ExpansionError as error:
        return error
    return None


@given(words("a b * ? \\* \\? ab", size=6), words("a b ab * ?", size=8))
def test_patterns_are_those_of_regular_expressions(pattern: str, value: str) -> None:
    import re

    short = long = ""
    letters = iter(pattern)
    for letter in letters:
        escaped = re.escape(next(letters, letter) if letter == "\\" else letter)
        short += ".*?" if letter == "*" else "." if letter == "?" else escaped
        long += ".*" if letter == "*" else "." if letter == "?" else escaped
    if len(pattern) > globs.MAX_PATTERN:
        return
    for expression, longest in ((short, False), (long, True)):
        found = re.match(expression, value, re.DOTALL)
        wanted = value[found.end() :] if found else value
        assert globs.without_prefix(value, pattern, "\\", longest=longest) == wanted
    ends = [at for at in range(len(value) + 1) if re.fullmatch(long, value[at:], re.DOTALL)]
    for at, longest in (
        (max(ends, default=len(value)), False),
        (min(ends, default=len(value)), True),
    ):
        assert globs.without_suffix(value, pattern, "\\", longest=longest) == value[:at]
    if re.match(long, "", re.DOTALL) is None:
        for every in (False, True):
            wanted = re.sub(long, "<>", value, count=0 if every else 1, flags=re.DOTALL)
            found_text = globs.replaced(value, pattern, "<>", "\\", every=every, limit=1000)
            assert found_text == wanted


IGNORED = words("a b * ** / ? [ ] [a-b] [^a] \\ ! # \n . ..", size=10)


@given(st.one_of(IGNORED, ANY_TEXT), words("a b / ab .", size=8))
def test_any_ignore_file(text: str, path: str) -> None:
    try:
        found = ignore.parse(text.encode("utf-8", "surrogateescape"), "I")
    except FileError:
        return
    parts = [part for part in path.split("/") if part] or ["a"]
    seen = Seen()
    for count in range(1, len(parts) + 1):
        above = seen
        seen = found.look("/".join(parts[:count]), above)
        # what is taken back below a directory that nobody would look into is never seen
        if above.excluded and not seen.excluded:
            assert found.may_hold_more("/".join(parts[: count - 1]), above)
    assert seen.excluded is found.excluded("/".join(parts))


def seconds(data: bytes) -> float:
    begin = time.process_time()
    try:
        planned(data)
    except SpecError:
        pass
    return time.process_time() - begin


GROWING = {
    "continued lines": lambda n: b"FROM a\nRUN x" + b" \\\n && y" * n,
    "comments inside": lambda n: b"FROM a\nRUN x \\\n" + b"# c\n" * n + b"y",
    "one long line": lambda n: b"FROM a\nRUN " + b"x" * n * 8,
    "a long here-document": lambda n: b"FROM a\nCOPY <<E /x\n" + b"a $b \\c\n" * n + b"E",
    "here-documents without end": lambda n: b"FROM a\nRUN " + b"<<E " * n,
    "words": lambda n: b"FROM a\nENV " + b"a=b " * n,
    "quotes": lambda n: b"FROM a\nENV a=" + b"'x'\"y\"" * n,
    "variables": lambda n: b"FROM a\nENV a=" + b"$b${c:-d}" * n,
    "braces": lambda n: b"FROM a\nENV a=" + b"${b:-" * n,
    "json": lambda n: b'FROM a\nRUN ["x"' + b', "y"' * n + b"]",
    "brackets": lambda n: b"FROM a\nRUN " + b"[" * n,
    "mounts": lambda n: b"FROM a\nRUN --mount=target=/x" + b",z" * n + b" y",
    "flags": lambda n: b"FROM a\nCOPY " + b"--exclude=x " * n + b"a b",
    "onbuild": lambda n: b"FROM a\nONBUILD RUN x" + b" \\\n && y" * n,
    "junk": lambda n: b"FROM a\n" + b"x " * n,
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(GROWING))
def test_the_time_is_linear(kind: str) -> None:
    """Eight times the text takes at most 24 times as long; were it quadratic, it would take 64 times."""
    make = GROWING[kind]
    small = max(min(seconds(make(4_000)) for _ in range(3)), 0.0005)
    large = min(seconds(make(32_000)) for _ in range(3))
    assert large <= 24 * small
