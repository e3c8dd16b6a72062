"""Compile a seccomp profile to classic BPF, through libseccomp.

Only this module imports pyseccomp, inside a function: the cache in `seccomp.py` makes that a cost of the
first compilation. libseccomp knows each CPU's system call numbers; a name that it does not know is newer
than the library and gets the profile's default action.
"""

from __future__ import annotations

import errno
import posix
import sys
from _struct import pack

from sysbox.base import program
from sysbox.base.errors import SpecError, Unsupported
from sysbox.linux import capability
from sysbox.security.profile import ERRNO, NOTIFY, Condition, Guard, Profile, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INSTRUCTION = 8  # bytes of a struct sock_filter
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

# machine of uname(2) -> Go's name, libseccomp's token, tokens of the 32-bit ABI that the CPU also runs.
# x32 is missing on purpose: its numbers above 0x40000000 are refused as a foreign architecture.
ARCHITECTURES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "x86_64": ("amd64", "X86_64", ("X86",)),
    "i686": ("386", "X86", ()),
    "aarch64": ("arm64", "AARCH64", ("ARM",)),
    "armv7l": ("arm", "ARM", ()),
    "ppc64le": ("ppc64le", "PPC64LE", ()),
    "riscv64": ("riscv64", "RISCV64", ()),
    "s390x": ("s390x", "S390X", ("S390",)),
}

_ACTIONS = {
    "SCMP_ACT_KILL": "KILL_THREAD",
    "SCMP_ACT_KILL_THREAD": "KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS": "KILL_PROCESS",
    "SCMP_ACT_TRAP": "TRAP",
    "SCMP_ACT_ALLOW": "ALLOW",
    "SCMP_ACT_LOG": "LOG",
    NOTIFY: "NOTIFY",
}
_OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")

# offsets in struct seccomp_data, opcodes of classic BPF (linux/bpf_common.h)
_NR, _ARCH, _ARGS = 0, 4, 16
_LOAD, _JUMP, _JUMP_EQUAL, _RETURN = 0x20, 0x05, 0x15, 0x06
_JUMP_ABOVE, _JUMP_FROM = 0x25, 0x35  # unsigned: greater, greater or equal
_RET_ERRNO = 0x00050000
_X32_BIT = 0x40000000  # __X32_SYSCALL_BIT

# direct numbers (asm/unistd.h) of calls for which libseccomp returns a pseudo number, as socketcall(2)
# multiplexes them too
_DIRECT_NUMBERS = (
    ("socket", "X86", 359),
    ("socket", "S390", 359),
    ("socket", "S390X", 359),
    ("socket", "PPC64LE", 326),
)


def compile_profile(profile: Profile, cap_mask: int, machine: str) -> bytes:
    """The filter as an array of struct sock_filter.

    Raises Unsupported without libseccomp or for an unknown CPU, SpecError for a profile that
    contradicts itself or is too long.
    """
    compiler = library()
    if machine not in ARCHITECTURES:
        raise Unsupported(f"no seccomp profile for the CPU '{machine}'")
    name, native, others = ARCHITECTURES[machine]
    if profile.sub_architectures is not None:
        others = profile.sub_architectures.get(native, ())
    tokens = [getattr(compiler.Arch, token) for token in (native, *others)]
    rules = _rules(compiler, profile, _held(cap_mask), name, tokens)
    before = _guards(compiler, profile.guards, _held(cap_mask), tokens)
    before += _newer(compiler, profile, tokens)
    if len(before + rules) > MAX_INSTRUCTIONS * INSTRUCTION:
        raise _too_long()
    return before + rules


def recorder(machine: str) -> bytes:
    """The filter that asks about every call, of each architecture.

    Only write(2) is not asked about: sysbox itself passes on by it who is to answer. Raises Unsupported.
    """
    compiler = library()
    if machine not in ARCHITECTURES:
        raise Unsupported(f"no seccomp filter for the CPU '{machine}'")
    token = getattr(compiler.Arch, ARCHITECTURES[machine][1])
    return (
        _op(_LOAD, _ARCH)
        + _op(_JUMP_EQUAL, token, 0, 3)
        + _op(_LOAD, _NR)
        + _op(_JUMP_EQUAL, compiler.resolve_syscall(token, "write"), 0, 1)
        + _op(_RETURN, compiler.ALLOW)
        + _op(_RETURN, compiler.NOTIFY)
    )


def _too_long() -> SpecError:
    return SpecError(
        f"seccomp profile: over {MAX_INSTRUCTIONS} instructions when compiled",
        hint="the kernel accepts no more (seccomp(2)): compare fewer arguments",
    )


def library() -> Any:
    """pyseccomp, imported with find_library replaced: that would run ldconfig to find two known names.

    Raises Unsupported.
    """
    program.load_site()
    import ctypes.util

    known = {"c": "libc.so.6", "seccomp": "libseccomp.so.2"}
    search = ctypes.util.find_library
    ctypes.util.find_library = known.get  # type: ignore[assignment]
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError) as error:
        raise Unsupported(
            f"cannot compile the seccomp profile: {error}",
            hint="install libseccomp2 and pyseccomp, or run with --security-opt seccomp=unconfined",
        ) from None
    finally:
        ctypes.util.find_library = search
    return pyseccomp


def _held(mask: int) -> frozenset[str]:
    return frozenset(capability.names(mask))


def _applies(rule: Rule, held: frozenset[str], machine: str) -> bool:
    return (
        held.issuperset(rule.if_caps)
        and held.isdisjoint(rule.unless_caps)
        and (not rule.if_arches or machine in rule.if_arches)
        and machine not in rule.unless_arches
    )


def _rules(
    library: Any, profile: Profile, held: frozenset[str], machine: str, tokens: list[int]
) -> bytes:
    default = _action(library, profile.default_action, profile.default_errno)
    built = library.SyscallFilter(default)
    try:
        for token in tokens[1:]:
            built.add_arch(token)
    except OSError as error:
        reason = posix.strerror(error.errno or 0)
        raise SpecError(
            f"seccomp profile: its architectures cannot be combined: {reason}"
        ) from None
    # as a kernel without support for the architecture
    built.set_attr(library.Attr.ACT_BADARCH, library.ERRNO(errno.ENOSYS))
    built.set_attr(library.Attr.CTL_OPTIMIZE, 2)  # a binary tree: fast to run and fast to load
    done: set[tuple[object, ...]] = set()
    for rule in profile.rules:
        action = _action(library, rule.action, rule.errno)
        if action == default or not _applies(rule, held, machine):
            continue  # libseccomp refuses a rule whose action is the default action
        numbers = _numbers(library, rule.names)
        for args in _alternatives(rule.args):
            for name, number in numbers.items():
                key = (number, action, args)
                if key not in done:
                    done.add(key)
                    _add(library, built, name, number, action, args)
            if len(done) > MAX_INSTRUCTIONS:  # each needs at least one instruction
                raise _too_long()
    return _export(built)


def knows(library: Any, name: str) -> bool:
    """Whether libseccomp knows a system call, of whichever architecture."""
    return bool(library.resolve_syscall(library.Arch.NATIVE, name) != _UNKNOWN)


def _numbers(library: Any, names: tuple[str, ...]) -> dict[str, int]:
    """Name -> number, for the names that libseccomp knows."""
    found = {name: library.resolve_syscall(library.Arch.NATIVE, name) for name in names}
    return {name: number for name, number in found.items() if number != _UNKNOWN}


def _add(
    library: Any, built: Any, name: str, number: int, action: int, args: tuple[Condition, ...]
) -> None:
    compared = [
        library.Arg(arg.index, _operator(library, arg.op), arg.value, arg.value_two) for arg in args
    ]
    try:
        built.add_rule(action, number, *compared)
    except OSError as error:
        reason = posix.strerror(error.errno or 0)
        raise SpecError(
            f"seccomp profile: the rule for '{name}' cannot be added: {reason}"
        ) from None


_UNKNOWN = -1  # __NR_SCMP_ERROR; other negative numbers are pseudo numbers for calls of other CPUs


def _alternatives(args: tuple[Condition, ...]) -> list[tuple[Condition, ...]]:
    """Split conditions into rules, as runc: on different arguments all must hold, on the same one any."""
    if len({arg.index for arg in args}) == len(args):
        return [args]
    return [(arg,) for arg in dict.fromkeys(args)]


def _action(library: Any, action: str, number: int | None) -> int:
    number = errno.EPERM if number is None else number
    if action == ERRNO:
        return library.ERRNO(number)  # type: ignore[no-any-return]
    if action == "SCMP_ACT_TRACE":
        return library.TRACE(number)  # type: ignore[no-any-return]
    if action not in _ACTIONS:
        raise SpecError(f"seccomp profile: the action {action} is not supported")
    return getattr(library, _ACTIONS[action])  # type: ignore[no-any-return]


def _operator(library: Any, op: str) -> int:
    name = op.removeprefix("SCMP_CMP_")
    if name not in _OPERATORS:
        raise SpecError(f"seccomp profile: unknown operator {op}")
    return getattr(library, name)  # type: ignore[no-any-return]


def _export(built: Any) -> bytes:
    fd = posix.memfd_create("sysbox-seccomp", posix.MFD_CLOEXEC)
    try:
        built.export_bpf(_File(fd))
        size = posix.fstat(fd).st_size
        return posix.pread(fd, size, 0)
    finally:
        posix.close(fd)


class _File:
    """A file object for pyseccomp, which only calls fileno()."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


# defaults that are right for a call that the profile's author could not know
_FOR_ANY_CALL = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")


def _newer(library: Any, profile: Profile, tokens: list[int]) -> bytes:
    """ENOSYS for calls whose numbers are above all that the profile names, as in runc: a C library then falls
    back to an older call, which it does not after EPERM.
    """
    default = profile.default_action
    if default in _FOR_ANY_CALL or (default == ERRNO and profile.default_errno == errno.ENOSYS):
        return b""
    names = {name for rule in profile.rules for name in rule.names}
    code = b""
    for token in tokens:
        # numbers that begin anew: of calls that only ARM has (__ARM_NR_BASE), and of x32
        aside = {library.Arch.ARM: 0xF0000, library.Arch.X86_64: _X32_BIT}.get(token, 1 << 31)
        found = (library.resolve_syscall(token, name) for name in names)
        highest = max((number for number in found if 0 <= number < aside), default=-1)
        if highest < 0 or token == library.Arch.X32:
            continue
        body = _op(_LOAD, _NR)
        if token == library.Arch.ARM or library.Arch.X32 in tokens:
            body += _op(_JUMP_FROM, aside, 2, 0)
        body += _op(_JUMP_ABOVE, highest, 0, 1) + _op(_RETURN, _RET_ERRNO | errno.ENOSYS)
        code += _op(_LOAD, _ARCH) + _op(_JUMP_EQUAL, token, 0, len(body) // INSTRUCTION) + body
    return code


def _guards(
    library: Any, guards: tuple[Guard, ...], held: frozenset[str], tokens: list[int]
) -> bytes:
    """The guards' instructions, which run before libseccomp's; jumps are relative, so those stay valid."""
    direct = {(name, getattr(library.Arch, arch)): number for name, arch, number in _DIRECT_NUMBERS}
    kept = [guard for guard in guards if held.isdisjoint(guard.unless_caps)]
    code = b""
    for token in tokens:
        body = b""
        for guard in kept:
            number = library.resolve_syscall(token, guard.name)
            if number < 0:
                number = direct.get((guard.name, token), -1)
            if number >= 0:
                body += _guard(guard, number)
        if body:
            body = _op(_LOAD, _NR) + body
            code += _op(_LOAD, _ARCH) + _op(_JUMP_EQUAL, token, 0, len(body) // INSTRUCTION)
            code += body
    return code


def _guard(guard: Guard, number: int) -> bytes:
    """The instructions of one guard: they expect the call's number in the accumulator and leave it there."""
    refusal = _op(_RETURN, _RET_ERRNO | guard.errno)
    if not guard.values:
        return _op(_JUMP_EQUAL, number, 0, 1) + refusal
    low = _ARGS + 8 * guard.index + (4 if sys.byteorder == "big" else 0)
    count = len(guard.values)
    body = _op(_LOAD, low)
    for position, value in enumerate(guard.values):
        body += _op(_JUMP_EQUAL, value, count - position, 0)
    # no match: skip the return and reload the number; a match jumps to the return
    body += _op(_JUMP, 1) + refusal + _op(_LOAD, _NR)
    return _op(_JUMP_EQUAL, number, 0, len(body) // INSTRUCTION) + body


def _op(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return pack("=HBBI", code, if_true, if_false, operand)
