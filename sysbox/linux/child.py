"""Ask the kernel by trying, in a child: for what only an attempt can tell, and must leave nothing behind."""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError, SysboxError
from sysbox.linux import _sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

# the host lacks something at this moment: whether it could do what was tried is not known
BUSY = frozenset((errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS))

_LONGEST = 4000  # bytes of a reason: less than PIPE_BUF
_NO_ERRNO = 255


def why_not(attempt: Callable[[], None], flags: int = 0) -> str:
    """Why `attempt` fails, in a child with new namespaces (CLONE_*); "" where it does not.

    Raises KernelError (an errno of BUSY) where nothing was learned, SysboxError where the child was killed.
    """
    reading, writing = _pipe()
    try:
        try:
            pid, pidfd = _sys.clone3(flags)
        except OSError as error:
            what = "make new namespaces" if flags else "fork"
            return _answer(*_told(KernelError.of(what, "", error)))
        if pid == 0:
            _try(attempt, writing)
        posix.close(writing)
        writing = -1
        data = posix.read(reading, 1 + _LONGEST)
        posix.close(pidfd)
        posix.waitpid(pid, 0)
    finally:
        for fd in (reading, writing):
            if fd >= 0:
                posix.close(fd)
    if not data:
        raise SysboxError("a child of sysbox was killed", hint="is the host out of memory?")
    return _answer(data[0], data[1:].decode("utf-8", "replace"))


def _pipe() -> tuple[int, int]:
    try:
        return posix.pipe2(posix.O_CLOEXEC)
    except OSError as error:
        raise KernelError.of("make a pipe", "", error) from None


def _try(attempt: Callable[[], None], writing: int) -> NoReturn:
    """In the child."""
    code, text = _NO_ERRNO, "it ended early"
    try:
        attempt()
        code, text = 0, ""
    except SysboxError as error:
        code, text = _told(error)
    except OSError as error:
        code, text = _told(KernelError.of("try it", "", error))
    except Exception as error:  # noqa: BLE001 (a child has no other way to tell)
        text = f"{type(error).__name__}: {error}"
    finally:
        posix.write(writing, bytes((code,)) + text.encode()[:_LONGEST])
        posix._exit(0)


def _told(error: SysboxError) -> tuple[int, str]:
    return getattr(error, "errno", 0) or _NO_ERRNO, error.message


def _answer(code: int, text: str) -> str:
    if code in BUSY:
        # KernelError says the reason again
        raise KernelError(text.removesuffix(f": {posix.strerror(code)}"), "", code)
    return text
