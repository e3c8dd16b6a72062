"""Compile a user's seccomp profile with a limit on CPU time and memory.

libseccomp builds a tree from the rules of one system call that compare arguments; sixty of them, with
unfortunate operators, take it minutes, and a few more all of the memory. The cost of a profile cannot be
predicted, so a child process with resource limits (setrlimit(2)) compiles it.
"""

from __future__ import annotations

import posix

from sysbox.base import errors
from sysbox.base.errors import KernelError, SpecError, SysboxError
from sysbox.security import bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.security.profile import Profile

SECONDS = 10  # of CPU time; docker's own profile takes a tenth of one
_MEMORY = 2 << 30  # bytes of address space
_PROGRAM = b"P"
_KINDS = ("SpecError", "Unsupported")


def compile_profile(profile: Profile, cap_mask: int, machine: str) -> bytes:
    """`bpf.compile_profile`; also raises SpecError for a profile that exceeds the limits, KernelError."""
    reader, writer = posix.pipe()
    try:
        child = posix.fork()
    except OSError as error:
        posix.close(reader)
        posix.close(writer)
        raise KernelError.of("fork", "to compile a seccomp profile", error) from None
    if not child:
        try:
            posix.close(reader)
            _compile_in_child(profile, cap_mask, machine, writer)
        finally:
            posix._exit(0)
    posix.close(writer)
    answer = b""
    while chunk := posix.read(reader, 1 << 16):
        answer += chunk
    posix.close(reader)
    posix.waitpid(child, 0)
    return _read_answer(answer)


def _read_answer(answer: bytes) -> bytes:
    if answer[:1] == _PROGRAM:
        return answer[1:]
    kind, _, rest = answer.decode().partition("\n")
    message, _, hint = rest.partition("\n")
    if kind in _KINDS:
        raise getattr(errors, kind)(message, hint=hint)
    # no answer: the kernel killed the child at a limit
    raise SpecError(
        f"seccomp profile: compiling it takes more than {SECONDS} s or {_MEMORY >> 30} GiB",
        hint="use fewer rules that compare several arguments of one system call",
    )


def _compile_in_child(profile: Profile, cap_mask: int, machine: str, writer: int) -> None:
    """In the child: compile, and write the program or the error to the pipe."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    try:
        answer = _PROGRAM + bpf.compile_profile(profile, cap_mask, machine)
    except SysboxError as error:
        answer = f"{type(error).__name__}\n{error.message}\n{error.hint}".encode()
    while answer:
        answer = answer[posix.write(writer, answer) :]
