"""Output of the verbs: lines, docker's tables, `--format`, JSON."""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError, OutputError, needs_root
from sysbox.base.visible import RED, coloured, for_terminal, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from sysbox.base.errors import SysboxError

_PADDING = 3  # docker's tabwriter: at least three spaces between columns, each at least ten wide
_MIN_WIDTH = 10
PROGRAM = "sysbox:"  # the beginning of an error
_LONGEST = 4096  # characters of an error
_LONGEST_WORD = 256  # characters of a word in it: a value, or a path


def emit(text: str, fd: int = 1) -> None:
    """Write text; on a terminal control characters are escaped, since users and images chose the names."""
    as_is(for_terminal(text, fd), fd)


def as_is(text: str, fd: int = 1) -> None:
    """Write text as it is, control sequences included; bytes that are no UTF-8 are written unchanged."""
    write_all(fd, text.encode("utf-8", "surrogateescape"))


def write_all(fd: int, data: bytes) -> None:
    """Write everything.

    Raises BrokenPipeError when the reader is gone; for any other failure OutputError if `fd` is 1 or 2,
    else OSError.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[posix.write(fd, rest) :]
        except BlockingIOError:  # another process has set O_NONBLOCK on the terminal
            from sysbox.base.wait import ready

            ready(writing=[fd])
        except BrokenPipeError:
            raise
        except OSError as error:
            if fd not in (1, 2):
                raise
            raise OutputError(fd, error) from None


def line(text: str = "") -> None:
    """One line on standard output."""
    emit(text + "\n")


def report(error: SysboxError, start: str = PROGRAM) -> int:
    """Print an error and its hint on standard error, a line each; returns the exit status.

    The line of the error begins with `start`.
    """
    start = f"{coloured(start, RED, 2)} " if start else ""
    text = f"{start}{one_line(error.message)}\n"
    if hint := needs_root(error) or error.hint:
        text += f"sysbox: {one_line(hint)}\n"
    try:
        as_is(text, 2)
    except (OSError, KernelError):
        pass  # standard error is gone: the exit status still reports the failure
    return error.status


def warn(error: SysboxError) -> None:
    """Print an error that stops nothing, with its hint, as one line on standard error."""
    text = f"{error.message}; {error.hint}" if error.hint else error.message
    note(one_line(text))


def note(text: str, start: str = "") -> None:
    """Print "sysbox: TEXT" on standard error, after `start`."""
    try:
        emit(f"{start}sysbox: {text}\n", 2)
    except (OSError, KernelError):
        pass  # ignoring: nobody reads standard error


def one_line(text: str) -> str:
    """The text on one line, escaped and cut: it may quote anything that the user gave."""
    return printable(shortened(text))


def shortened(text: str) -> str:
    """An error's text without the middle of long words, such as values and paths, and of the whole.

    What is wrong comes last.
    """
    if len(text) <= _LONGEST_WORD:
        return text
    return _cut(" ".join(_cut(word, _LONGEST_WORD) for word in text.split(" ")), _LONGEST)


def _cut(text: str, longest: int) -> str:
    """The text without its middle, if it is longer than that."""
    end = longest // 4
    return text if len(text) <= longest else f"{text[: longest - end]}...{text[-end:]}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as docker's tabwriter aligns them, without control sequences; the last one is not padded."""
    return _columns([[printable(cell) for cell in row] for row in rows])


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [0] * max((len(row) for row in rows), default=0)
    for row in rows:
        for index, cell in enumerate(row[:-1]):
            widths[index] = max(widths[index], len(cell) + _PADDING, _MIN_WIDTH)
    lines = []
    for row in rows:
        padded = [cell.ljust(widths[index]) for index, cell in enumerate(row[:-1])]
        lines.append("".join(padded) + (row[-1] if row else "") + "\n")
    return "".join(lines)


def print_list(
    rows: Iterable[dict[str, Any]],
    columns: Sequence[tuple[str, str]],
    *,
    headers: dict[str, str],
    format: str | None = None,
    quiet: str = "",
) -> None:
    """Print a listing: a table of `columns` (header, key), or what `format` says.

    `quiet` is the only key to print, for -q; "" prints all. `headers` has the title of every key, for
    `table TEMPLATE`. A callable value is a template method, and left out of the JSON.
    """
    if quiet and not format:
        emit("".join(f"{row[quiet]}\n" for row in rows))
    elif not format or format == "table":
        titles = [header for header, _ in columns]
        as_is(table([titles, *([row[key] for _, key in columns] for row in rows)]))
    elif format == "json":
        from sysbox.docker.json import to_json

        emit("".join(to_json(plain(row)) + "\n" for row in rows))
    else:
        _print_template(rows, format, headers)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row without its methods, sorted as docker's JSON lines are."""
    return {key: row[key] for key in sorted(row) if not callable(row[key])}


def _print_template(rows: Iterable[dict[str, Any]], format: str, headers: dict[str, str]) -> None:
    from sysbox.docker import template

    tabular = format.startswith("table")  # a space after it is optional, as with docker
    text = _unescaped(format.removeprefix("table").strip(" ") if tabular else format)
    render = template.compiled(text)
    if not tabular:
        as_is("".join(render(row, _value_filter()) + "\n" for row in rows))
        return
    titles: dict[str, Any] = dict(headers)
    titles["Label"] = lambda name: name
    lines = [template.compiled(text, titles=True)(titles)]
    lines += (render(row, printable) for row in rows)
    as_is(_columns([one.split("\t") for one in lines]))


def _unescaped(format: str) -> str:
    """Replace `\\t` and `\\n`, which docker accepts outside of a template's strings too."""
    return format.replace("\\t", "\t").replace("\\n", "\n")


def _value_filter() -> Callable[[str], str]:
    """The filter for values that a template prints: escaped on a terminal, else unchanged."""
    return lambda text: for_terminal(text, 1)


def print_fitted(
    rows: Sequence[dict[str, Any]],
    columns: Sequence[tuple[str, str]],
    *,
    headers: dict[str, str],
    format: str | None,
    lead: int,
    titles: bool,
    colour: Callable[[dict[str, Any], str], str],
) -> None:
    """Like print_list, but on a terminal the table has colours and fits the width (screen.fitted)."""
    if format not in (None, "", "table") or not posix.isatty(1):
        print_list(rows, columns, headers=headers, format=format)
        return
    from sysbox.cli import screen

    shown = [{key: printable(str(text)) for key, text in row.items()} for row in rows]
    width = screen.size().columns
    as_is(screen.fitted(shown, columns, width, lead=lead, titles=titles, colour=colour))


def print_inspect(objects: Sequence[dict[str, Any]], format: str | None) -> None:
    """Print objects as docker's `inspect` does: an indented array, or one formatted line each."""
    if not format or format == "json":
        from sysbox.docker.json import pretty, to_json

        emit((pretty(list(objects)) if not format else to_json(list(objects))) + "\n")
        return
    from sysbox.docker import template

    render = template.compiled(_unescaped(format))
    for one in objects:
        as_is(render(one, _value_filter()) + "\n")


def print_object(found: dict[str, Any], format: str) -> None:
    """Print one object as JSON or by a template, for `info` and `version`."""
    if format == "json":
        from sysbox.docker.json import to_json

        emit(to_json(found) + "\n")
    else:
        print_inspect([found], format)
