"""The caller's terminal: raw while a container's is shown in it, and how large it is."""

from __future__ import annotations

import fcntl
import posix
import termios

from sysbox.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHUNK = 1 << 16


def raw(fd: int = 0) -> list[Any] | None:
    """Pass every key on as it is, as cfmakeraw(3); what to restore, or None where it is no terminal."""
    if not posix.isatty(fd):
        return None
    saved = termios.tcgetattr(fd)
    changed = [*saved[:6], list(saved[6])]
    changed[0] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    changed[1] &= ~termios.OPOST
    changed[2] = (changed[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    changed[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    termios.tcsetattr(fd, termios.TCSADRAIN, changed)
    return saved


def restore(saved: list[Any] | None, fd: int = 0) -> None:
    """Undo `raw`."""
    if saved is not None:
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)


def size(fd: int = 0) -> bytes:
    """A struct winsize (TIOCGWINSZ(2const)), b"" where it is no terminal."""
    try:
        return bytes(fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        return b""


def copy_size(target: int, fd: int = 0) -> None:
    """Give the terminal `target` the size of ours; where ours is none there is nothing to pass on."""
    try:
        if found := size(fd):
            fcntl.ioctl(target, termios.TIOCSWINSZ, found)
    except OSError:
        pass


def hold(master: int) -> None:
    """Leave a process with the master of a terminal: without it the command would get SIGHUP (pty(7)).

    It reads what is written, so that no one who writes has to wait, until the terminal is closed.
    """
    if posix.fork():
        return
    try:
        posix.setsid()
        process.reset_signals()
        null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
        for target in (0, 1, 2):
            posix.dup2(null, target)
        process.close_fds_except({master})
        posix.chdir("/")
        posix.set_blocking(master, True)
        while posix.read(master, _CHUNK):
            pass
    except OSError:
        pass  # EIO: the last process has closed it
    finally:
        posix._exit(0)
