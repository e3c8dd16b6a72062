"""The caller's terminal: its raw mode while it shows a container's terminal, and its size."""

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
    """Set raw mode, as cfmakeraw(3): every key is passed on. What to `restore`; None if it is no terminal."""
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
    """A struct winsize (TIOCGWINSZ(2const)); b"" if it is no terminal."""
    try:
        return bytes(fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        return b""


def copy_size(target: int) -> None:
    """Give the terminal `target` the size of ours, if ours is a terminal."""
    try:
        if found := size():
            fcntl.ioctl(target, termios.TIOCSWINSZ, found)
    except OSError:
        pass


def hold(master: int) -> None:
    """Fork a process that keeps the master of a terminal: otherwise the command would get SIGHUP (pty(7)).

    It reads and drops the output, so that no writer blocks, until every process has closed the terminal.
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
