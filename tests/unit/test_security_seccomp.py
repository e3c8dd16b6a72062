"""The default seccomp profile as it is compiled: each program is run by an interpreter of classic BPF."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import posix
import stat
import struct
from pathlib import Path

import pytest
from forked import needs_root

from sysbox.base import paths
from sysbox.base.errors import FormatError, SpecError, Unsupported
from sysbox.linux import capability
from sysbox.security import (
    bounded,
    bpf,
    capabilities,
    filter_cache,
    profile,
    profile_json,
    seccomp,
)
from sysbox.security.apparmor import DEFAULT, SYSTEMD
from sysbox.spec import Security

HELD = (1 << 41) - 1
X86_64, X86, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
ALLOW = 0x7FFF0000


def refused(number: int) -> int:
    return 0x00050000 | number


def run(program: bytes, number: int, args: tuple[int, ...] = (), arch: int = X86_64) -> int:
    """What the kernel's interpreter of classic BPF returns (net/core/filter.c), for the subset used."""
    padded = (*args, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("=iIQ6Q", number, arch, 0, *padded)
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator, at = 0, 0
    while True:
        op, if_true, if_false, operand = code[at]
        at += 1
        if op == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, operand)
        elif op == 0x06:
            return operand
        elif op == 0x05:
            at += operand
        elif op == 0x54:
            accumulator &= operand
        else:
            true = {0x15: accumulator == operand, 0x25: accumulator > operand}.get(op)
            if true is None:
                true = {0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}[op]
            at += if_true if true else if_false


DEFAULTS = Security()


def compiled(security: Security = DEFAULTS, machine: str = "x86_64") -> bytes:
    mask = capabilities.resolve(security, HELD)
    return bpf.compile_profile(profile.default(), mask, machine)


@pytest.fixture(scope="module")
def default() -> bytes:
    return compiled()


@pytest.fixture(scope="module")
def admin() -> bytes:
    return compiled(Security(cap_add=("ALL",)))


NUMBERS = {
    "read": 0, "execve": 59, "openat": 257, "capset": 126, "setresuid": 117, "setgroups": 116,
    "prctl": 157, "close_range": 436, "chdir": 80, "seccomp": 317, "ptrace": 101, "memfd_create": 319,
    "chroot": 161, "futex_waitv": 449, "vmsplice": 278, "arch_prctl": 158,
}  # fmt: skip
EPERM_NUMBERS = {
    "io_uring_setup": 425, "keyctl": 250, "add_key": 248, "kexec_load": 246, "mount": 165, "setns": 308,
    "unshare": 272, "bpf": 321, "perf_event_open": 298, "init_module": 175, "reboot": 169, "syslog": 103,
    "userfaultfd": 323, "open_by_handle_at": 304, "iopl": 172, "settimeofday": 164, "pivot_root": 155,
    "swapon": 167, "acct": 163, "move_mount": 429, "kcmp": 312, "pidfd_getfd": 438, "mbind": 237,
}  # fmt: skip
# open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr
BY_DESCRIPTOR = (428, 429, 430, 431, 432, 433, 442)


@pytest.mark.parametrize("name", NUMBERS)
def test_ordinary_calls_are_allowed(default: bytes, name: str) -> None:
    assert run(default, NUMBERS[name]) == ALLOW


@pytest.mark.parametrize("name", EPERM_NUMBERS)
def test_known_and_refused_calls_fail_with_eperm(default: bytes, name: str) -> None:
    assert run(default, EPERM_NUMBERS[name]) == refused(errno.EPERM)


@pytest.mark.parametrize("number", [435, 600, 5000])  # clone3, and calls that do not exist yet
def test_newer_calls_fail_with_enosys(default: bytes, number: int) -> None:
    assert run(default, number) == refused(errno.ENOSYS)


@pytest.mark.parametrize("name", ["mount", "setns", "unshare", "bpf", "pivot_root", "move_mount"])
def test_sys_admin_opens_what_it_is_for(admin: bytes, name: str) -> None:
    assert run(admin, EPERM_NUMBERS[name]) == ALLOW
    assert run(admin, 435) == ALLOW  # clone3


@pytest.mark.parametrize("name", ["io_uring_setup", "keyctl", "kexec_load", "userfaultfd"])
def test_no_capability_opens_these(admin: bytes, name: str) -> None:
    assert run(admin, EPERM_NUMBERS[name]) == refused(errno.EPERM)


def test_one_capability_opens_only_its_own() -> None:
    program = compiled(Security(cap_add=("SYS_TIME", "BPF")))
    assert run(program, EPERM_NUMBERS["settimeofday"]) == ALLOW
    assert run(program, EPERM_NUMBERS["bpf"]) == ALLOW
    assert run(program, EPERM_NUMBERS["mount"]) == refused(errno.EPERM)
    dropped = compiled(Security(cap_drop=("SYS_CHROOT",)))
    assert run(dropped, NUMBERS["chroot"]) == refused(errno.EPERM)


def test_clone_makes_threads_and_processes_but_no_namespaces(default: bytes, admin: bytes) -> None:
    thread = 0x003D0F00  # what glibc passes for a thread
    assert run(default, 56, (thread,)) == ALLOW
    assert run(default, 56, (17,)) == ALLOW
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert run(default, 56, (flag | 17,)) == refused(errno.EPERM)
        assert run(admin, 56, (flag | 17,)) == ALLOW
    assert run(default, 120, (thread,), arch=X86) == ALLOW
    assert run(default, 120, (0x10000000,), arch=X86) == refused(errno.EPERM)


UPPER = 0xDEADBEEF << 32


@pytest.mark.parametrize("family", [38, 40])  # AF_ALG, AF_VSOCK
def test_socket_families(default: bytes, family: int) -> None:
    for value in (family, family | UPPER):
        assert run(default, 41, (value, 1, 0)) == refused(errno.EPERM)
    assert run(default, 359, (family, 1, 0), arch=X86) == refused(errno.EPERM)
    for call in range(1, 21):
        assert run(default, 102, (call, 0x1000), arch=X86) == refused(errno.EPERM)
    for other in (1, 2, 10, 16, 17, 39, 41):
        assert run(default, 41, (other, 1, 0)) == ALLOW
        assert run(default, 359, (other, 1, 0), arch=X86) == ALLOW


@pytest.mark.parametrize("request_", [0x5412, 0x541C])  # TIOCSTI, TIOCLINUX
def test_terminal_injection(default: bytes, admin: bytes, request_: int) -> None:
    for value in (request_, request_ | UPPER):
        assert run(default, 16, (0, value)) == refused(errno.EPERM)
        assert run(admin, 16, (0, value)) == ALLOW
    assert run(default, 54, (0, request_), arch=X86) == refused(errno.EPERM)
    for other in (0x5401, 0x5413, 0x5414, 0x80045430, 0xFFFFFFFF80045430):
        assert run(default, 16, (0, other)) == ALLOW


@pytest.mark.parametrize("number", [0, 59, 39, 520])
def test_x32_is_refused(default: bytes, number: int) -> None:
    assert run(default, 0x40000000 | number) == refused(errno.ENOSYS)


def test_foreign_architecture_is_refused(default: bytes) -> None:
    assert run(default, 63, arch=AARCH64) == refused(errno.ENOSYS)


@pytest.mark.parametrize("persona", [0, 8, 0x20000, 0x20008, 0xFFFFFFFF])
def test_personalities(default: bytes, persona: int) -> None:
    assert run(default, 135, (persona,)) == ALLOW
    assert run(default, 135, (persona | 0x40000,)) in (ALLOW, refused(errno.ENOSYS))
    assert run(default, 135, (0x40000,)) == refused(errno.ENOSYS)  # ADDR_NO_RANDOMIZE


def test_aarch64_is_compiled_on_any_machine_that_has_its_byte_order() -> None:
    assert set(bpf.ARCHITECTURES) >= {"x86_64", "aarch64", "riscv64", "ppc64le", "s390x"}
    with pytest.raises(Unsupported, match="no seccomp profile for the CPU 'vax'"):
        compiled(machine="vax")


def test_the_version_follows_the_profile_and_the_compiler() -> None:
    """A cached filter is found by VERSION: raise it in seccomp.py when this digest changes."""
    library = bpf.library()
    tokens = [library.Arch.X86_64, library.Arch.X86, library.Arch.AARCH64]
    guards = bpf._guards(library, profile.GUARDS, frozenset(), tokens)
    digest = hashlib.sha256(repr(profile.default()).encode() + guards).hexdigest()[:16]
    assert (seccomp.VERSION, digest) == (2, "7fa42a980053aa95")


def test_the_gates_are_those_that_the_profile_asks_about() -> None:
    asked: set[str] = set()
    for rule in profile.default().rules:
        asked.update(rule.if_caps + rule.unless_caps)
    for guard in profile.GUARDS:
        asked.update(guard.unless_caps)
    assert asked == set(seccomp.GATES)
    assert set(capability.names(capability.mask(seccomp.GATES))) == asked


def test_no_name_is_both_allowed_and_refused() -> None:
    plain = [rule for rule in profile.default().rules if not (rule.args or rule.if_caps)]
    allowed = {name for rule in plain if rule.action == profile.ALLOW for name in rule.names}
    denied = {name for rule in plain if rule.action == profile.ERRNO for name in rule.names}
    assert not allowed & denied


# --- the cache -------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "STATE", str(tmp_path / "state"))
    monkeypatch.setattr(paths, "CACHE", str(tmp_path / "state/cache"))
    monkeypatch.setattr(filter_cache, "DIRECTORY", str(tmp_path / "state/cache/seccomp"))
    return tmp_path / "state/cache/seccomp"


def program_for(security: Security, mask: int) -> bytes | None:
    found = seccomp.filter_for(security, mask, "x86_64")
    assert found is None or (found.program and not found.listener)
    return found.program if found else None


def default_program() -> bytes:
    program = program_for(Security(), capabilities.resolve(Security(), HELD))
    assert program
    return program


def no_compiler(*_: object) -> bytes:
    raise AssertionError("compiled again")


def test_a_cached_filter_is_not_compiled_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = default_program()
    monkeypatch.setattr(bpf, "compile_profile", no_compiler)
    assert default_program() == first
    (entry,) = cache.iterdir()
    assert entry.stat().st_mode & 0o7777 == 0o600
    assert cache.stat().st_mode & 0o7777 == 0o700
    assert len(first) % 8 == 0
    # a capability that the profile does not ask about shares the filter
    assert program_for(Security(), 0 | capability.mask(("SYS_CHROOT",))) == first


def test_a_wide_filter_is_not_that_of_a_narrow_container(cache: Path) -> None:
    """Each finds its own in the cache, whichever was compiled first."""
    wide = HELD
    narrow = capabilities.resolve(Security(), HELD)
    more = narrow | capability.mask(("NET_ADMIN",))  # the profile does not ask for it
    for _ in range(2):
        found = [program_for(Security(), mask) for mask in (wide, narrow, more)]
        assert all(found)
        assert run(found[0] or b"", EPERM_NUMBERS["mount"]) == ALLOW
        assert run(found[1] or b"", EPERM_NUMBERS["mount"]) == refused(errno.EPERM)
        assert found[2] == found[1]
    assert len(list(cache.iterdir())) == 2


def test_what_apparmor_denies_by_path_is_not_had_by_descriptor(cache: Path) -> None:
    """Mounts without a path, or with another one. The profile of a container that mounts leaves them."""

    def program(mask: int, apparmor: str) -> bytes:
        found = seccomp.filter_for(Security(), mask, "x86_64", apparmor=apparmor)
        assert found
        return found.program

    narrow = capabilities.resolve(Security(), HELD)
    for _ in range(2):  # compiled, then cached
        open_, closed = program(HELD, SYSTEMD), program(HELD, DEFAULT)
        for number in BY_DESCRIPTOR:
            for arch in (X86_64, X86):
                assert run(closed, number, arch=arch) == refused(errno.EPERM)
                assert run(open_, number, arch=arch) == ALLOW
        # about these AppArmor is asked
        assert (
            run(closed, EPERM_NUMBERS["mount"]) == run(closed, EPERM_NUMBERS["pivot_root"]) == ALLOW
        )
        assert program(HELD, "") == open_
        # who may not mount at all shares the filter with hosts without AppArmor
        assert program(narrow, DEFAULT) == program(narrow, "")
    assert len(list(cache.iterdir())) == 3
    record = seccomp.filter_for(Security(seccomp="record:/x"), HELD, "x86_64", apparmor=DEFAULT)
    assert record
    assert record.program == closed


@pytest.mark.parametrize(
    "damage", ["empty", "truncated", "flipped", "long", "link", "public", "foreign", "fifo"]
)
def test_a_damaged_cache_is_compiled_once_more(cache: Path, damage: str) -> None:
    first = default_program()
    (entry,) = cache.iterdir()
    content = entry.read_bytes()
    if damage == "empty":
        entry.write_bytes(b"")
    elif damage == "truncated":
        entry.write_bytes(content[:-16])
    elif damage == "flipped":
        entry.write_bytes(content[:80] + bytes([content[80] ^ 1]) + content[81:])
    elif damage == "long":
        entry.write_bytes(content * 20)
    elif damage == "public":
        entry.chmod(0o666)
    elif damage == "foreign":
        needs_root()
        os.chown(entry, 1, 0)
    elif damage == "fifo":
        entry.unlink()
        posix.mkfifo(entry, 0o600)
    else:
        elsewhere = cache.parent / "elsewhere"
        entry.rename(elsewhere)
        entry.symlink_to(elsewhere)
    assert default_program() == first
    (entry,) = cache.iterdir()
    assert entry.read_bytes() == content
    status = entry.lstat()
    assert stat.S_ISREG(status.st_mode)
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, os.geteuid())


def test_without_a_compiler_there_is_no_container(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise Unsupported("cannot compile the seccomp profile: no libseccomp")

    monkeypatch.setattr(bpf, "library", missing)
    with pytest.raises(Unsupported):
        default_program()


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the directory should be")
    assert default_program()


def test_unconfined_only_when_asked_for_or_privileged(cache: Path) -> None:
    assert program_for(Security(seccomp="unconfined"), 0) is None
    assert program_for(Security(privileged=True), HELD) is None
    assert not cache.exists()


# --- profiles of the user's ------------------------------------------------------------------------

USERS = b"""{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{"architecture": "SCMP_ARCH_X86_64",
 "subArchitectures": ["SCMP_ARCH_X86"]}], "syscalls": [
 {"names": ["mkdir", "mkdirat", "nosuchcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "args": null},
 {"name": "socket", "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}]},
 {"names": ["chroot"], "action": "SCMP_ACT_KILL_PROCESS", "excludes": {"caps": ["CAP_SYS_CHROOT"]}},
 {"names": ["acct"], "action": "SCMP_ACT_LOG", "includes": {"minKernel": "99.0"}}]}"""


def test_a_users_profile_is_compiled_and_cached(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(USERS)
    for privileged in (False, True):
        security = Security(seccomp=str(path), privileged=privileged)
        program = program_for(security, 0)
        assert program
    assert run(program, 83) == refused(13)
    assert run(program, 0) == ALLOW
    assert run(program, 41, (16,)) == refused(errno.EPERM)
    assert run(program, 41, (2,)) == ALLOW
    assert run(program, 161) == 0x80000000
    assert run(program, 163) == ALLOW
    assert len(list(cache.iterdir())) == 1
    holding = capability.mask(("SYS_CHROOT",))
    other = program_for(Security(seccomp=str(path)), holding)
    assert other
    assert run(other, 161) == ALLOW


def rule(text: str) -> bytes:
    return b'{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[%s]}' % text.encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "/p.json: "),
        (b"[]", "must be an object"),
        (b"null", "must be an object"),
        (b'{"defaultAction":"SCMP_ACT_ALLOW","defaultAction":"SCMP_ACT_ERRNO"}', "appears twice"),
        (b"{}", "defaultAction"),
        (b'{"defaultAction":"SCMP_ACT_ALOW"}', "defaultAction: 'SCMP_ACT_ALOW'"),
        (b'{"defaultAction":"SCMP_ACT_NOTIFY"}', "cannot be the default"),
        (b'{"defaultAction":"SCMP_ACT_ERRNO","sycalls":[]}', "unknown key 'sycalls'"),
        (b'{"defaultAction":"SCMP_ACT_ERRNO","syscalls":{}}', "syscalls: must be a list"),
        (
            b'{"defaultAction":"SCMP_ACT_ERRNO","flags":["SECCOMP_FILTER_FLAG_LOGS"]}',
            "flags.0.: 'S",
        ),
        (b'{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_VAX"]}', "SCMP_ARCH_VAX"),
        (rule("{}"), "names: must not be empty"),
        (rule('{"names":["a/b"],"action":"SCMP_ACT_ALLOW"}'), "is not a name"),
        (rule('{"names":[1],"action":"SCMP_ACT_ALLOW"}'), "is not a name"),
        (rule('{"names":["read"]}'), "action: is missing"),
        (
            rule('{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":6}]}'),
            "args.0.: index",
        ),
        (rule('{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":true}'), "errnoRet"),
        (rule('{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":5000}'), "errnoRet"),
        (rule('{"names":["read"],"action":"SCMP_ACT_ERRNO","errno":"EWHAT"}'), "EWHAT"),
        (rule('{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":[]}'), "includes: must be"),
        (rule('{"names":["read"],"action":"SCMP_ACT_ALLOW","include":{}}'), "did|unknown key"),
        (b'{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":' + b"9" * 40 + b"}", "64 bits"),
        (
            rule(
                '{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"5.%s"}}'
                % ("9" * 5000)
            ),
            "minKernel",
        ),
    ],
)
def test_a_malformed_profile_is_refused_by_the_key(content: bytes, message: str) -> None:
    with pytest.raises((SpecError, FormatError), match=message):
        profile_json.parse(content, "/p.json")


def test_where_a_users_profile_is_read_from(cache: Path, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(seccomp.MAX_PROFILE + 1)
    fifo = tmp_path / "fifo"
    posix.mkfifo(fifo)
    for path, message in (
        ("relative.json", "no profile of this name"),
        ("/a\0b", "absolute path"),
        (str(tmp_path / "absent"), "No such file"),
        (str(tmp_path), "not a regular file"),
        (str(fifo), "not a regular file"),
        (str(big), "larger than 8 MiB"),
    ):
        with pytest.raises(SpecError, match=message):
            program_for(Security(seccomp=path), 0)


def comparisons(count: int, *, spread: int) -> bytes:
    """A profile with rules for one call, each with two comparisons or three, by one operator or all."""
    operators = ("LT", "LE", "GE", "GT", "NE", "MASKED_EQ")
    rules = [
        {
            "names": ["ioctl"],
            "action": "SCMP_ACT_ALLOW",
            "args": [
                {
                    "index": index,
                    "value": number * 7 + 1,
                    "valueTwo": 3,
                    "op": f"SCMP_CMP_{operators[number // 6**index % 6] if spread == 3 else 'EQ'}",
                }
                for index in range(spread)
            ],
        }
        for number in range(count)
    ]
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}).encode()


@pytest.mark.parametrize(("count", "spread"), [(1500, 2), (60, 3), (4096, 2)])
def test_what_a_profile_may_cost(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, spread: int
) -> None:
    """libseccomp takes minutes for these, and for more of them all of the memory."""
    monkeypatch.setattr(bounded, "SECONDS", 1)
    path = tmp_path / "profile.json"
    path.write_bytes(comparisons(count, spread=spread))
    with pytest.raises(SpecError, match=r"takes more than 1 s|over 4096 instructions"):
        program_for(Security(seccomp=str(path)), 0)
    assert not cache.exists()


def test_a_rule_said_again_and_again_costs_nothing() -> None:
    args = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}] * 50_000
    names = ["ioctl", "nosuchcall", *(f"nosuch{number}" for number in range(10_000))] * 2
    one = {"names": names, "action": "SCMP_ACT_ALLOW", "args": args}
    content = json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [one]}).encode()
    parsed = profile_json.parse(content, "/p.json")
    program = bounded.compile_profile(parsed, 0, "x86_64")
    assert run(program, 16, (1,)) == ALLOW
    assert run(program, 16, (2,)) == refused(errno.EPERM)


def test_the_error_of_a_profile_comes_out_of_the_process_that_compiles_it() -> None:
    with pytest.raises(Unsupported, match="no seccomp profile for the CPU 'vax'") as caught:
        bounded.compile_profile(profile.default(), 0, "vax")
    assert caught.value.hint == ""
    contradicts = profile_json.parse(
        rule('{"names":["read"],"action":"SCMP_ACT_TRACE","errnoRet":4000}'), "/p.json"
    ).replace(sub_architectures={"X86_64": ("S390X",)})
    with pytest.raises(SpecError, match="cannot be combined"):
        bounded.compile_profile(contradicts, 0, "x86_64")
