"""For mypy: the C module behind `signal`, which typeshed does not describe (numbers are plain ints)."""

from collections.abc import Callable, Iterable
from signal import struct_siginfo
from types import FrameType

_Handler = Callable[[int, FrameType | None], object] | int | None

SIG_DFL: int
SIG_IGN: int
SIG_BLOCK: int
SIG_UNBLOCK: int
SIG_SETMASK: int
NSIG: int

SIGHUP: int
SIGINT: int
SIGQUIT: int
SIGILL: int
SIGTRAP: int
SIGABRT: int
SIGBUS: int
SIGFPE: int
SIGKILL: int
SIGUSR1: int
SIGSEGV: int
SIGUSR2: int
SIGPIPE: int
SIGALRM: int
SIGTERM: int
SIGSTKFLT: int
SIGCHLD: int
SIGCONT: int
SIGSTOP: int
SIGTSTP: int
SIGTTIN: int
SIGTTOU: int
SIGURG: int
SIGXCPU: int
SIGXFSZ: int
SIGVTALRM: int
SIGPROF: int
SIGWINCH: int
SIGIO: int
SIGPOLL: int
SIGPWR: int
SIGSYS: int
SIGRTMIN: int
SIGRTMAX: int

def default_int_handler(number: int, frame: FrameType | None, /) -> None: ...
def signal(number: int, handler: _Handler, /) -> _Handler: ...
def getsignal(number: int, /) -> _Handler: ...
def valid_signals() -> set[int]: ...
def pthread_sigmask(how: int, mask: Iterable[int], /) -> set[int]: ...
def pidfd_send_signal(pidfd: int, number: int, siginfo: None = None, flags: int = 0, /) -> None: ...
def set_wakeup_fd(fd: int, /, *, warn_on_full_buffer: bool = True) -> int: ...
def siginterrupt(number: int, flag: bool, /) -> None: ...
def raise_signal(number: int, /) -> None: ...
def strsignal(number: int, /) -> str | None: ...
def sigpending() -> set[int]: ...
def sigtimedwait(mask: Iterable[int], timeout: float, /) -> struct_siginfo | None: ...
def alarm(seconds: int, /) -> int: ...
