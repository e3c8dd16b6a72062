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
_SLACK = 2.0  # seconds that an installation may take from the first file to the last


class Finder:
    """A finder and loader, as sys.meta_path has them."""

    def __init__(self, content: bytes, made: float, parent: str) -> None:
        """The file's content and when it was made; `parent` is the directory that the package is in."""
        self._content = memoryview(content)
        self._parent = parent
        self._made = made + _SLACK
        self._start = _HEADER + int.from_bytes(content[:_HEADER], "little")
        # name -> (where its code begins, its length, its source below `parent`)
        index = self._content[_HEADER : self._start]
        self.magic, self._index = marshal.loads(index)  # noqa: S302 (ours, as a .pyc is)

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """importlib.abc.MetaPathFinder.find_spec"""
        if name not in self._index:
            return None
        path = f"{self._parent}/{self._index[name][2]}"
        try:
            if posix.stat(path).st_mtime > self._made:
                return None
        except OSError:
            return None
        spec: ModuleSpec = type(sys.__spec__)(name, self, origin=path)  # type: ignore[arg-type]
        spec.has_location = True
        if path.endswith("/__init__.py"):
            spec.submodule_search_locations = [path[:-12]]
        return spec

    def create_module(self, _: object) -> None:
        """importlib.abc.Loader.create_module: as usual"""

    def exec_module(self, module: ModuleType) -> None:
        """importlib.abc.Loader.exec_module"""
        begin, length, _ = self._index[module.__name__]
        begin += self._start
        code = marshal.loads(self._content[begin : begin + length])  # noqa: S302
        exec(code, module.__dict__)


def use(parent: str) -> None:
    """From now on import the package in a directory from that file, if there is one that fits."""
    try:
        finder: Any = Finder(*_read(f"{parent}/sysbox/modules.bin"), parent)
    except (OSError, ValueError, EOFError, TypeError):
        return  # ignoring: it saves time alone
    if finder.magic == magic():
        sys.meta_path.insert(0, finder)


def _read(path: str) -> tuple[bytes, float]:
    """All of the file, and when it was made.

    It is closed at once: a descriptor of code that the host runs must not be near a container, which could
    open it anew for writing. To read it whole takes no longer than a piece for each module.
    """
    file = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        status = posix.fstat(file)
        return posix.read(file, status.st_size), status.st_mtime
    finally:
        posix.close(file)


def magic() -> bytes:
    """What changes with the format of bytecode."""
    return sys.modules["_frozen_importlib_external"].MAGIC_NUMBER  # type: ignore[no-any-return]
