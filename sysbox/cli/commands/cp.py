"""`sysbox cp`: copy files into a container, out of it, or from one to another."""

from __future__ import annotations

import _stat
import posix

from sysbox.base.errors import KernelError, UsageError
from sysbox.base.visible import printable
from sysbox.cli.output import emit, write_all
from sysbox.cli.progress import Progress
from sysbox.container import events, store
from sysbox.content import copy
from sysbox.content.copy import Side
from sysbox.content.extract import Extractor
from sysbox.content.root import Root
from sysbox.docker.human import human_size
from sysbox.fs.treecopy import Rules
from sysbox.image.source import stream_source
from sysbox.image.tarwriter import Archive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from sysbox.cli.table.options import Values

STREAM = "-"


def main(values: Values) -> int:
    """0; prints the number of bytes copied on standard error, unless --quiet."""
    for which, text in (("source", values.source), ("destination", values.destination)):
        if not text:
            raise UsageError(
                f"cp: the {which} can not be empty", hint="`.` is the working directory"
            )
    source, destination = (split(one) for one in (values.source, values.destination))
    if not source[0] and not destination[0]:
        raise UsageError(
            "cp: neither SOURCE nor DESTINATION is in a container",
            hint="write CONTAINER:PATH; cp(1) copies on this machine",
        )
    with _Sides(source[0], destination[0]) as roots:
        here, there = roots.side(*source), roots.side(*destination)
        size = _copy(here, there, values)
        for record in roots.records:
            events.container("copy", record, source=values.source, destination=values.destination)
    if size >= 0 and not values.quiet:
        emit(f"Successfully copied {human_size(size)} to {values.destination}\n", 2)
    return 0


def split(text: str) -> tuple[str, str]:
    """(container, path) by docker's rule; the container is "" for a path on this machine."""
    container, colon, path = text.partition(":")
    if not colon or not container or text.startswith(("/", ".")) or "/" in container:
        return "", text
    if not path:
        raise UsageError(f"cp: {text} names no path in the container", hint=f"its root is {text}/")
    return container, path


def _copy(here: Side, there: Side, values: Values) -> int:
    """Copy; the number of bytes, -1 where one side is a stream."""
    if here.path == STREAM and here.root < 0:
        _unpack(there)
        return -1
    if there.path == STREAM and there.root < 0:
        _pack(here, follow=values.follow_link)
        return -1
    rules = _rules(there, archive=values.archive)
    with Progress("cp") as progress:

        def left_out(name: str, why: str) -> None:
            progress.clear()
            _left_out(name, why)

        return copy.copy(
            here, there, rules, follow=values.follow_link, left_out=left_out, tell=progress
        )


class _Sides:
    """Open roots of the containers that SOURCE and DESTINATION name; a context manager."""

    def __init__(self, *names: str) -> None:
        found = {record.id: record for record in map(store.find, filter(None, names))}
        # sorted: a stopped container is locked, and two `cp` must take their locks in one order
        self.records = [found[one] for one in sorted(found)]
        self._names = {name: store.resolve(name) for name in names if name}
        self._roots: dict[str, Root] = {}

    def __enter__(self) -> Self:
        try:
            for record in self.records:
                self._roots[record.id] = Root(record).__enter__()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for root in self._roots.values():
            root.__exit__()

    def side(self, container: str, path: str) -> Side:
        """One end of the copy."""
        if not container:
            return Side(path=path)
        root = self._roots[self._names[container]]
        return Side(
            path=f"/{path.lstrip('/')}",
            root=root.fd,
            container=root.record.name,
            owners=root.owners,
            reader=root.reader,
            mounts=root.mounts,
        )


def _rules(destination: Side, *, archive: bool) -> Rules:
    """docker's rules: files belong to root in a container and to the caller here; -a keeps their owners.

    Without -a set-user-ID bits are dropped, since they would act for the new owner, and so are device nodes
    on this machine, since an image can name any of its devices.
    """
    if archive:
        return Rules()
    inside = destination.root >= 0
    owner = (0, 0) if inside else (posix.geteuid(), posix.getegid())
    return Rules(owner=owner, privileged=False, devices=inside)


def _left_out(name: str, why: str) -> None:
    emit(f"sysbox: cp: left out {name}: {why}\n", 2)


def _unpack(destination: Side) -> None:
    """Unpack a tar archive from standard input into a directory of the container."""
    if posix.isatty(0):
        raise UsageError("cp -: standard input is a terminal", hint="pipe a tar archive into it")
    posix.close(copy.open_directory(destination))
    source = stream_source(0, "the archive on standard input", 1 << 62)
    posix.umask(0)
    try:
        Extractor(destination.root, destination.path, destination.owners).run(source)
    except KernelError as error:
        raise copy.explained(error, destination) from None
    finally:
        source.close()


def _pack(source: Side, *, follow: bool) -> None:
    """Write a file or directory of the container to standard output as a tar archive."""
    if posix.isatty(1):
        raise UsageError("cp: standard output is a terminal", hint="pipe it into tar or a file")
    found = copy.open_source(source, follow=follow)
    try:
        if found.kind == _stat.S_IFSOCK:
            copy.refusing(source, found)("", "it is a socket")
        archive = Archive(
            lambda data: write_all(1, data),
            lambda name: _left_out(f"the end of {printable(name)}", "the file became shorter"),
            lambda name, why: _left_out(printable(name), why),
            source.owners,
            source.reader,
        )
        archive.tree(found, "." if source.content_only else source.name)
        archive.finish()
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise KernelError.of("read", source.shown, error) from None
    finally:
        found.close()
