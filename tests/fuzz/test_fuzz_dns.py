"""Messages of DNS, and the files of names: any bytes are a question or none, a container or nobody."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from inputs import JSON, words

from sysbox.base import codec
from sysbox.netns import names
from sysbox.netns.dns import resolv_conf
from sysbox.resolver import upstream, wire
from sysbox.resolver.answers import Answers, Forward
from sysbox.resolver.wire import Wire
from sysbox.resolver.zone import Zone

WIRE = Wire()
LABEL = st.one_of(
    st.binary(max_size=8).map(lambda data: bytes((len(data),)) + data),
    st.sampled_from(
        [b"\3web", b"\6sysbox", b"\0", b"\xc0\x0c", b"\xc0\0", b"\x3f", b"\x80", b"\xff"]
    ),
)
KINDS = st.sampled_from(
    [b"\0\1\0\1", b"\0\x1c\0\1", b"\0\x0c\0\1", b"\0\xff\0\1", b"\0\1\0\3", b""]
)
EXTENSION = st.sampled_from(
    [b"", b"\0\0\x29\x10\0\0\0\0\0\0\0", b"\0\0\x29\xff\xff\0\0\0\0\xff\xff", b"\0"]
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Nearly questions."""
    tail = draw(EXTENSION)
    counts = draw(
        st.sampled_from([b"\0\1\0\0\0\0", b"\0\1\0\0\0\0", b"\0\2\0\0\0\0", b"\0\1\0\1\0\0"])
    )
    more = b"\0\1" if tail else b"\0\0"
    flags = draw(st.sampled_from([b"\1\0", b"\1\x20", b"\0\0", b"\x28\0", b"\x81\0"]))
    name = b"".join(draw(st.lists(LABEL, max_size=6))) + b"\0"
    return b"\1\2" + flags + counts + more + name + draw(KINDS) + tail


@given(st.one_of(messages(), st.binary(max_size=60)))
def test_a_question_or_none(data: bytes) -> None:
    question = WIRE.parse(data)
    if question is None:
        return
    assert data[12:].startswith(question.section)
    for code, records in ((0, ((1, "10.0.0.1"), (28, "fd00::1"))), (3, ())):
        answer = WIRE.answer(question, code, records, limit=question.limit)
        assert answer[:2] == data[:2]
        assert len(answer) <= max(question.limit, len(data) + 11)
        assert wire.answers_to(answer, data[:2], question.section)
    failed = wire.failure(data, question.section, 2)
    assert wire.answers_to(failed, data[:2], question.section)


@given(st.one_of(messages(), st.binary(max_size=60)))
def test_an_answer_of_another_server(data: bytes) -> None:
    wire.answers_to(data, b"\1\2", b"\3web\0\0\1\0\1")
    try:
        WIRE.not_kept(data)
    except ValueError:
        pass


KEYS = "pid start name aliases hostname addresses servers links others internal".split()
FIELDS = st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, JSON))


@given(st.one_of(FIELDS, JSON), st.one_of(JSON, FIELDS))
def test_a_file_of_names(one: Any, settings: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / ("a" * 64)).write_bytes(_written(one))
        (Path(directory) / names.SETTINGS).write_bytes(_written(settings))
        zone = Zone(directory)
        answers = Answers(zone, WIRE)
        found = answers.answer(b"\1\2\1\0\0\1\0\0\0\0\0\0\3web\0\0\1\0\1", "10.0.0.1")
        assert isinstance(found, Forward | bytes)


def _written(value: Any) -> bytes:
    try:
        return codec.dumps(value)
    except ValueError:
        return repr(value).encode("utf-8", "replace")


@given(
    words(
        "nameserver search domain options ndots:1 192.0.2.1 ::1 fe80::1%lo \n # ; 127.0.0.53",
        size=20,
    )
)
def test_resolv_conf(text: str) -> None:
    for server in upstream.parse(text):
        upstream.endpoint(server)
    resolv_conf(text, text, resolvers=("10.0.0.1",))
