"""Run a verb on several containers: report each failure and go on with the next. Also `exists`."""

from __future__ import annotations

from sysbox.base import program
from sysbox.base.errors import NotFound, SysboxError, UsageError
from sysbox.cli.output import line, print_inspect, report
from sysbox.container import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sysbox.cli.table.options import Values

FAILED_ONE = 1  # docker's status when one of several containers failed


def named(values: Values, missing: Callable[[NotFound], object] | None = None) -> list[str]:
    """The containers of a command line: its words, then the ids in the files of --cidfile.

    `missing` is called for a file that does not exist; without it that raises NotFound. Raises UsageError
    where nothing is named, and SpecError for a file without an id.
    """
    names = list(values.container)
    if not names and not values.cidfile:
        raise UsageError("no container is given", hint="name one, or give --cidfile")
    for path in values.cidfile:
        from sysbox.lifecycle import cidfile  # rarely given

        try:
            names.append(cidfile.read(path))
        except NotFound as error:
            if missing is None:
                raise
            missing(error)
    return names


def ignoring(values: Values) -> Callable[[NotFound], object] | None:
    """What `named` is to do about missing files, by --ignore."""
    return (lambda _: None) if values.ignore else None


def for_each(
    names: list[str],
    act: Callable[[store.Record], object],
    *,
    echo: bool = True,
    ignore: bool = False,
) -> int:
    """Call `act` with each container's record, then print the name as given; returns the exit status.

    `ignore`: a container that does not exist is no failure.
    """
    done = line if echo else None
    return each(names, lambda name: act(store.find(name)), done, ignore=ignore)


def each(
    words: list[str],
    act: Callable[[str], object],
    done: Callable[[str], object] | None = None,
    *,
    ignore: bool = False,
) -> int:
    """Call `act` with each word, and `done` where that succeeded; returns the exit status.

    `ignore`: NotFound is no failure, and is not reported.
    """
    status = 0
    for word in words:
        try:
            act(word)
        except SysboxError as error:
            if ignore and isinstance(error, NotFound):
                continue
            if program.debug:
                raise
            report(error)
            status = FAILED_ONE
        else:
            if done:
                done(word)
    return status


def exists(find: Callable[[str], object], word: str) -> int:
    """The exit status of podman's `... exists`: 0 where `find` finds it, 1 where that raises NotFound."""
    try:
        find(word)
    except NotFound:
        return FAILED_ONE
    return 0


def inspect_each(
    words: list[str], describe: Callable[[str], dict[str, Any]], format: str | None
) -> int:
    """Print what `describe` says of each word as docker's `inspect` does; returns the exit status.

    Those that are found are printed whatever became of the others: `[]` where there are none.
    """
    found: list[dict[str, Any]] = []
    status = each(words, lambda word: found.append(describe(word)))
    if found or not format:
        print_inspect(found, format)
    return status
