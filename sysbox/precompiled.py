"""The package's modules from one file: to find and read each of a hundred takes longer than all the rest.

tools/precompile.py makes `modules.bin` when sysbox is installed: the marshalled index and, one after the
other, the marshalled code of each module. The file is left aside if another interpreter made it, and so is
a module in it whose source has been written to since.
"""

from __future__ import annotations

import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_HEADER = 8  # bytes: the length of the index
_USUAL = 1 << 15  # bytes: more than the index has, and nearly every module
_SLACK = 2.0  # seconds that an installation may take from the first file to the last


class Finder:
    """A finder and loader, as sys.meta_path has them."""

    def __init__(self, parent: str) -> None:
        """Of the package in the directory `parent`. Raises what a damaged file leads to."""
        self._parent = parent
        self._file = f"{parent}/sysbox/modules.bin"
        status = posix.stat(self._file)
        self._made = status.st_mtime + _SLACK
        self._identity = _identity(status)
        # one for all: to touch new memory costs more than to read
        self._buffer = memoryview(bytearray(_USUAL))
        length = int.from_bytes(self._read(0, _HEADER), "little")
        self._start = _HEADER + length
        # name -> (where its code begins, its length, its source below `parent`)
        self.magic, self._index = marshal.loads(self._read(_HEADER, length))  # noqa: S302 (ours, as a .pyc is)

    def _read(self, begin: int, length: int) -> memoryview:
        """A piece of it, until the next is read. Raises OSError, also where another was installed since.

        The file is closed at once: a descriptor of code that the host runs must not be near a container,
        which could open it anew for writing.
        """
        into = self._buffer[:length] if length <= _USUAL else memoryview(bytearray(length))
        file = posix.open(self._file, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            if _identity(posix.fstat(file)) != self._identity:
                raise FileNotFoundError(self._file)
            return into[: posix.preadv(file, [into], begin)]
        finally:
            posix.close(file)

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """importlib.abc.MetaPathFinder.find_spec"""
        if name not in self._index:
            return None
        begin, length, source = self._index[name]
        path = f"{self._parent}/{source}"
        try:
            if posix.stat(path).st_mtime > self._made:
                return None
            code = marshal.loads(self._read(self._start + begin, length))  # noqa: S302
        except OSError:
            return None
        spec: ModuleSpec = type(sys.__spec__)(name, self, origin=path)  # type: ignore[arg-type]
        spec.has_location = True
        spec.cached = self._file  # else importlib looks for the name that a .pyc file would have
        spec.loader_state = code
        if path.endswith("/__init__.py"):
            spec.submodule_search_locations = [path[:-12]]
        return spec

    def create_module(self, _: object) -> None:
        """importlib.abc.Loader.create_module: as usual"""

    def exec_module(self, module: ModuleType) -> None:
        """importlib.abc.Loader.exec_module"""
        spec: Any = module.__spec__
        code, spec.loader_state = spec.loader_state, None
        exec(code, module.__dict__)


def use(parent: str) -> None:
    """From now on import the package in a directory from that file, if there is one that fits."""
    try:
        finder: Any = Finder(parent)
    except (OSError, ValueError, EOFError, TypeError, MemoryError, OverflowError):
        return  # ignoring: it saves time alone
    if finder.magic == magic():
        sys.meta_path.insert(0, finder)


def _identity(status: posix.stat_result) -> tuple[int, int, int]:
    """What differs once a file was replaced by another."""
    return status.st_dev, status.st_ino, status.st_mtime_ns


def magic() -> bytes:
    """What changes with the format of bytecode."""
    return sys.modules["_frozen_importlib_external"].MAGIC_NUMBER  # type: ignore[no-any-return]
