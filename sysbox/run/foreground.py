"""In the foreground: the command is the container's parent, and its supervisor."""

from __future__ import annotations

import _signal
import posix

from sysbox import scope
from sysbox.base.errors import KernelError, SysboxError, SystemdError, interrupt
from sysbox.base.undo import Undo
from sysbox.base.wait import ready
from sysbox.container import events, log_options
from sysbox.container.locks import Lock
from sysbox.fs.sockets import LOG
from sysbox.linux import process
from sysbox.run import start, stdio, supervisor
from sysbox.units import names
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.container.records import Final, Record
    from sysbox.plan import Plan
    from sysbox.run.dev_log import DevLog
    from sysbox.spec import ContainerSpec


_SOON = 0.5  # seconds
_RELIEF = 0.1  # seconds, as in src/monitor.c


class Attended:
    """A container that this process starts and supervises, with the caller's streams. Raises SysboxError.

    `plan` is the plan of this start, if the caller has made it. `on_third_interrupt` is called before the
    third ctrl-c kills the container. With `logged` the output is kept though the container is removed.
    """

    def __init__(
        self,
        record: Record,
        plan: Plan | None = None,
        on_third_interrupt: Callable[[], None] | None = None,
        *,
        logged: bool = False,
    ) -> None:
        self._record = record
        self._logged = logged
        self._on_third_interrupt = on_third_interrupt
        self._begin(plan)

    def _begin(self, plan: Plan | None = None) -> None:
        started, wired = _bring_up(self._record, plan, logged=self._logged)
        with start.give_up_on_failure(self._record, started):
            self._look_after(started, wired)

    def _look_after(self, started: start.Started, wired: stdio.Streams) -> None:
        from sysbox.run import signals

        record = self._record
        self._entry = start.machine_of(record, started)
        self._started = started
        self._foreground = supervisor.Foreground(
            started.pid, started.pidfd, wired, started.terminal
        )
        self._foreground.on_third_interrupt = None if record.spec.tty else self._on_third_interrupt
        self._foreground.passed_on = signals.passed_on(record)
        self._watch_stop_requests(started)
        if LOG in wired.sockets:
            self._watch_syslog(wired)
        if record.spec.ready:
            self._notify(started, wired)
        started.oom.on_kill = self._out_of_memory
        if record.spec.remove:
            # nothing that is set on it is kept; to end a watch takes the kernel half a millisecond
            self._foreground.later.append((_SOON, self._watch_properties))
        else:
            self._watch_properties()

    def _watch_syslog(self, wired: stdio.Streams) -> None:
        """Pass on to the journal what is sent to /dev/log in it."""
        watches, socket = self._foreground.watches, wired.sockets[LOG]
        passing: list[DevLog] = []

        def on_readable() -> None:
            from sysbox.run import dev_log  # which few containers need

            try:
                if not passing:
                    passing.append(dev_log.DevLog(self._record, self._started, wired))
                passing[0].pass_on()
            except KernelError:
                # ignoring: there is no journald, and who sends to the socket learns that nobody reads it
                del watches[socket]
                posix.close(socket)

        def at_end() -> None:
            if socket in watches and (passing or ready([socket], seconds=0)):
                on_readable()
            if passing:
                passing[0].close()
            elif socket in watches:
                posix.close(socket)

        watches[socket] = on_readable
        self._foreground.at_last.append(at_end)

    def _notify(self, started: start.Started, wired: stdio.Streams) -> None:
        """Tell systemd that the caller's service is started, or pass on what the container tells it."""
        from sysbox.run import notify  # which few containers need

        if watch := notify.begin(self._record, started, wired):
            self._foreground.watches[watch.fileno()] = watch.pass_on
            self._foreground.at_last.append(watch.close)

    def _watch_properties(self) -> None:
        """Act when others change the limits of its scope."""
        from sysbox.run import property_changes, tuned

        container = self._record.id
        if (fd := tuned.watch(container)) >= 0:
            self._foreground.watches[fd] = lambda: property_changes.handle(container, fd)
            if tuned.drop_ins(container):
                property_changes.handle(container)  # set before the watch began

    def _out_of_memory(self) -> None:
        """The kernel has killed a process in it. On cgroup v1 nobody else applies OOMPolicy= to the rest."""
        from sysbox.run.signals import stop_signal

        events.container("oom", self._record)
        if self._started.oom_policy == "kill":
            process.send(self._started.pidfd, _signal.SIGKILL)
            start.thaw(self._started)
        elif self._started.oom_policy == "stop" and not ready(
            [self._started.pidfd], seconds=_RELIEF
        ):
            # not before: the kernel counts a kill before the memory is free again, and would kill what needs
            # a page to act on the signal
            try:
                with Bus.connect() as bus:  # `_watch_stop_requests` acts on the job
                    scope.request_stop(bus, names.scope_unit(self._record.id))
            except SystemdError:
                process.send(self._started.pidfd, stop_signal(self._record))

    def _watch_stop_requests(self, started: start.Started) -> None:
        """Send the stop signal when systemd stops the scope, as it is asked to, or by its RuntimeMaxSec=;
        after the timeout systemd kills.
        """
        from sysbox.run import exit_record, signals, stop_requests

        unit = names.scope_unit(self._record.id)
        requests = stop_requests.StopRequests(started.bus, unit, started.start_jobs)
        watches = self._foreground.watches

        def on_readable() -> None:
            del watches[requests.fileno()]
            try:
                requests.read()
            except SystemdError:
                return  # systemd is gone, and no stop can be requested
            act_or_wait()

        def act_or_wait() -> None:
            if not requests.asked:
                watches[requests.fileno()] = on_readable
                return
            requests.close()
            act()

        def act() -> None:
            exit_record.mark_timed_out(self._record)
            exit_record.mark_stopped(self._record)
            process.send(started.pidfd, signals.stop_signal(self._record))
            start.thaw(started)

        act_or_wait()
        if started.longest:
            # there is no job then
            self._foreground.later.append((started.longest / 1e6, act))

    def wait(self) -> int:
        """Wait for the end, and record it; the exit status. A container that reboots is started again."""
        from sysbox.run.exit import settle
        from sysbox.units import machine

        while True:
            with start.give_up_on_failure(self._record, self._started):
                machine.register_later(self._entry)
                ended = self._foreground.wait(self._started.oom, self._started.reports)
            machine.cancel_register()
            if b"LISTEN_FDS" in posix.environ:
                from sysbox.run import listen  # few containers get sockets

                listen.shut_down_lost()
            if self._record.spec.security.recorded:
                from sysbox.run import recording  # few containers are recorded

                ended = ended.replace(unrecorded=recording.is_gone(self._record))
            final = settle(self._record.id, ended, behind=True)
            if final is None:
                return ended.code
            if final.error and self._record.spec.security.recorded:
                raise SysboxError(final.error)
            if not final.rebooted or not self._may_begin_again(final):
                return final.exit_code
            self._begin()

    def _may_begin_again(self, final: Final) -> bool:
        """Wait for the back-off; False if the container is to be stopped instead, as by ctrl-c."""
        from sysbox.run import again, backoff

        if not backoff.back_off(final):
            return again.is_wanted(self._record)
        supervisor.hold_signals()
        try:
            return again.wait(self._record, again.ENDING)
        finally:
            supervisor.release_signals()


def _bring_up(
    record: Record, plan: Plan | None, *, logged: bool
) -> tuple[start.Started, stdio.Streams]:
    spec = record.spec
    for number in (_signal.SIGTERM, _signal.SIGHUP):
        # until the command runs and is sent these signals, they end the start, as ctrl-c does
        _signal.signal(number, interrupt)
    # a --rm container needs no log, which would be removed with it: its output goes straight to the caller
    log = None if spec.remove and not logged else log_options.sink(record)
    wired = stdio.for_caller(tty=spec.tty, interactive=spec.interactive, log=log)
    with Undo() as undo:
        undo.add(lambda _: supervisor.release_signals())
        with Lock(record.id):
            started = start.bring_up(record, wired, _import_rest, size=_size(spec), plan=plan)
            # it runs, even if releasing the lock fails
            undo.add(lambda error: start.give_up(record, started, error))
    return started, wired


def _import_rest() -> None:
    """Import what is only needed once the command runs, and at its end."""
    from sysbox.run import stop_requests  # noqa: F401
    from sysbox.run.exit import settle  # noqa: F401


def _size(spec: ContainerSpec) -> bytes:
    """The size of the caller's terminal (struct winsize) for a container with a terminal, else b""."""
    if not spec.tty:
        return b""
    from sysbox.run import terminal  # only a terminal needs it

    return terminal.size()
