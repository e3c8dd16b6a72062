"""The package's modules from one file: to find and read each of a hundred takes longer than all the rest.

tools/precompile.py makes `modules.bin` when sysbox is installed: the marshalled index and, one after the
other, each module marshalled: what it imports of ours at its top, and its code. The file is left aside if
another interpreter made it, and so is a module in it whose source has been written to since.

What a module imports is loaded before it, with a fraction of what importlib does for each: that then finds
it where all modules are.
"""

# nothing from __future__: of this one module, which is not in that file, it would have to be found and read
import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType
    from typing import Any

_HEADER = 8  # bytes: the length of the index
_USUAL = 1 << 15  # bytes: more than the index has, and nearly every module
# seconds that an installation may take, on a busy machine; what is edited meanwhile is noticed by its size
_SLACK = 60.0


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
        # name -> (where it begins, its length, whether it is a package, the size of its source)
        self.magic, self._index = marshal.loads(self._head())  # noqa: S302 (ours, as a .pyc is)

    def _head(self) -> memoryview:
        file = self._open()
        try:
            length = int.from_bytes(self._read(file, 0, _HEADER), "little")
            self._start = _HEADER + length
            return self._read(file, _HEADER, length)
        finally:
            posix.close(file)

    def _open(self) -> int:
        """Its descriptor. Raises OSError, also where another was installed since.

        It is closed at once, before anything is executed: a descriptor of code that the host runs must not be
        near a container, which could open it anew for writing.
        """
        file = posix.open(self._file, posix.O_RDONLY | posix.O_CLOEXEC)
        if _identity(posix.fstat(file)) != self._identity:
            posix.close(file)
            raise FileNotFoundError(self._file)
        return file

    def _read(self, file: int, begin: int, length: int) -> memoryview:
        """A piece of it, until the next is read. Raises OSError."""
        into = self._buffer[:length] if length <= _USUAL else memoryview(bytearray(length))
        return into[: posix.preadv(file, [into], begin)]

    def find_spec(self, name: str, *_: object) -> "ModuleSpec | None":
        """importlib.abc.MetaPathFinder.find_spec; what it imports is loaded by then."""
        if name not in self._index:
            return None
        codes: dict[str, CodeType] = {}
        try:
            file = self._open()
            try:
                self._collect(file, name, codes, set())
            finally:
                posix.close(file)
        except OSError:
            return None
        if name not in codes:
            return None
        spec = self._spec(name)
        spec.loader_state = codes.pop(name)
        for other in tuple(codes):
            self._load(other, codes.pop(other))  # each makes room for the next
        return spec

    def _collect(self, file: int, name: str, codes: "dict[str, CodeType]", seen: set[str]) -> None:
        """The code of a module, behind that of what has to be loaded for it, but for what is newer.

        Raises OSError.
        """
        if name in seen or name in sys.modules or name not in self._index:
            return
        seen.add(name)
        begin, length, _, size = self._index[name]
        status = posix.stat(self._source(name))
        if status.st_mtime > self._made or status.st_size != size:
            return
        needs, code = marshal.loads(self._read(file, self._start + begin, length))  # noqa: S302
        for need in needs:
            self._collect(file, need, codes, seen)
        codes[name] = code

    def _load(self, name: str, code: "CodeType") -> None:
        """Execute a module whose package and imports have been. Raises what it raises."""
        above, _, last = name.rpartition(".")
        if above not in sys.modules or name in sys.modules:
            return  # importlib will see to it
        spec = self._spec(name)
        module: Any = type(sys)(name)
        module.__spec__, module.__loader__, module.__file__ = spec, self, spec.origin
        module.__package__ = above
        if spec.submodule_search_locations is not None:
            module.__package__, module.__path__ = name, spec.submodule_search_locations
        sys.modules[name] = module
        try:
            exec(code, module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
        setattr(sys.modules[above], last, module)

    def _source(self, name: str) -> str:
        beside = "/__init__.py" if self._index[name][2] else ".py"
        return f"{self._parent}/{name.replace('.', '/')}{beside}"

    def _spec(self, name: str) -> "ModuleSpec":
        path = self._source(name)
        spec: ModuleSpec = type(sys.__spec__)(name, self, origin=path)  # type: ignore[arg-type]
        spec.has_location = True
        spec.cached = self._file  # else importlib looks for the name that a .pyc file would have
        if self._index[name][2]:
            spec.submodule_search_locations = [path[:-12]]
        return spec

    def create_module(self, _: object) -> None:
        """importlib.abc.Loader.create_module: as usual"""

    def exec_module(self, module: "ModuleType") -> None:
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
