"""Seccomp profiles of docker's and podman's: each key, each action, and what is said of unknown names."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from test_security_seccomp import AARCH64, ALLOW, X86, refused, run

from sysbox.base.errors import FormatError, SpecError
from sysbox.linux import capability
from sysbox.security import bounded, bpf, filter_cache, known_calls, profile, profile_json, seccomp
from sysbox.spec import Security

ENOSYS, EPERM = refused(errno.ENOSYS), refused(errno.EPERM)
MKDIR, PERSONALITY, GETPID, NEWEST = 83, 135, 39, 334  # the last is rseq(2)
_SHARED = "usr/share/containers/seccomp.json"  # unpacked by tools/setup.sh, or installed
UNPACKED, INSTALLED = Path(sys.prefix) / "test-services" / _SHARED, Path("/", _SHARED)
PODMAN = UNPACKED if UNPACKED.exists() else INSTALLED


def compiled(data: object, mask: int = 0, machine: str = "x86_64") -> bytes:
    parsed = profile_json.parse(json.dumps(data).encode(), "/p.json")
    return bpf.compile_profile(parsed, mask, machine)


def one(action: str, default: str = "SCMP_ACT_ALLOW", **more: object) -> dict[str, object]:
    rule = {"names": ["mkdir"], "action": action, **more}
    return {"defaultAction": default, "syscalls": [rule], "listenerPath": "/run/agent"}


@pytest.mark.parametrize(
    ("action", "returned"),
    [
        ("SCMP_ACT_KILL", 0), ("SCMP_ACT_KILL_THREAD", 0), ("SCMP_ACT_KILL_PROCESS", 0x80000000),
        ("SCMP_ACT_TRAP", 0x00030000), ("SCMP_ACT_ERRNO", EPERM), ("SCMP_ACT_TRACE", 0x7FF00001),
        ("SCMP_ACT_LOG", 0x7FFC0000), ("SCMP_ACT_NOTIFY", 0x7FC00000),
    ],
)  # fmt: skip
def test_each_action(action: str, returned: int) -> None:
    """What the filter returns (seccomp(2)), as a rule and as the default."""
    program = compiled(one(action))
    assert (run(program, MKDIR), run(program, GETPID)) == (returned, ALLOW)
    if action != "SCMP_ACT_NOTIFY":
        program = compiled(one("SCMP_ACT_ALLOW", action))
        assert (run(program, MKDIR), run(program, GETPID)) == (ALLOW, returned)


@pytest.mark.parametrize("action", ["SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"])
def test_the_number_of_an_action(action: str) -> None:
    base = 0x00050000 if action == "SCMP_ACT_ERRNO" else 0x7FF00000
    assert run(compiled(one(action, errnoRet=95)), MKDIR) == base | 95
    assert run(compiled(one(action, errno="ENOTSUP")), MKDIR) == base | 95
    # the number comes first, as in podman
    assert run(compiled(one(action, errno="EPERM", errnoRet=95)), MKDIR) == base | 95
    default = {**one("SCMP_ACT_ALLOW", action), "defaultErrnoRet": 13}
    assert run(compiled(default), GETPID) == base | 13


COMPARISONS: dict[str, Any] = {
    "NE": lambda value: value != 5, "LT": lambda value: value < 5, "LE": lambda value: value <= 5,
    "EQ": lambda value: value == 5, "GE": lambda value: value >= 5, "GT": lambda value: value > 5,
    "MASKED_EQ": lambda value: value & 5 == 4,
}  # fmt: skip


@pytest.mark.parametrize("operator", COMPARISONS)
@pytest.mark.parametrize("index", [0, 5])
def test_each_comparison(operator: str, index: int) -> None:
    """All 64 bits of the argument count."""
    argument = {"index": index, "value": 5, "valueTwo": 4, "op": f"SCMP_CMP_{operator}"}
    program = compiled(one("SCMP_ACT_ERRNO", args=[argument]))
    for value in (0, 1, 4, 5, 6, 7, 13, 1 << 32, (1 << 32) + 4, (1 << 32) + 5, (1 << 64) - 1):
        args = tuple(value if place == index else 77 for place in range(6))
        assert (run(program, MKDIR, args) == EPERM) is COMPARISONS[operator](value), value


def test_all_arguments_or_any_value_of_one() -> None:
    def argument(index: int, value: int) -> dict[str, object]:
        return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}

    every = compiled(one("SCMP_ACT_ERRNO", args=[argument(0, 1), argument(1, 2)]))
    assert [run(every, MKDIR, args) for args in ((1, 2), (1, 3), (2, 2))] == [EPERM, ALLOW, ALLOW]
    either = compiled(one("SCMP_ACT_ERRNO", args=[argument(0, 1), argument(0, 2)]))
    assert [run(either, MKDIR, (value,)) for value in (1, 2, 3)] == [EPERM, EPERM, ALLOW]


@pytest.mark.parametrize(
    ("condition", "applies"),
    [
        ({"includes": {"caps": ["CAP_SYS_TIME"]}}, True),
        ({"includes": {"caps": ["CAP_SYS_TIME", "CAP_CHOWN"]}}, False),
        ({"excludes": {"caps": ["CAP_CHOWN"]}}, True),
        ({"excludes": {"caps": ["CAP_CHOWN", "CAP_SYS_TIME"]}}, False),
        ({"includes": {"arches": ["amd64", "arm64"]}}, True),
        ({"includes": {"arches": ["s390x"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "5.4"}}, True),
        ({"includes": {"minKernel": "6.1"}}, True),
        ({"includes": {"minKernel": "6.2"}}, False),
        ({"includes": {"minKernel": "10.0"}}, False),
        ({"excludes": {"minKernel": "6.1"}}, False),
        ({"excludes": {"minKernel": "6.2"}}, True),
        ({"includes": {"minKernel": "5.4", "arches": ["s390x"]}}, False),
        ({"includes": {}, "excludes": None, "comment": "", "args": None, "errnoRet": None}, True),
    ],
    ids=lambda value: "" if isinstance(value, bool) else json.dumps(value),
)
def test_where_a_rule_applies(
    monkeypatch: pytest.MonkeyPatch, condition: dict[str, Any], applies: bool
) -> None:
    monkeypatch.setattr(profile_json, "_running", lambda: (6, 1))
    program = compiled(one("SCMP_ACT_ERRNO", **condition), capability.mask(("SYS_TIME",)))
    assert (run(program, MKDIR) == EPERM) is applies


def test_architectures() -> None:
    def built(**more: object) -> bytes:
        return compiled({**one("SCMP_ACT_ERRNO"), **more})

    both = {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}
    other = {"architecture": "SCMP_ARCH_LOONGARCH64", "subArchitectures": None}
    program = built(archMap=[other, both])
    assert (run(program, MKDIR), run(program, 39, arch=X86)) == (EPERM, EPERM)
    assert run(program, MKDIR, arch=AARCH64) == ENOSYS
    for program in (built(architectures=["SCMP_ARCH_X86_64"]), built(archMap=[other]), built()):
        assert (run(program, MKDIR), run(program, 39, arch=X86)) == (EPERM, ENOSYS)
    x32 = built(architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"])
    assert run(x32, 0x40000000 | MKDIR) == EPERM
    assert run(built(), 0x40000000 | MKDIR) == ENOSYS


@pytest.mark.parametrize("action", ["ERRNO", "KILL", "KILL_PROCESS", "TRAP"])
def test_calls_that_are_newer_than_the_profile(action: str) -> None:
    """Above all numbers that it names for the architecture: ENOSYS. Between them: its default."""
    rules = [
        {"names": ["read", "mkdir"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["rseq"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_TIME"]}},
    ]
    default = {
        "defaultAction": f"SCMP_ACT_{action}",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": rules,
    }
    program = compiled(default)
    old = run(program, GETPID)
    assert old != ENOSYS
    # named, though only for others: the author knew it
    assert run(program, NEWEST) == old
    assert [run(program, number) for number in (NEWEST + 1, 424, 5000)] == [ENOSYS] * 3
    assert [run(program, number, arch=X86) for number in (20, 386, 387)] == [old, old, ENOSYS]
    assert run(program, 0x40000000) == ENOSYS


@pytest.mark.parametrize(
    "default",
    [{"defaultAction": "SCMP_ACT_ALLOW"}, {"defaultAction": "SCMP_ACT_LOG"},
     {"defaultAction": "SCMP_ACT_TRACE"}, {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38}],
    ids=["allow", "log", "trace", "enosys"],
)  # fmt: skip
def test_where_the_default_is_right_for_newer_calls(default: dict[str, object]) -> None:
    program = compiled({**default, "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_KILL"}]})
    assert run(program, 5000) == run(program, GETPID) != 0


def test_x32_beside_newer_calls() -> None:
    program = compiled(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"}],
        }
    )
    assert run(program, 0x40000000 | MKDIR) == ALLOW
    assert run(program, 500) == ENOSYS


# --- docker's and podman's own ------------------------------------------------------------------------


def in_dockers_json(wanted: profile.Profile) -> dict[str, object]:
    """A profile in the shape of docker's own file, with all of its keys."""
    return {
        "defaultAction": wanted.default_action,
        "defaultErrnoRet": wanted.default_errno,
        "archMap": [
            {"architecture": f"SCMP_ARCH_{native}",
             "subArchitectures": [f"SCMP_ARCH_{other}" for other in others] or None}
            for _, native, others in bpf.ARCHITECTURES.values() if native not in ("X86", "ARM")
        ],
        "syscalls": [
            {
                "names": list(rule.names), "action": rule.action, "errnoRet": rule.errno, "comment": "",
                "args": [
                    {"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op}
                    for arg in rule.args
                ] or None,
                "includes": {"caps": [f"CAP_{cap}" for cap in rule.if_caps], "minKernel": "4.8",
                             "arches": list(rule.if_arches)},
                "excludes": {"caps": [f"CAP_{cap}" for cap in rule.unless_caps],
                             "arches": list(rule.unless_arches)},
            }
            for rule in wanted.rules
        ],
    }  # fmt: skip


@pytest.mark.parametrize("held", [(), ("SYS_ADMIN",), ("SYS_TIME", "BPF", "SYS_CHROOT")])
def test_a_whole_profile_in_dockers_shape(held: tuple[str, ...]) -> None:
    """sysbox's own, by way of JSON, is the same filter."""
    plain = profile.default().replace(guards=())
    mask = capability.mask(held)
    program = compiled(in_dockers_json(plain), mask)
    own = bpf.compile_profile(plain, mask, "x86_64")
    for number in range(500):
        for args in ((), (0x10000000,), (8,)):
            assert run(program, number, args) == run(own, number, args), number
        assert run(program, number, arch=X86) == run(own, number, arch=X86)


def test_podmans_own_profile(monkeypatch: pytest.MonkeyPatch, requires: Any) -> None:
    """Within a second of CPU time, the bound of the process that compiles it."""
    requires(PODMAN.exists(), "podman's profile, of golang-github-containers-common")
    monkeypatch.setattr(bounded, "SECONDS", 1)
    parsed = profile_json.parse(PODMAN.read_bytes(), str(PODMAN))
    assert known_calls.describe_unknown(parsed) == ""
    program = bounded.compile_profile(parsed, capability.mask(("SYS_TIME",)), "x86_64")
    assert run(program, MKDIR) == ALLOW
    assert run(program, 164) == ALLOW  # settimeofday(2)
    assert run(program, 163) in (ENOSYS, EPERM)  # acct(2)
    assert run(program, PERSONALITY, (0,)) == ALLOW
    assert run(program, PERSONALITY, (0x40000,)) in (ENOSYS, EPERM)
    assert run(program, 425) in (ENOSYS, EPERM)  # io_uring_setup(2)
    assert run(program, 5000) == ENOSYS


# --- the listener, flags ------------------------------------------------------------------------------


def test_flags_and_the_listener() -> None:
    data = {
        **one("SCMP_ACT_NOTIFY"),
        "listenerMetadata": "MKDIR=1 é",
        "flags": [
            f"SECCOMP_FILTER_FLAG_{name}"
            for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")
        ],
    }  # fmt: skip
    parsed = profile_json.parse(json.dumps(data).encode(), "/p.json")
    assert (parsed.flags, parsed.listener, parsed.metadata) == (38, "/run/agent", "MKDIR=1 é")
    assert profile_json.parse(json.dumps({**data, "flags": None}).encode(), "/p.json").flags == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"listenerPath": None}, "SCMP_ACT_NOTIFY needs a listenerPath"),
        ({"listenerPath": "agent"}, "listenerPath: 'agent' is not an absolute path"),
        ({"listenerPath": 5}, "listenerPath: must be a string"),
        ({"listenerPath": "/a\0b"}, "listenerPath: must be a string"),
        ({"listenerMetadata": "x" * 40_000}, "listenerMetadata: must be a string of at most"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "SCMP_ACT_NOTIFY cannot be the default"),
        ({"syscalls": [{"names": ["mkdir", "write"], "action": "SCMP_ACT_NOTIFY"}]}, "write cannot be"),
        ({"flags": ["SECCOMP_FILTER_FLAG_LOGG"]}, r"flags\[0\]: 'SECCOMP_FILTER_FLAG_LOGG'"),
        ({"flags": [["x"]]}, r"flags\[0\]"),
        ({"listenerPath": "/" + "é" * 54}, "listenerPath: longer than the 107 bytes"),
        ({"listenerPath": None, "syscalls": None, "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]},
         "flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a listenerPath"),
    ],
    ids=["none", "relative", "number", "nul", "long", "default", "write", "flag", "list", "path", "killable"],
)  # fmt: skip
def test_a_listener_that_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        profile_json.parse(json.dumps({**one("SCMP_ACT_NOTIFY"), **change}).encode(), "/p.json")


def test_they_are_cached_with_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_cache, "DIRECTORY", str(tmp_path))
    path = tmp_path / "p.json"
    path.write_text(json.dumps({**one("SCMP_ACT_NOTIFY"), "listenerMetadata": "\n", "flags": [
        "SECCOMP_FILTER_FLAG_LOG"]}))  # fmt: skip
    security = Security(seccomp=str(path))
    first = seccomp.filter_for(security, 0, "x86_64")
    assert first
    assert (first.flags, first.listener, first.metadata) == (2, "/run/agent", "\n")
    monkeypatch.delattr(bounded, "compile_profile")
    assert seccomp.filter_for(security, 0, "x86_64") == first


# --- what is said of a profile ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{\n  "defaultAction": "SCMP_ACT_ERRNO",\n  "syscalls": [}\n', "not JSON in line 3, column 16: "),
        (b'{"defaultAction" "x"}', "not JSON in line 1, column 18: "),
        (b'{"defaultAction": "a\nb"}', "not JSON in line 1, column 21: "),
        (b"", "not JSON in line 1, column 1: "),
        (b'{"a": 1} trailing', "not JSON in line 1, column 10: "),
        (b"[" * 5000, "too deep|not JSON in line 1"),
        (b'{\n"a": "\xc3\xa9\xff"}', "not UTF-8 in line 2, column 8: the byte 0xff$"),
        (b'\xef\xbb\xbf{"defaultAction": "x"}', "begins with a byte order mark: save it"),
        ('{"defaultAction": "x"}'.encode("utf-16"), "in UTF-16: save it as UTF-8"),
        (rb'{"syscalls": [{}, {"names": ["a", "\ud800"]}]}', r"syscalls\[1\].names\[1\]: .*half"),
        (rb'{"\udbff": 1}', "a key with half of a character"),
    ],
    ids=["list", "colon", "newline", "empty", "trailing", "deep", "bytes", "mark", "wide", "half", "key"],
)  # fmt: skip
def test_where_it_is_no_json(content: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        profile_json.parse(content, "/p.json")
    assert caught.value.message.startswith("seccomp profile /p.json: ")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("null", "must be an object, not null"),
        ("[]", "must be an object, not a list"),
        ("true", "must be an object, not true or false"),
        ("5.5", "must be an object, not a number"),
        ('{"syscalls": "x"}', "syscalls: must be a list, not a string"),
        ('{"syscalls": {}}', "syscalls: must be a list, not an object"),
        ("{}", "defaultAction: is missing"),
    ],
    ids=["null", "list", "bool", "number", "string", "object", "missing"],
)
def test_a_value_of_another_kind(content: str, message: str) -> None:
    """In the words of JSON."""
    with pytest.raises(SpecError, match=f"{message}$"):
        profile_json.parse(content.encode(), "/p.json")


def said_of(*names: str) -> str:
    data = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
    }
    return known_calls.describe_unknown(profile_json.parse(json.dumps(data).encode(), "/p.json"))


def test_unknown_names_are_said_in_one_line() -> None:
    assert said_of("read", "futex_wait", "mseal", "arm_fadvise64_64", "socketcall") == ""
    assert said_of("read", "opne") == "ignoring unknown system calls: opne (did you mean open?)"
    many = said_of(
        "quite_unheard_of", "wirte", *(f"zzzzzzzzzzzz{number}" for number in range(9000))
    )
    assert many.startswith(
        "ignoring unknown system calls: wirte (did you mean write?), quite_unheard_of, "
    )
    assert many.endswith(", 8997 more")
    assert len(said_of("x" * 100_000)) < 120


def test_what_was_said_is_kept_beside_the_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filter_cache, "DIRECTORY", str(tmp_path))
    path = tmp_path / "p.json"
    for names, wanted in ((["opne"], f"seccomp profile {path}: ignoring unknown "), (["open"], "")):
        path.write_text(json.dumps(
            {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}
        ))  # fmt: skip
        first = seccomp.unknown_calls(Security(seccomp=str(path)))
        assert first.startswith(wanted)
        assert bool(first) is bool(wanted)
        with monkeypatch.context() as patch:
            patch.delattr(known_calls, "describe_unknown")
            assert seccomp.unknown_calls(Security(seccomp=str(path))) == first
    assert seccomp.unknown_calls(Security()) == ""
