"""The compiled seccomp filter of a container, from a cache on disk or from the compiler.

A cached filter's name holds everything it was made from, so reading it takes a few system calls and no
parsing. Where no filter can be made, an error is raised: a container never starts without the filter.
"""

from __future__ import annotations

import _stat
import posix

from sysbox.base import paths
from sysbox.base.errors import KernelError, SpecError
from sysbox.linux import capability
from sysbox.spec import Security

# raise it with every change of the default profile or of the compiler; a test enforces it
VERSION = 1

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

DIRECTORY = f"{paths.CACHE}/seccomp"
MAX_PROFILE = 8 << 20  # bytes of a profile that the user gives

# O_NONBLOCK: open(2) of a FIFO would wait for a writer
_READ = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK
_INSTRUCTION = 8  # struct sock_filter
_MAX_PROGRAM = 4096 * _INSTRUCTION  # BPF_MAXINSNS
_MAGIC = b"SBX1"
_TRAILER = len(_MAGIC) + 4  # the magic number and a CRC-32


def program_for(security: Security, cap_mask: int, machine: str = "") -> bytes | None:
    """The filter as an array of struct sock_filter; None is unconfined.

    `cap_mask` is the container's capabilities, `machine` that of uname(2). A privileged container is
    unconfined unless it has a profile of its own, as in docker. Raises SpecError or FormatError for a profile
    that cannot be read or is malformed, Unsupported where it cannot be compiled, KernelError.
    """
    machine = machine or posix.uname().machine
    choice = profile_of(security)
    if choice == "unconfined":
        return None
    return (
        _default(cap_mask, machine) if choice == "default" else _custom(choice, cap_mask, machine)
    )


def profile_of(security: Security) -> str:
    """Which filter applies: "default", "unconfined", or the path of a profile."""
    if security.seccomp in ("", "default", "builtin"):
        return "unconfined" if security.privileged else "default"
    return security.seccomp


def _default(cap_mask: int, machine: str) -> bytes:
    gated = cap_mask & capability.mask(GATES)
    name = f"default-{VERSION}-{gated:x}-{machine}-{_library(machine)}.bpf"
    program = _load(name)
    if program is None:
        from sysbox.security import bpf, profile

        program = bpf.compile_profile(profile.default(), cap_mask, machine)
        _store(name, program)
    return program


def _custom(path: str, cap_mask: int, machine: str) -> bytes:
    content = _read_profile(path)
    from hashlib import sha256

    made_from = f"{VERSION} {cap_mask:x} {machine} {_library(machine)} {posix.uname().release}\n"
    name = f"{sha256(made_from.encode() + content).hexdigest()}.bpf"
    program = _load(name)
    if program is None:
        from sysbox.security import bounded, profile_json

        parsed = profile_json.parse(content, path)
        program = bounded.compile_profile(parsed, cap_mask, machine)
        _store(name, program)
    return program


def _read_profile(path: str) -> bytes:
    if not path.startswith("/") or "\0" in path:
        raise SpecError(f"seccomp={path}: must be default, unconfined or an absolute path")
    try:
        fd = posix.open(path, _READ)
    except OSError as error:
        raise SpecError(f"seccomp={path}: {posix.strerror(error.errno or 0)}") from None
    try:
        if not _stat.S_ISREG(posix.fstat(fd).st_mode):
            raise SpecError(f"seccomp={path}: not a regular file")
        content = _read(fd, MAX_PROFILE + 1)
    except OSError as error:
        raise KernelError.of("read", path, error) from None
    finally:
        posix.close(fd)
    if len(content) > MAX_PROFILE:
        raise SpecError(f"seccomp={path}: larger than {MAX_PROFILE >> 20} MiB")
    return content


def _read(fd: int, limit: int) -> bytes:
    chunks: list[bytes] = []
    while limit > 0 and (chunk := posix.read(fd, min(limit, 1 << 20))):
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)


def _library(machine: str) -> str:
    """The version of libseccomp, from the target of its link: a newer version knows more calls."""
    for directory in (f"/usr/lib/{machine}-linux-gnu", "/usr/lib64", "/usr/lib"):
        try:
            target = posix.readlink(f"{directory}/libseccomp.so.2")
        except OSError:
            continue
        return target.rpartition("/")[2].removeprefix("libseccomp.so.")
    return "unknown"


def _load(name: str) -> bytes | None:
    """A program from the cache; None where there is none, or the file is not trusted or damaged."""
    try:
        fd = posix.open(f"{DIRECTORY}/{name}", _READ | posix.O_NOFOLLOW)
    except OSError:
        return None
    try:
        status = posix.fstat(fd)
        if (
            not _stat.S_ISREG(status.st_mode)
            or status.st_uid != posix.geteuid()
            or status.st_mode & 0o077
            or not 0 < status.st_size - _TRAILER <= _MAX_PROGRAM
        ):
            return None
        return _without_checksum(_read(fd, status.st_size))
    except OSError:
        return None
    finally:
        posix.close(fd)


def _with_checksum(program: bytes) -> bytes:
    import zlib

    return program + _MAGIC + zlib.crc32(program).to_bytes(4, "little")


def _without_checksum(content: bytes) -> bytes | None:
    """The program in a cache file's content; None where that is damaged."""
    program = content[:-_TRAILER]
    whole = len(program) % _INSTRUCTION == 0 and content == _with_checksum(program)
    return program if whole else None


def _store(name: str, program: bytes) -> None:
    """Write a program to the cache, whole or not at all.

    ignoring: errors, since the program is only compiled again at the next start
    """
    temporary = f"{DIRECTORY}/.{name}.{posix.getpid()}"
    try:
        for directory in (paths.STATE, paths.CACHE, DIRECTORY):
            _make_directory(directory)
        fd = posix.open(
            temporary,
            posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC,
            0o600,
        )
    except OSError:
        return
    try:
        _write(fd, _with_checksum(program))
        posix.rename(temporary, f"{DIRECTORY}/{name}")
    except OSError:
        posix.unlink(temporary)
    finally:
        posix.close(fd)


def _write(fd: int, content: bytes) -> None:
    while content:
        content = content[posix.write(fd, content) :]


def _make_directory(path: str) -> None:
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        return
