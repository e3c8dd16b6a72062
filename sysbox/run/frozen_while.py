"""A container that stands still while it is looked at, and goes on whatever becomes of who looks."""

from __future__ import annotations

import _signal
import posix

from sysbox.base.errors import KernelError, SysboxError, signal_status
from sysbox.container import store
from sysbox.host import probe
from sysbox.linux import _sys
from sysbox.linux.freezer import frozen
from sysbox.units.cgroup import freezer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sysbox.container.store import Record, Runtime

_ENDING = (_signal.SIGTERM, _signal.SIGHUP)


class FrozenWhile:
    """Nothing in the container runs while this context lasts. One that does not run, or is paused, stays so.

    Raises KernelError, SystemdError, Unsupported.
    """

    def __init__(self, record: Record, *, wanted: bool = True) -> None:
        runtime = store.runtime(record.id) if wanted else None
        self._runtime = runtime if runtime is not None and runtime.alive() else None
        self._guard = -1  # a pipe to the process that thaws it if this one does not come to it

    def __enter__(self) -> None:
        if self._runtime is not None and frozen(probe(), self._runtime.cgroup):
            self._runtime = None
        if self._runtime is None:
            return
        for number in _ENDING:
            _signal.signal(number, _interrupted)
        self._guard = _guard(self._runtime)
        try:
            freezer.freeze(self._runtime.scope, self._runtime.cgroup, probe())
        except BaseException:
            self._release()
            raise

    def __exit__(self, *_: object) -> None:
        if self._runtime is None:
            return
        try:
            freezer.thaw(self._runtime.scope, self._runtime.cgroup, probe())
        finally:
            self._release()

    def _release(self) -> None:
        posix.write(self._guard, b".")
        posix.close(self._guard)
        posix.wait()
        for number in _ENDING:
            _signal.signal(number, _signal.SIG_DFL)


def _guard(runtime: Runtime) -> int:
    """Fork a process that thaws the container if this one is killed; a pipe, to tell it that it need not."""
    reader, writer = posix.pipe()
    try:
        pid, pidfd = _sys.clone3(0)
    except OSError as error:
        raise KernelError.of("fork", "", error) from None
    if pid == 0:
        try:
            # not to be ended by what ends the caller, down to a kill of its process group
            posix.setsid()
            for number in (_signal.SIGINT, *_ENDING):
                _signal.signal(number, _signal.SIG_IGN)
            posix.close(writer)
            if not posix.read(reader, 1):
                freezer.thaw(runtime.scope, runtime.cgroup, probe())
        except (OSError, SysboxError):
            pass  # ignoring: it has ended meanwhile
        finally:
            posix._exit(0)
    posix.close(reader)
    posix.close(pidfd)
    return writer


def _interrupted(number: int, _frame: object) -> NoReturn:
    raise SystemExit(signal_status(number))
