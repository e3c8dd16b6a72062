"""`sysbox cp`: copy files into a container, out of it, or from one to another."""

from __future__ import annotations

import posix

from sysbox import copying, state
from sysbox.cli.output import emit, human_size, write_all
from sysbox.copying import Side
from sysbox.errors import KernelError, UsageError
from sysbox.extracting import Extractor
from sysbox.fs.treecopy import Rules
from sysbox.image.source import stream_source
from sysbox.image.tarwriter import Archive
from sysbox.inside import Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.options import Values

STREAM = "-"


def main(values: Values) -> int:
    """0; says on standard error what was copied, unless it is to be quiet."""
    source, destination = (split(one) for one in (values.source, values.destination))
    if not source[0] and not destination[0]:
        raise UsageError(
            "cp: neither is in a container",
            hint="write CONTAINER:PATH; cp(1) copies on this machine",
        )
    with _Sides(source, destination) as (here, there):
        if here.path == STREAM and here.root < 0:
            _unpack(there)
            return 0
        if there.path == STREAM and there.root < 0:
            _pack(here, follow=values.follow_link)
            return 0
        rules = _rules(there, archive=values.archive)
        size = copying.copy(here, there, rules, follow=values.follow_link, left_out=_left_out)
    if not values.quiet:
        emit(f"Successfully copied {human_size(size)} to {values.destination}\n", 2)
    return 0


def split(text: str) -> tuple[str, str]:
    """(container, path); the container is "" for a path of this machine, as docker decides it."""
    container, colon, path = text.partition(":")
    if not colon or not container or text.startswith(("/", ".")) or "/" in container:
        return "", text
    return container, path or "/"


class _Sides:
    """Both ends, with the roots of the containers open; a context manager."""

    def __init__(self, *ends: tuple[str, str]) -> None:
        self._ends = ends
        self._roots: list[Root] = []

    def __enter__(self) -> tuple[Side, Side]:
        try:
            one, other = [self._side(*end) for end in self._ends]
        except BaseException:
            self.__exit__()
            raise
        return one, other

    def __exit__(self, *_: object) -> None:
        for root in self._roots:
            root.__exit__()

    def _side(self, container: str, path: str) -> Side:
        if not container:
            return Side(path=path)
        record = state.find(container)
        for root in self._roots:
            if root.record.id == record.id:
                return Side(path=f"/{path}", root=root.fd, container=record.name)
        root = Root(record).__enter__()
        self._roots.append(root)
        return Side(path=f"/{path.lstrip('/')}", root=root.fd, container=record.name)


def _rules(destination: Side, *, archive: bool) -> Rules:
    """docker's: owners are root's in a container and the caller's here, or with -a the source's.

    A set-user-ID bit without its owner would give the program to another, and a device node of an image's
    could be any of this machine's: both only with -a.
    """
    if archive:
        return Rules()
    inside = destination.root >= 0
    owner = (0, 0) if inside else (posix.geteuid(), posix.getegid())
    return Rules(owner=owner, privileged=False, devices=inside)


def _left_out(name: str, why: str) -> None:
    emit(f"sysbox: cp: left out {name}: {why}\n", 2)


def _unpack(destination: Side) -> None:
    """A tar archive on standard input goes into a directory of the container's."""
    if posix.isatty(0):
        raise UsageError("cp -: standard input is a terminal", hint="pipe a tar archive into it")
    posix.close(copying.open_directory(destination))
    source = stream_source(0, "the archive on standard input", 1 << 62)
    posix.umask(0)
    try:
        Extractor(destination.root, destination.path).run(source)
    except KernelError as error:
        raise copying.explained(error, destination) from None
    finally:
        source.close()


def _pack(source: Side, *, follow: bool) -> None:
    """A file or directory of the container's goes to standard output as a tar archive."""
    if posix.isatty(1):
        raise UsageError("cp: standard output is a terminal", hint="pipe it into tar or a file")
    found = copying.open_source(source, follow=follow)
    try:
        archive = Archive(
            lambda data: write_all(1, data), lambda name: _left_out(name, "it became shorter")
        )
        archive.tree(found, "." if source.content_only else source.name)
        archive.finish()
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise KernelError.of("read", source.shown, error) from None
    finally:
        found.close()
