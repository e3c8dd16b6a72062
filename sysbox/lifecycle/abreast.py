"""Do one thing to several containers at once, each in a process of its own."""

from __future__ import annotations

import posix

from sysbox.base.errors import SysboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from sysbox.container.store import Record

_LONGEST = 4000  # bytes of a message: less than PIPE_BUF


def abreast(records: list[Record], act: Callable[[Record], object]) -> None:
    """Call `act` with each. Raises SysboxError, that of the first that failed, once all are done."""
    if len(records) == 1:
        act(records[0])
        return
    started = [(record, *_begin(record, act)) for record in records]
    failed: SysboxError | None = None
    for record, pid, reading in started:
        told = b""
        while part := posix.read(reading, _LONGEST):
            told += part
        posix.close(reading)
        status = posix.waitpid(pid, 0)[1]
        if (told or status) and failed is None:
            message, _, hint = told.decode("utf-8", "surrogateescape").partition("\0")
            failed = SysboxError(
                message or f"{record.name}: a process of sysbox was killed", hint=hint
            )
    if failed:
        raise failed


def _begin(record: Record, act: Callable[[Record], object]) -> tuple[int, int]:
    reading, writing = posix.pipe2(posix.O_CLOEXEC)
    pid = posix.fork()
    if pid == 0:
        _act(record, act, writing)
    posix.close(writing)
    return pid, reading


def _act(record: Record, act: Callable[[Record], object], writing: int) -> NoReturn:
    """In the child."""
    told = ""
    try:
        act(record)
    except SysboxError as error:
        told = f"{error.message}\0{error.hint}"
    except BaseException as error:  # noqa: BLE001 (a child has no other way to tell)
        told = f"{record.name}: {type(error).__name__}: {error}"
    finally:
        posix.write(writing, told.encode("utf-8", "surrogateescape")[:_LONGEST])
        posix._exit(0)
