"""Freeze a container for the length of a `with` block; a forked guard thaws it if this process is killed."""

from __future__ import annotations

import _signal
import posix

from sysbox.base.errors import KernelError, SysboxError, interrupt
from sysbox.container import store
from sysbox.host import probe
from sysbox.linux import _sys
from sysbox.linux.freezer import is_frozen
from sysbox.units.cgroup import freezer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record, Runtime

_ENDING = (_signal.SIGTERM, _signal.SIGHUP)


class FrozenWhile:
    """The container is frozen while the block runs. One that does not run, or is paused, stays as it is.

    Raises KernelError, SystemdError, Unsupported.
    """

    def __init__(self, record: Record, *, wanted: bool = True) -> None:
        runtime = store.runtime(record.id) if wanted else None
        self._runtime = runtime if runtime is not None and runtime.alive() else None
        self._guard = -1  # a pipe to the guard; a byte tells it that it is not needed

    def __enter__(self) -> None:
        if self._runtime is not None and is_frozen(probe(), self._runtime.cgroup):
            self._runtime = None
        if self._runtime is None:
            return
        for number in _ENDING:
            _signal.signal(number, interrupt)
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
    """Fork the guard; the write end of its pipe. It thaws the container if the pipe closes without a byte."""
    reader, writer = posix.pipe()
    try:
        pid, pidfd = _sys.clone3(0)
    except OSError as error:
        raise KernelError.of("fork", "", error) from None
    if pid == 0:
        try:
            # what ends the caller must not end it, not even a signal to the process group
            posix.setsid()
            for number in (_signal.SIGINT, *_ENDING):
                _signal.signal(number, _signal.SIG_IGN)
            posix.close(writer)
            if not posix.read(reader, 1):
                freezer.thaw(runtime.scope, runtime.cgroup, probe())
        except (OSError, SysboxError):
            pass  # ignoring: the container has ended meanwhile
        finally:
            posix._exit(0)
    posix.close(reader)
    posix.close(pidfd)
    return writer
