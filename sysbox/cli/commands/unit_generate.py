"""`sysbox unit generate`: declarations of containers and pods that exist. And `run --unit-file`."""

from __future__ import annotations

import posix

from sysbox.base.errors import Conflict, KernelError, NotFound, SpecError
from sysbox.base.files import unlink
from sysbox.cli.output import as_is, line
from sysbox.cli.request import declaration, declared_set
from sysbox.container import pods, store
from sysbox.units.quadlet import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.container.pods import Pod
    from sysbox.container.store import Record

_STDOUT = "-"


def main(values: Values) -> int:
    """Print the files, or write them into a directory, all or none."""
    made = declared_set.of_containers(*_named(values.container))
    if values.directory is None:
        for name, text in made.items():
            # where there are several, each begins with its name
            as_is(f"# {name}\n{text}\n" if len(made) > 1 else text)
        return 0
    paths = {f"{values.directory.rstrip('/') or '/'}/{name}": text for name, text in made.items()}
    write(paths, force=values.force)
    for path in paths:
        line(path)
    return 0


def _named(words: list[str]) -> tuple[list[Record], list[Pod]]:
    """The containers of these names, and the pods with their containers. Raises NotFound."""
    found: dict[str, Record] = {}
    whole = []
    for word in words:
        try:
            one = store.find(word)
            found[one.id] = one
        except NotFound:
            if not _is_pod(word):
                raise
            whole.append(pods.find(word))
            found |= {one.id: one for one in pods.records_of(whole[-1].name)}
    return list(found.values()), whole


def _is_pod(word: str) -> bool:
    try:
        pods.resolve(word)
    except NotFound:
        return False
    return True


def write_command_line(values: Values) -> int:
    """`run --unit-file FILE`: write the declaration and run nothing; "-" is standard output."""
    path = values.unit_file
    name = path.rpartition("/")[2]
    stem = name.removesuffix(".container")
    if path != _STDOUT and (stem in ("", name) or not units.is_valid(f"{stem}.service")):
        raise SpecError(
            f"--unit-file {path}: not the name of a declaration",
            hint="as in web.container, or - for standard output",
        )
    text = declaration.of_command_line(values)
    if path == _STDOUT:
        as_is(text)
    else:
        write({path: text})
    return 0


def write(files: dict[str, str], *, force: bool = False) -> None:
    """Make all files, or none; only with `force` in place of others. Raises Conflict, KernelError."""
    made: list[str] = []
    temporary = {path: f"{path}.{posix.getpid()}.new" for path in files}
    try:
        for path, text in files.items():
            _write(temporary[path], text)
            made.append(temporary[path])
        for path in files:
            if force:
                posix.rename(temporary[path], path)
                continue
            posix.link(temporary[path], path)
            made.append(path)
    except FileExistsError:
        _unlink(made)
        raise Conflict(
            f"{path}: the file exists", hint="choose another name, or remove it"
        ) from None
    except OSError as error:
        _unlink(made)
        raise KernelError.of("write", path, error) from None
    except BaseException:
        _unlink(made)
        raise
    _unlink(list(temporary.values()))


def _unlink(paths: list[str]) -> None:
    for path in paths:
        unlink(path)


def _write(path: str, text: str) -> None:
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
    # the container's environment is in it, which is root's alone
    fd = posix.open(path, flags, 0o600)
    try:
        rest = memoryview(text.encode("utf-8", "surrogateescape"))
        while rest:
            rest = rest[posix.write(fd, rest) :]
    finally:
        posix.close(fd)
