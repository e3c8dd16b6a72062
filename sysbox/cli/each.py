"""Run a verb on several containers: report each failure and go on with the next. Whether there is one."""

from __future__ import annotations

from sysbox.base import program
from sysbox.base.errors import NotFound, SysboxError
from sysbox.cli.output import line, print_inspect, report
from sysbox.container import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FAILED_ONE = 1  # docker's status when one of several containers failed


def for_each(names: list[str], act: Callable[[store.Record], object], *, echo: bool = True) -> int:
    """Call `act` with each container's record, then print the name as given; returns the exit status."""
    return each(names, lambda name: act(store.find(name)), line if echo else None)


def each(
    words: list[str], act: Callable[[str], object], done: Callable[[str], object] | None = None
) -> int:
    """Call `act` with each word, and `done` where that succeeded; returns the exit status."""
    status = 0
    for word in words:
        try:
            act(word)
        except SysboxError as error:
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
