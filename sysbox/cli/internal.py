"""Commands that systemd and the monitor start, such as `sysbox _supervise ID`: they take no options.

They already run on the right host, so they never enter the embedded one.
"""

from __future__ import annotations

from sysbox.base.errors import UsageError

_KMSG = "/dev/kmsg"
_KMSG_LINES = 100  # whoever has more wrong files starts with these
_KMSG_BYTES = 900  # the kernel takes no line that is longer than a kilobyte


def run(words: list[str]) -> int:
    """Run one of them; returns the exit status. Raises UsageError for an unknown command or a bad id."""
    if words in (["_boot"], ["_halt"]):
        from sysbox.cli.output import emit
        from sysbox.lifecycle import gc

        for failed in gc.at_boot() if words == ["_boot"] else gc.at_halt():
            emit(f"sysbox: {failed}\n", 2)
        return 0
    if words[:1] == ["_resolve"]:
        return _resolve(words[1:])
    if words[:1] == ["_generate"]:
        return _generate(words[1:])
    if words[:1] in (["_unit"], ["_pod"]):
        return _unit(words)
    if words[:1] == ["_proxy"]:
        return _proxy(words[1:])
    if words[:1] == ["_fail"]:
        from sysbox.base.errors import FAILED
        from sysbox.cli.output import emit

        emit(f"sysbox: {' '.join(words[1:])}\n", 2)
        return FAILED
    if len(words) != 2 or words[0] not in _COMMANDS:
        raise UsageError(f"unknown command '{words[0]}'", hint="see `sysbox --help`")
    from sysbox.container.identity import is_id

    if not is_id(words[1]):  # the id becomes part of a path
        raise UsageError(f"{words[0]}: not a container's id: {words[1]}")
    return _COMMANDS[words[0]](words[1])


def _resolve(words: list[str]) -> int:
    from sysbox.base.errors import SysboxError
    from sysbox.cli.output import report
    from sysbox.netns import networks
    from sysbox.resolver import serve

    try:
        if len(words) != 1:
            raise UsageError("_resolve: one network must be given")
        networks.check(words[0])  # the name becomes part of a path
        return serve.main(words[0])
    except SysboxError as error:
        return report(error)


def _generate(words: list[str]) -> int:
    """systemd.generator(7): the directories for units that others override, that override others, last."""
    from sysbox.base import program
    from sysbox.base.errors import SysboxError
    from sysbox.lifecycle import unit_makers
    from sysbox.units import serviceplan
    from sysbox.units.quadlet import generate, sources

    if len(words) != 3:
        raise UsageError("_generate: three directories must be given")
    skipped: list[str] = []
    takes = False
    try:
        takes = unit_makers.takes_podmans()
    except SysboxError as error:
        skipped.append(f"{error.message}; {error.hint}" if error.hint else error.message)
    found = sources.find(generate.directories(takes_podmans=takes), skipped)
    made = generate.generate(found, serviceplan.program_word(program.launcher))
    both = unit_makers.of_both(made.made_of, takes=takes) if made.early else []
    _log([*skipped, *made.errors, *both])
    try:
        generate.write(made, words[0], words[1])
    except OSError as error:
        _log([f"cannot write below {words[0]} or {words[1]}: {error.strerror}"])
        return 1
    return 0


def _log(texts: list[str]) -> None:
    """What a generator has to say goes to the kernel's log, which the journal has (systemd.generator(7)).

    Its standard error is /dev/null at a daemon-reload. An embedded host has no /dev/kmsg.
    """
    import posix

    from sysbox.cli.output import note, one_line

    for text in texts:
        note(one_line(text))
    try:
        fd = posix.open(_KMSG, posix.O_WRONLY | posix.O_CLOEXEC | posix.O_NOCTTY)
    except OSError:
        return  # ignoring: see above
    try:
        for text in texts[:_KMSG_LINES]:
            line = f"<4>sysbox-generator[{posix.getpid()}]: {one_line(text)}"
            posix.write(fd, line.encode("utf-8", "replace")[:_KMSG_BYTES])
    except OSError:
        pass  # ignoring: likewise
    finally:
        posix.close(fd)


def _unit(words: list[str]) -> int:
    """ExecStart= and ExecStopPost= of the service of a declared container, ExecStart= of that of a pod."""
    from sysbox.base.errors import SysboxError
    from sysbox.cli.commands import unit_start
    from sysbox.cli.output import report

    try:
        return unit_start.pod(words[1:]) if words[0] == "_pod" else unit_start.main(words[1:])
    except SysboxError as error:
        return report(error)
    except KeyboardInterrupt:
        return _stopped()


def _stopped() -> int:
    """The status of a start that a stop of the service has ended: that of the monitor when it is stopped."""
    from sysbox.cli.output import note

    note("the service was stopped while its container started")
    return 0


def _proxy(words: list[str]) -> int:
    """Of a proxy: `SERVICE PORT [ACTION SECONDS]` of ExecStart=, `--idle=ACTION SERVICE` of ExecStopPost=."""
    from sysbox.base.errors import SysboxError
    from sysbox.cli.output import report
    from sysbox.lifecycle import proxy

    try:
        if len(words) == 2 and words[0] in ("--idle=stop", "--idle=freeze"):
            proxy.idle(words[1], words[0].partition("=")[2])
            return 0
        if len(words) not in (2, 4) or not words[1].isdecimal():
            raise UsageError("_proxy: a service and a port must be given")
        proxy.serve(words[0], int(words[1]), *words[2:])
    except SysboxError as error:
        return report(error)


def _supervise(container_id: str) -> int:
    from sysbox.base.errors import SysboxError
    from sysbox.host import probe
    from sysbox.units.cgroup import tree

    # before the imports, which take as long as the kernel
    tree.expect_move(probe())
    from sysbox.run import service

    try:
        return service.supervise(container_id)
    except SysboxError as error:
        from sysbox.cli.output import report

        return report(error)
    except KeyboardInterrupt:
        return _stopped()


def _again(container_id: str) -> int:
    from sysbox.base.errors import SysboxError
    from sysbox.run import again

    try:
        return again.start_again(container_id)
    except SysboxError as error:
        from sysbox.cli.output import report

        return report(error)


def _cleanup(container_id: str) -> int:
    from sysbox.run import cleanup

    return cleanup.cleanup(container_id)


def _stop(container_id: str) -> int:
    from sysbox.run import cleanup

    return cleanup.stop_for_scope(container_id)


def _health(container_id: str) -> int:
    from sysbox.run import healthcheck

    return healthcheck.check(container_id)


def _weights(container_id: str) -> int:
    from sysbox.run import disk_weights

    return disk_weights.rewrite(container_id)


def _tuned(container_id: str) -> int:
    from sysbox.run import property_changes

    property_changes.handle(container_id)
    return 0


def _pod_end(pod_id: str) -> int:
    from sysbox.run import pod_ending

    pod_ending.finish(pod_id)
    return 0


def _oom(container_id: str) -> int:
    from sysbox.container import events, store

    events.container("oom", store.load(container_id))
    return 0


_COMMANDS = {
    "_supervise": _supervise,
    "_again": _again,
    "_cleanup": _cleanup,
    "_stop": _stop,
    "_health": _health,
    "_weights": _weights,
    "_tuned": _tuned,
    "_oom": _oom,
    "_pod_end": _pod_end,
}
