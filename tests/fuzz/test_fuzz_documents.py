"""JSON: the codec, records, manifests and configurations of images, seccomp profiles, journal entries."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from inputs import ANY_TEXT, JSON, NUMBERS, Refused, nearly, outcome

from sysbox.base import codec
from sysbox.container import events, records, store
from sysbox.image import documents
from sysbox.netns import networks
from sysbox.netns.network import Network
from sysbox.run import json_log
from sysbox.security import bounded, known_calls, profile_json, recorded
from sysbox.spec import ContainerSpec, Device, Health, Limits, Mount, Port, Ulimit
from sysbox.units import journal, journalread

DIGEST = "sha256:" + "ab" * 32


def raw(value: Any) -> bytes:
    return json.dumps(value).encode()


@given(JSON)
def test_the_codec_gives_back_what_it_was_given(value: Any) -> None:
    assert codec.loads(codec.dumps(value), "x") == value


@given(
    st.one_of(
        st.binary(max_size=60), st.text('[]{}",:\\ud8c01eE+-.0tfn/\n ', max_size=40).map(str.encode)
    )
)
def test_the_codec_takes_json_only(data: bytes) -> None:
    """What it takes the standard library takes too, and means the same; it can be written everywhere."""
    found = outcome(lambda: codec.loads(data, "x"))
    if found is not Refused:
        assert found == json.loads(data)
        json.dumps(found, allow_nan=False, ensure_ascii=False).encode("utf-8", "surrogateescape")


@given(st.integers(1, 5000), st.sampled_from(["[", '{"a":']))
def test_the_codec_and_depth(depth: int, opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    text = opening * depth + "1" + closing * depth
    found = outcome(lambda: codec.loads(text, "x"))
    assert (found is Refused) == (depth > codec.MAX_DEPTH)


SPEC = ContainerSpec(
    image="i", name="n", command=("a", "b"), env=("A=b",), labels={"k": "v"},
    mounts=(Mount(kind="bind", source="/a", target="/b"),), ports=(Port(container_port=80, host_port=1),),
    ulimits=(Ulimit(name="nofile", soft=1, hard=2),), devices=(Device(source="/d", target="/d", access="r"),),
    health=Health(command=("x",), interval=5), limits=Limits(),
)  # fmt: skip
RECORD = records.Record(
    id="ab" * 32, name="n", created_ns=1, spec=SPEC, image_id=DIGEST, image_name="i", argv=("a",),
    tuned={"CPUShares": "1"}, updated={"a": 1},
)  # fmt: skip
RUNTIME = records.Runtime(
    pid=1, start_time=2, supervisor=3, supervisor_start=4, scope="s", ports=SPEC.ports
)
FINAL = records.Final(exit_code=1, started_ns=1, finished_ns=2, victims=("a",))


NETWORK = Network(
    name="web", id="cd" * 32, bridge="sb-0", subnet="10.1.0.0/24", gateway="10.1.0.1", subnet6="fd00::/64",
    gateway6="fd00::1", ip_range="10.1.0.128/25", labels={"a": "b"}, options={"mtu": "1400"}, mtu=1400,
)  # fmt: skip


@given(nearly([NETWORK.to_data()]))
def test_definitions_of_networks(data: Any) -> None:
    found = outcome(lambda: networks.from_file(raw(data), "web.json", "web"))
    if found is not Refused:
        assert networks.from_file(networks.to_file(found), "web.json", "web") == found


@given(nearly([RECORD.to_data(), RUNTIME.to_data(), FINAL.to_data()]))
def test_records(data: Any) -> None:
    """Of damaged files: a record that is written as it was read, or one line that names the file."""
    for kind in (records.Record, records.Runtime, records.Final):
        found = outcome(lambda kind=kind: store._parse(kind, raw(data), "record.json", "ab" * 32))
        if found is not Refused:
            assert isinstance(found, kind)
            written = codec.dumps(found.to_data())
            assert kind.from_data(codec.loads(written, "x")) == found


DESCRIPTOR = {"mediaType": documents.OCI_CONFIG, "digest": DIGEST, "size": 5}
MANIFEST = {
    "schemaVersion": 2, "mediaType": documents.OCI_MANIFEST, "config": DESCRIPTOR,
    "layers": [{**DESCRIPTOR, "mediaType": documents.OCI_LAYER}],
}  # fmt: skip
CONFIG = {
    "os": "linux", "architecture": "amd64", "created": "2026-11-22T00:00:00Z",
    "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    "config": {
        "Env": ["A=b"], "Cmd": ["sh"], "Entrypoint": None, "Labels": {"a": "b"}, "Volumes": {"/v": {}},
        "ExposedPorts": {"80/tcp": {}}, "User": "0", "WorkingDir": "/", "StopSignal": "TERM",
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1000000, "Retries": 3},
    },
}  # fmt: skip


@given(nearly([MANIFEST, CONFIG]))
def test_manifests_and_configurations(data: Any) -> None:
    outcome(lambda: documents.parse_manifest(raw(data)))
    found = outcome(lambda: documents.parse_config(raw(data)))
    if found is not Refused:
        image = found.image
        for text in (
            *image.env,
            *image.cmd,
            *image.entrypoint,
            image.user,
            image.workdir,
            *image.volumes,
        ):
            assert "\0" not in text
            text.encode()
        assert type(image).from_data(codec.loads(codec.dumps(image.to_data()), "x")) == image


PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
         "excludes": {"caps": ["CAP_SYS_ADMIN"]},
         "args": [{"index": 1, "value": 5, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"name": "socket", "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_GE"}]},
        {"names": ["mkdir", "mkdri"], "action": "SCMP_ACT_NOTIFY"},
    ],
    "listenerPath": "/run/agent", "listenerMetadata": "m", "flags": ["SECCOMP_FILTER_FLAG_LOG"],
}  # fmt: skip


@given(nearly([PROFILE]))
def test_seccomp_profiles(data: Any) -> None:
    """Read or refused; and what is read compiles, or is refused then. What it names is said in one line."""
    found = outcome(lambda: profile_json.parse(raw(data), "/p.json"))
    if found is not Refused:
        assert "\n" not in known_calls.describe_unknown(found)
        program = outcome(lambda: bounded.compile_profile(found, 0, "x86_64"))
        assert program is Refused or len(program) % 8 == 0


CALLS = st.sets(
    st.tuples(
        st.sampled_from([0xC000003E, 0x40000003, 0xC00000B7, 0, 7]) | st.integers(0, 2**32 - 1),
        st.integers(0, 500) | st.integers(0x40000000, 0x40000200) | st.integers(0, 2**32 - 1),
    ),
    max_size=60,
)


@given(CALLS, st.booleans())
def test_recorded_profiles(calls: set[tuple[int, int]], privileged: bool) -> None:
    """Whatever was recorded becomes a profile that is read and compiled."""
    text = recorded.profile_of(calls, privileged=privileged, machine="x86_64")
    found = profile_json.parse(text, "/p.json")
    assert known_calls.describe_unknown(found) == ""
    assert bounded.compile_profile(found, 0, "x86_64")


FIELDS = {
    b"MESSAGE": b"text", b"PRIORITY": b"6", b"__REALTIME_TIMESTAMP": b"1700000000000000",
    b"_LINE_BREAK": b"eof",
    b"MESSAGE_ID": events.MESSAGE_IDS["container", "die"].encode(), b"SYSBOX_TYPE": b"container",
    b"SYSBOX_ACTION": b"die", b"SYSBOX_ID": b"ab" * 32, b"SYSBOX_ATTRIBUTES": b'{"image":"i","exitCode":"1"}',
    b"SYSBOX_NAME": b"n", b"SYSBOX_TIME_NSEC": b"1700000000000000000", b"_UID": b"0", b"__CURSOR": b"s=1",
}  # fmt: skip
DAMAGE = st.dictionaries(
    st.sampled_from(sorted(FIELDS)),
    st.one_of(st.binary(max_size=20), NUMBERS.map(str.encode), JSON.map(raw)), max_size=3,
)  # fmt: skip


@given(st.lists(st.tuples(DAMAGE, st.sets(st.sampled_from(sorted(FIELDS)), max_size=2)), max_size=3),
       st.lists(st.integers(1, 60), min_size=1, max_size=4))  # fmt: skip
def test_journal_entries(
    damage: list[tuple[dict[bytes, bytes], set[bytes]]], cuts: list[int]
) -> None:
    """Any user may write some: what was exported is read in whatever pieces it comes, as lines or events."""
    written = [
        {name: one for name, one in {**FIELDS, **changes}.items() if name not in gone}
        for changes, gone in damage
    ]
    data = b"".join(b"".join(exported(*field) for field in one.items()) + b"\n" for one in written)
    parser, found, at = journalread.Parser(), [], 0
    while at < len(data):
        size = cuts[at % len(cuts)]
        found += parser.feed(data[at : at + size])
        at += size
    assert found == written
    for one in found:
        line = outcome(lambda one=one: journalread.parse_entry(one))
        assert line is Refused or isinstance(line.message, bytes)
        event = outcome(lambda one=one: events.read(one))
        if event not in (None, Refused):
            json.dumps(event)


def exported(name: bytes, value: bytes) -> bytes:
    """A field in the export format (https://systemd.io/JOURNAL_EXPORT_FORMATS)."""
    if all(byte >= 32 or byte == 9 for byte in value):
        return b"%s=%s\n" % (name, value)
    return b"%s\n%s%s\n" % (name, len(value).to_bytes(8, "little"), value)


EXPORTS = [b"A=b\n", b"\n", b"A\n", bytes(8), b"\x01" + bytes(7), b"\xff" * 8, b"=", b"x"]


@given(st.one_of(st.binary(max_size=80), st.lists(st.sampled_from(EXPORTS)).map(b"".join)))
def test_what_is_no_export(data: bytes) -> None:
    outcome(lambda: list(journalread.Parser().feed(data)))


@given(nearly([{"log": "text\n", "stream": "stderr", "time": "2026-11-22T00:00:00.123456789Z"}]))
def test_lines_of_the_json_log(data: Any) -> None:
    outcome(lambda: json_log._parse(raw(data)))


@given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=4))
def test_fields_of_the_journal(fields: dict[str, str]) -> None:
    """Written as the native protocol has it: what comes out is what went in, whatever is in a value."""
    encoded = outcome(lambda: journal.encode_fields(fields))
    if encoded is not Refused:
        found = {}
        while encoded:
            size = int.from_bytes(encoded[:8], "little")
            name, _, value = encoded[8 : 8 + size].partition(b"=")
            found[name.decode()] = value.decode("utf-8", "surrogateescape")
            encoded = encoded[8 + size :]
        assert found == fields


@given(st.binary(max_size=80))
def test_bytes_that_are_no_document(data: bytes) -> None:
    for parser in (documents.parse_manifest, documents.parse_config, json_log._parse):
        outcome(lambda parser=parser: parser(data))
    outcome(lambda: profile_json.parse(data, "/p.json"))
