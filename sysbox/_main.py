"""The first file the launcher's interpreter reads: `python -I -S .../sysbox/_main.py LAUNCHER ARGS`.

It imports sysbox's modules from one file: finding and reading a hundred files takes most of a start.
tools/precompile.py makes `modules.bin` when sysbox is installed: the marshalled index, then for each module,
marshalled, the names of the sysbox modules that it imports at its top, and its code. The file is not used
if another interpreter made it, nor is a module in it whose source has changed since; a package that was
empty is taken to be empty still.

The imports of a module are loaded before it, with a fraction of importlib's work for each; its own import
statements then find them in sys.modules. Where the usual commands begin, a module and all its imports are in
the file once more, as one marshalled piece: a name that many of them have is read once there. In a piece
all lines of a function have the number of the first: with --debug, which shows tracebacks, none is used.

Python compiles a script anew at each start, so tools/precompile.py also compiles this one, for the version of
its interpreter: `_main.cpython-311.pyc`. The launcher prefers that.
"""

# no `from __future__` here: this module is not in modules.bin, so Python would search for __future__
import _imp
import gc
import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType
    from typing import Any

_HEADER = 8  # bytes: the length of the index
_USUAL = 1 << 15  # bytes: larger than the index and nearly every module
# seconds that an installation may take on a busy machine; an edit within them is noticed by the file's size
_SLACK = 60.0


_SUFFIX = _imp.extension_suffixes()[0]
_DYNLOAD = [path for path in sys.path if path.endswith("/lib-dynload")]


class Finder:
    """A finder and loader for sys.meta_path."""

    def __init__(self, parent: str, *, lines: bool = False) -> None:
        """Read the index for the package in the directory `parent`; `lines`: code has line numbers.

        Raises OSError, and for a damaged file ValueError, EOFError, TypeError, MemoryError or OverflowError.
        """
        self._parent = parent
        self._file = f"{parent}/sysbox/modules.bin"
        status = posix.stat(self._file)
        self._made = status.st_mtime + _SLACK
        self._identity = _identity(status)
        # one buffer for all reads: touching new memory costs more than reading
        self._buffer = memoryview(bytearray(_USUAL))
        # name -> (offset, length, whether it is a package, size of its source)
        # and: name -> (offset, length) of the piece
        head = marshal.loads(self._head())  # noqa: S302 (trusted like a .pyc)
        self.magic, self._index, pieces = head
        self._pieces = {} if lines else pieces

    def _head(self) -> memoryview:
        file = self._open()
        try:
            length = int.from_bytes(self._read(file, 0, _HEADER), "little")
            self._start = _HEADER + length
            return self._read(file, _HEADER, length)
        finally:
            posix.close(file)

    def _open(self) -> int:
        """A descriptor of modules.bin. Raises OSError, also where another file was installed since.

        The caller closes it before any module is executed: a container that got hold of a descriptor of code
        that the host runs could reopen it for writing.
        """
        file = posix.open(self._file, posix.O_RDONLY | posix.O_CLOEXEC)
        if _identity(posix.fstat(file)) != self._identity:
            posix.close(file)
            raise FileNotFoundError(self._file)
        return file

    def _read(self, file: int, begin: int, length: int) -> memoryview:
        """A piece of the file, valid until the next call. Raises OSError."""
        into = self._buffer[:length] if length <= _USUAL else memoryview(bytearray(length))
        return into[: posix.preadv(file, [into], begin)]

    def find_spec(self, name: str, *_: object) -> "ModuleSpec | None":
        """importlib.abc.MetaPathFinder.find_spec; also loads the modules that this one imports."""
        if name not in self._index:
            return self._extension(name)
        if not self._index[name][1]:
            return self._spec(name)  # of an empty package there is nothing to read
        codes: dict[str, CodeType | None] = {}  # None of an empty package
        try:
            file = self._open()
            try:
                if name in self._pieces:
                    self._take_piece(file, name, codes)
                else:
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
            self._load(other, codes.pop(other))  # popped, so that its memory serves the next
        return spec

    def _take_piece(self, file: int, name: str, codes: "dict[str, CodeType | None]") -> None:
        """`_collect` for a module that has a piece. Raises OSError."""
        begin, length = self._pieces[name]
        for one, code in marshal.loads(self._read(file, self._start + begin, length)):  # noqa: S302
            if one not in sys.modules and (code is None or self._is_current(one)):
                codes[one] = code

    def _is_current(self, name: str) -> bool:
        """Whether the source is as it was when its code was made. Raises OSError."""
        status = posix.stat(self._source(name))
        return status.st_mtime <= self._made and status.st_size == self._index[name][3]

    def _collect(
        self, file: int, name: str, codes: "dict[str, CodeType | None]", seen: set[str]
    ) -> None:
        """Add a module's code to `codes`, after that of its imports; skip one with a newer source.

        Raises OSError.
        """
        if name in seen or name in sys.modules or name not in self._index:
            return
        seen.add(name)
        begin, length, _, _ = self._index[name]
        if not length:
            codes[name] = None
            return
        if not self._is_current(name):
            return
        needs, code = marshal.loads(self._read(file, self._start + begin, length))  # noqa: S302
        for need in needs:
            self._collect(file, need, codes, seen)
        codes[name] = code

    def _load(self, name: str, code: "CodeType | None") -> None:
        """Execute a module after its package and imports. Raises what the module raises."""
        above, _, last = name.rpartition(".")
        if above not in sys.modules or name in sys.modules:
            return  # importlib handles it
        spec = self._spec(name)
        module: Any = type(sys)(name)
        module.__spec__, module.__loader__, module.__file__ = spec, self, spec.origin
        module.__package__ = above
        if spec.submodule_search_locations is not None:
            module.__package__, module.__path__ = name, spec.submodule_search_locations
        sys.modules[name] = module
        try:
            if code:
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
        spec.cached = self._file  # otherwise importlib computes the name of a .pyc file
        if self._index[name][2]:
            spec.submodule_search_locations = [path[:-12]]
        return spec

    def _extension(self, name: str) -> "ModuleSpec | None":
        """A C extension of sysbox or of the standard library; None for everything else.

        To find the first one in a directory, importlib would read the whole of that.
        """
        if name.startswith("sysbox."):
            path = f"{self._parent}/{name.replace('.', '/')}.abi3.so"
        elif "." in name or name in sys.builtin_module_names or not _DYNLOAD:
            return None
        else:
            path = f"{_DYNLOAD[-1]}/{name}{_SUFFIX}"
        try:
            posix.stat(path)
        except OSError:
            return None
        loader = sys.modules["_frozen_importlib_external"].ExtensionFileLoader(name, path)
        spec: ModuleSpec = type(sys.__spec__)(name, loader, origin=path)
        spec.has_location = True
        return spec

    def create_module(self, _: object) -> None:
        """importlib.abc.Loader.create_module: None asks for the default module object"""

    def exec_module(self, module: "ModuleType") -> None:
        """importlib.abc.Loader.exec_module"""
        spec: Any = module.__spec__
        code, spec.loader_state = spec.loader_state, None
        if code:
            exec(code, module.__dict__)


def use(parent: str, *, lines: bool = False) -> None:
    """Import the package in the directory `parent` from its modules.bin, if this interpreter made that.

    `lines`: with line numbers, which takes longer.
    """
    try:
        finder: Any = Finder(parent, lines=lines)
    except (OSError, ValueError, EOFError, TypeError, MemoryError, OverflowError):
        return  # ignoring: the file only saves time; importlib reads the sources
    if finder.magic == magic():
        sys.meta_path.insert(0, finder)


def _identity(status: posix.stat_result) -> tuple[int, int, int]:
    """(device, inode, mtime in ns): it differs once the file was replaced."""
    return status.st_dev, status.st_ino, status.st_mtime_ns


def magic() -> bytes:
    """The magic number of this interpreter's bytecode format."""
    return sys.modules["_frozen_importlib_external"].MAGIC_NUMBER  # type: ignore[no-any-return]


def main() -> None:
    """Import and run the command of sys.argv; does not return."""
    # a command ends before its garbage matters, and collecting costs a tenth of the import time
    gc.disable()
    parent = __file__.rpartition("/")[0].rpartition("/")[0]
    # last: a package beside sysbox must not shadow one of the standard library
    sys.path.append(parent)
    try:
        use(parent, lines=not {"--debug", "-D"}.isdisjoint(sys.argv))
        from sysbox.cli.dispatch import start
    except (ImportError, MemoryError, OSError) as error:
        # no module of sysbox is loaded that could print the error
        print(f"sysbox: cannot be loaded: {error}", file=sys.stderr)
        raise SystemExit(125) from None
    start(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # before the command looks after signals itself
