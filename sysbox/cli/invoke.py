"""Call a verb; the one place where any exception becomes an error line and an exit status."""

from __future__ import annotations

import posix
import sys

from sysbox.base import program
from sysbox.base.errors import (
    FAILED,
    NOT_FOUND,
    Interrupted,
    OutputError,
    SysboxError,
    described,
    signal_status,
)
from sysbox.cli.output import emit, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.cli.table.options import Values

_SIGINT = 2
_SIGPIPE = 13


def guarded(main: Callable[[], int]) -> int:
    """Call `main`; any exception becomes a line on standard error and an exit status."""
    try:
        return main()
    except SysboxError as error:
        if program.debug:
            _traceback()
        return _reported(error)
    except SystemExit as leave:  # click's completion
        return leave.code if isinstance(leave.code, int) else 0
    except Interrupted as error:
        return signal_status(error.number)
    except KeyboardInterrupt:
        return signal_status(_SIGINT)
    except BrokenPipeError:
        return signal_status(_SIGPIPE)
    except OSError as error:
        if program.debug:
            _traceback()
        unflushed = _flush_error()
        return _reported(OutputError(1, unflushed) if unflushed else described(error))
    except Exception as error:  # noqa: BLE001 (the one boundary)
        if program.debug:
            _traceback()
        return _reported(described(error))


def _flush_error() -> OSError | None:
    """Flush standard output; the error if that fails, which leaves the output in the buffer."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    except ValueError:
        pass  # standard output is closed
    return None


def flush(status: int) -> int:
    """Flush standard output; returns `status`, or OutputError's if `status` is 0 and the flush fails."""
    error = _flush_error()
    if status or error is None or isinstance(error, BrokenPipeError):
        return status  # a verb that failed keeps its status; after EPIPE nobody reads the output
    return _reported(OutputError(1, error))


def _reported(error: SysboxError) -> int:
    """Print an error; its exit status, of which 125 to 127 only for verbs that pass on a command's status."""
    status = report(error)
    reserved = FAILED <= status <= NOT_FOUND
    return program.failed if reserved and program.failed != FAILED else status


def _traceback() -> None:
    import traceback

    emit(traceback.format_exc(), 2)


def invoke(values: Values) -> int:
    """Call a verb: here if it is local or systemd is PID 1, else in the embedded host; returns its status."""
    verb = values.verb

    def run_verb() -> int:
        if verb.starts:
            # before the verb's imports and all that it does: the kernel takes as long
            from sysbox.host import probe
            from sysbox.units.cgroup import tree

            tree.expect_move(probe())
        module = __import__(f"sysbox.cli.commands.{verb.module}", fromlist=["main"])
        return int(module.main(values))

    if verb.local:
        return run_verb()
    from sysbox.host import booted

    if booted() and not posix.environ.get(b"SYSBOX_HOST"):
        return run_verb()  # the usual case needs no further import
    from sysbox.embedded import enter

    # guarded there too: the verb runs in a forked child, which ends with its status
    return enter.run_on_host(lambda: guarded(run_verb))
