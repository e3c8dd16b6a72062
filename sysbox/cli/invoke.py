"""Calling a verb, and the one boundary at which a failure becomes a line and an exit status."""

from __future__ import annotations

import errno
import posix
import sys

from sysbox.base import program
from sysbox.base.errors import (
    ERRNO_ADVICE,
    FAILED,
    NOT_FOUND,
    KernelError,
    OutputError,
    SysboxError,
    signal_status,
)
from sysbox.cli.output import emit, report
from sysbox.cli.table.options import Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SIGINT = 2
_SIGPIPE = 13


def guarded(main: Callable[[], int]) -> int:
    """Call it; every failure becomes a line on standard error and a status."""
    try:
        return main()
    except SysboxError as error:
        if program.debug:
            _traceback()
        return _reported(error)
    except SystemExit as leave:  # click's completion
        return leave.code if isinstance(leave.code, int) else 0
    except KeyboardInterrupt:
        return signal_status(_SIGINT)
    except BrokenPipeError:
        return signal_status(_SIGPIPE)
    except OSError as error:
        if program.debug:
            _traceback()
        unflushed = _flush_error()
        if unflushed:
            return _reported(OutputError(1, unflushed))
        target = f"{error.filename}: " if isinstance(error.filename, str) else ""
        hint = ERRNO_ADVICE.get(error.errno or 0, "")
        return _reported(SysboxError(f"{target}{error.strerror or error}", hint=hint))
    except MemoryError:
        return _reported(KernelError("allocate memory", "", errno.ENOMEM))
    except ImportError as error:
        if program.debug:
            _traceback()
        # it is read when it is needed, and then there may be no memory or descriptor for it
        hint = "a part of sysbox or of Python cannot be read: if that stays so, install it again"
        return _reported(SysboxError(f"{error}", hint=hint))
    except Exception as error:  # noqa: BLE001 (the one boundary)
        if program.debug:
            _traceback()
        return _reported(
            SysboxError(
                f"{type(error).__name__}: {error}",
                hint="this is a bug; run it as `sysbox --debug ...` for the traceback",
            )
        )


def _flush_error() -> OSError | None:
    """Why what was printed is still in the buffer, if it is: a failed flush leaves it there."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    except ValueError:
        pass  # it was closed
    return None


def flush(status: int) -> int:
    """Write the last of what was printed; the status, or if that was 0 and it cannot be written, another."""
    error = _flush_error()
    if status or error is None or isinstance(error, BrokenPipeError):
        return status  # the reader is gone: nobody to tell
    return _reported(OutputError(1, error))


def _reported(error: SysboxError) -> int:
    """Print it; the exit status. One of a command in a container is for those verbs that pass it on."""
    status = report(error)
    reserved = FAILED <= status <= NOT_FOUND
    return program.failed if reserved and program.failed != FAILED else status


def _traceback() -> None:
    import traceback

    emit(traceback.format_exc(), 2)


def invoke(values: Values) -> int:
    """Call a verb, on this machine's systemd or brought into the embedded host."""
    verb = values.verb

    def run_verb() -> int:
        module = __import__(f"sysbox.cli.commands.{verb.module}", fromlist=["main"])
        return int(module.main(values))

    if verb.local:
        return run_verb()
    from sysbox.host import booted

    if booted() and not posix.environ.get(b"SYSBOX_HOST"):
        return run_verb()  # the usual case, decided without another import
    from sysbox.embedded import enter

    # guarded there too: it runs in a child process of the embedded host
    return enter.run_on_host(lambda: guarded(run_verb))
