"""The compiled seccomp filter of a container, from a cache on disk or from the compiler.

A cached filter's name holds everything it was made from, so reading it takes a few system calls and no
parsing. Where no filter can be made, an error is raised: a container never starts without the filter.
"""

from __future__ import annotations

import _stat
import posix

from sysbox.base import codec
from sysbox.base.errors import FormatError, KernelError, SpecError
from sysbox.base.frozen import Frozen
from sysbox.linux import capability
from sysbox.security import filter_cache
from sysbox.security.apparmor import DEFAULT as MOUNTS_NOTHING
from sysbox.spec import Security

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.security.profile import Profile

# raise it with every change of the default profile or of the compiler; a test enforces it
VERSION = 2

# the capabilities that the default profile depends on
GATES = (
    "BPF",
    "DAC_READ_SEARCH",
    "PERFMON",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
)

MAX_PROFILE = 8 << 20  # bytes of a profile that the user gives

# O_NONBLOCK: open(2) of a FIFO would wait for a writer
_READ = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK


class Filter(Frozen):
    """What seccomp(2) is given for a container."""

    program: bytes  # an array of struct sock_filter; b"" is none
    flags: int = 0  # SECCOMP_FILTER_FLAG_*
    # the path of the socket of who answers calls for the container, and what it is told; "" is nobody
    listener: str = ""
    metadata: str = ""
    recorder: bytes = b""  # a filter before this one, which asks about all that this one allows


def filter_for(
    security: Security, cap_mask: int, machine: str = "", *, apparmor: str = ""
) -> Filter | None:
    """The filter of a container; None is unconfined.

    `cap_mask` is the container's capabilities, `machine` that of uname(2), `apparmor` its AppArmor profile:
    what that denies and the kernel does not ask it about, the default filter refuses. A privileged container
    is unconfined unless it has a profile of its own, as in docker. Raises SpecError or FormatError for a
    profile that cannot be read or is malformed, Unsupported where it cannot be compiled, KernelError.
    """
    machine = machine or posix.uname().machine
    choice = profile_of(security)
    if choice == "unconfined":
        return None
    if security.recorded:
        program = b"" if security.privileged else _default(cap_mask, machine, apparmor)
        return Filter(program=program, recorder=_recorder(machine))
    if choice == "default":
        return Filter(program=_default(cap_mask, machine, apparmor))
    return _custom(choice, cap_mask, machine)


def profile_of(security: Security) -> str:
    """Which filter applies: "default", "unconfined", the name of a profile, its path, or record:FILE."""
    if security.seccomp in ("", "default", "builtin"):
        return "unconfined" if security.privileged else "default"
    return security.seccomp


def unknown_calls(security: Security) -> str:
    """What there is to say of the calls that a profile names and nobody here knows; "" is nothing.

    Raises as `filter_for` does.
    """
    choice = profile_of(security)
    if choice in ("default", "unconfined") or security.recorded:
        return ""
    content = _read_profile(choice)
    machine = posix.uname().machine
    name = _name("", content, machine, "notes")
    said = filter_cache.load(name)
    if said is None:
        from sysbox.security import known_calls

        said = known_calls.describe_unknown(_parse(content, choice)).encode()
        filter_cache.store(name, said)
    return f"seccomp profile {choice}: {said.decode()}" if said else ""


def _default(cap_mask: int, machine: str, apparmor: str) -> bytes:
    gated = cap_mask & capability.mask(GATES)
    # without the capability the profile refuses these calls anyway
    narrowed = apparmor == MOUNTS_NOTHING and bool(gated & capability.mask(("SYS_ADMIN",)))
    kind = "default-without-mounts" if narrowed else "default"
    name = f"{kind}-{VERSION}-{gated:x}-{machine}-{_library(machine)}.bpf"
    program = filter_cache.load(name)
    if not program:
        from sysbox.security import bpf, profile

        chosen = profile.without_mounts() if narrowed else profile.default()
        program = bpf.compile_profile(chosen, cap_mask, machine)
        filter_cache.store(name, program)
    return program


def _recorder(machine: str) -> bytes:
    name = f"recorder-{VERSION}-{machine}-{_library(machine)}.bpf"
    program = filter_cache.load(name)
    if not program:
        from sysbox.security import bpf

        program = bpf.recorder(machine)
        filter_cache.store(name, program)
    return program


def _custom(choice: str, cap_mask: int, machine: str) -> Filter:
    content = _read_profile(choice)
    name = _name(f"{cap_mask:x}", content, machine, "bpf")
    found = _unpacked(filter_cache.load(name))
    if found is None:
        from sysbox.security import bounded

        parsed = _parse(content, choice)
        found = Filter(
            program=bounded.compile_profile(parsed, cap_mask, machine),
            flags=parsed.flags,
            listener=parsed.listener,
            metadata=parsed.metadata,
        )
        filter_cache.store(name, _packed(found))
    return found


def _name(capabilities: str, content: bytes, machine: str, kind: str) -> str:
    """The name of the file in the cache for what is made of a profile."""
    from hashlib import sha256

    around = f"{machine} {_library(machine)} {posix.uname().release}"
    made_from = f"{VERSION} {capabilities} {around}\n"
    return f"{sha256(made_from.encode() + content).hexdigest()}.{kind}"


def _packed(one: Filter) -> bytes:
    """A filter as a file of the cache: a line of JSON, then the program."""
    return codec.dumps([one.flags, one.listener, one.metadata]) + one.program


def _unpacked(content: bytes | None) -> Filter | None:
    head, _, program = (content or b"").partition(b"\n")
    if not program:
        return None
    try:
        flags, listener, metadata = codec.loads(head, "")
    except (FormatError, ValueError):
        return None
    return Filter(program=program, flags=flags, listener=listener, metadata=metadata)


def _parse(content: bytes, choice: str) -> Profile:
    from sysbox.security import profile_json

    return profile_json.parse(content, choice)


def _read_profile(choice: str) -> bytes:
    path = choice
    if "/" not in choice:
        from sysbox.parse import seccomp as names

        path = names.path_of(choice)
        if not path:
            reason, hint = names.nowhere(choice)
            raise SpecError(f"seccomp={choice}: {reason}", hint=hint)
    if not path.startswith("/") or "\0" in path:
        raise SpecError(f"seccomp={path}: must be default, unconfined, a name or an absolute path")
    try:
        fd = posix.open(path, _READ)
    except OSError as error:
        raise SpecError(f"seccomp={path}: {posix.strerror(error.errno or 0)}") from None
    try:
        if not _stat.S_ISREG(posix.fstat(fd).st_mode):
            raise SpecError(f"seccomp={path}: not a regular file")
        content = filter_cache.read(fd, MAX_PROFILE + 1)
    except OSError as error:
        raise KernelError.of("read", path, error) from None
    finally:
        posix.close(fd)
    if len(content) > MAX_PROFILE:
        raise SpecError(f"seccomp={path}: larger than {MAX_PROFILE >> 20} MiB")
    return content


def _library(machine: str) -> str:
    """The version of libseccomp, from the target of its link: a newer version knows more calls."""
    for directory in (f"/usr/lib/{machine}-linux-gnu", "/usr/lib64", "/usr/lib"):
        try:
            target = posix.readlink(f"{directory}/libseccomp.so.2")
        except OSError:
            continue
        return target.rpartition("/")[2].removeprefix("libseccomp.so.")
    return "unknown"
