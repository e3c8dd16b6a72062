"""In the foreground: pass on to the journal what is sent to the container's /dev/log (src/syslog.c)."""

from __future__ import annotations

from sysbox.base.wait import ready
from sysbox.container import log_options
from sysbox.fs.sockets import LOG
from sysbox.image.resolved import resolved_of
from sysbox.linux import _journal
from sysbox.units import journal, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record
    from sysbox.run.start import Started
    from sysbox.run.stdio import Streams


class DevLog:
    """The socket of one container, from its first message on. Raises KernelError without a journald."""

    def __init__(self, record: Record, started: Started, wired: Streams) -> None:
        self._pidfd = started.pidfd
        self._own = None
        if wired.log is None:
            # its output is not kept, so nobody has told journald of the container
            unit, logging = names.scope_unit(record.id), record.spec.logging
            journal.write_fields(unit, log_options.fields(record, resolved_of(record).env), logging)
            self._own = log_options.sink(record)
            _journal.begin(
                self._own.fd, started.pid, self._own.identifier, self._own.rate, self._own.burst
            )
        _journal.syslog_begin(wired.sockets[LOG])

    def pass_on(self) -> None:
        """What has come by now. While journald has no room, wait for it, or for the container's end."""
        while (full := _journal.syslog_ready()) >= 0:
            if self._pidfd in ready([self._pidfd], [full]):
                return
        _journal.flush()

    def close(self) -> None:
        """What is left, until journald has read it; it may keep us waiting for seconds, not for ever."""
        _journal.syslog_close()
        if self._own:
            _journal.close()
