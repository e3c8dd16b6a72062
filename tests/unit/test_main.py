"""Modules from one file: the same as from their sources, and never instead of a newer one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sysbox

ROOT = Path(__file__).parents[2]
LOOK = """
import sys
sys.path.append({parent!r})
from sysbox import _main
_main.use({parent!r})
import sysbox.inner.word as word
print(word.SAID, type(word.__loader__).__name__, word.__file__, word.__spec__.parent)
try:
    word.fail()
except ValueError as error:
    import traceback
    print(traceback.format_exc())
"""


def precompile(parent: Path) -> Path:
    target = parent / "sysbox"
    flags = ["-I", "-B"]
    command = [sys.executable, *flags, ROOT / "tools/precompile.py", target, parent]
    subprocess.run(command, check=True)
    return target / "modules.bin"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package of the same name, with the finder in it; the directory that it is in."""
    inner = tmp_path / "sysbox/inner"
    inner.mkdir(parents=True)
    for directory in (inner.parent, inner):
        (directory / "__init__.py").write_text('"""A package."""\n')
    (inner.parent / "_main.py").write_bytes((ROOT / "sysbox/_main.py").read_bytes())
    (inner / "word.py").write_text(
        'SAID = "hello"\n\n\ndef fail():\n    raise ValueError("on purpose")\n'
    )
    return tmp_path


def look(package: Path) -> str:
    command = [sys.executable, "-I", "-S", "-B", "-c", LOOK.format(parent=str(package))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_the_file(package: Path) -> None:
    precompile(package)
    told = look(package)
    assert told.startswith(f"hello Finder {package}/sysbox/inner/word.py sysbox.inner\n")
    # a traceback shows the line
    assert 'raise ValueError("on purpose")' in told


def look_at(package: Path, script: str) -> str:
    begin = f"import sys\nsys.path.append({str(package)!r})\nfrom sysbox import _main\n"
    script = f"{begin}_main.use({str(package)!r})\n{script}"
    command = [sys.executable, "-I", "-S", "-B", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def family(package: Path) -> Path:
    """Modules that import each other, in the three ways there are; each says when it is executed."""
    below = package / "sysbox/other/below"
    below.mkdir(parents=True)
    for directory in (below.parent, below):
        (directory / "__init__.py").write_text("")
    (below / "base.py").write_text("print('base')\nWORD = 'base'\n")
    (package / "sysbox/inner/middle.py").write_text(
        "import sysbox.other.below.base\n\nprint('middle')\nWORD = sysbox.other.below.base.WORD\n"
    )
    (package / "sysbox/inner/top.py").write_text(
        "from sysbox.inner import middle\nfrom sysbox.other.below.base import WORD\n"
        "print('top', middle.WORD, WORD)\n"
    )
    return package


def test_what_a_module_imports_comes_with_it(family: Path) -> None:
    precompile(family)
    told = look_at(
        family,
        """
import sysbox.inner.top
from sysbox.inner import middle
for name in ("inner.middle", "other", "other.below", "other.below.base"):
    module = sys.modules["sysbox." + name]
    print(type(module.__loader__).__name__, module.__name__, module.__package__, hasattr(module, "__path__"))
    assert module.__spec__.name == module.__name__ and module.__file__ == module.__spec__.origin
print(sysbox.other.below.base.WORD, middle is sysbox.inner.middle)
""",
    )
    assert told.splitlines() == [
        "base",
        "middle",
        "top base base",
        "Finder sysbox.inner.middle sysbox.inner False",
        "Finder sysbox.other sysbox.other True",
        "Finder sysbox.other.below sysbox.other.below True",
        "Finder sysbox.other.below.base sysbox.other.below False",
        "base True",
    ]


def test_what_comes_with_it_and_is_newer(family: Path) -> None:
    made = precompile(family)
    source = family / "sysbox/inner/middle.py"
    source.write_text("WORD = 'news'\n")
    later = made.stat().st_mtime + 60
    os.utime(source, (later, later))
    told = look_at(
        family,
        "import sysbox.inner.top\nprint(type(sys.modules['sysbox.inner.middle'].__loader__).__name__)",
    )
    assert told.splitlines() == ["base", "top news base", "SourceFileLoader"]


def test_what_comes_with_it_and_fails(family: Path) -> None:
    (family / "sysbox/inner/middle.py").write_text("raise ValueError('on purpose')\n")
    precompile(family)
    script = """
for _ in range(2):
    try:
        import sysbox.inner.top
    except ValueError as error:
        print(error, "sysbox.inner.top" in sys.modules, "sysbox.inner.middle" in sys.modules)
"""
    assert look_at(family, script).splitlines() == ["on purpose False False"] * 2


@pytest.fixture
def usual(family: Path) -> Path:
    """The same, with a module that commands begin with: it is in the file with its imports, as one piece."""
    cli = family / "sysbox/cli"
    cli.mkdir()
    (cli / "__init__.py").write_text("")
    (cli / "dispatch.py").write_text("import sysbox.inner.top\nprint('dispatch')\n")
    return family


PIECE = """
taken = []
Finder = _main.Finder
take, collect = Finder._take_piece, Finder._collect
Finder._take_piece = lambda self, file, name, *rest: (taken.append(name), take(self, file, name, *rest))
Finder._collect = lambda self, file, name, *rest: (taken.append("-" + name), collect(self, file, name, *rest))
import sysbox.cli.dispatch
print(*taken)
print(*(type(sys.modules["sysbox." + name].__loader__).__name__ for name in ("inner.middle", "inner.top")))
"""


def test_a_module_and_its_imports_in_one_piece(usual: Path) -> None:
    precompile(usual)
    assert look_at(usual, PIECE).splitlines() == [
        "base", "middle", "top base base", "dispatch",
        "sysbox.cli.dispatch",
        "Finder Finder",
    ]  # fmt: skip


@pytest.mark.parametrize(("lines", "number"), [(False, 1), (True, 2)], ids=["usual", "debug"])
def test_a_traceback_of_a_piece(usual: Path, lines: bool, number: int) -> None:
    """A piece has the number of a function's first line alone, so --debug does without them."""
    (usual / "sysbox/cli/dispatch.py").write_text(
        "def fail():\n    raise ValueError('on purpose')\n"
    )
    precompile(usual)
    script = f"""
import sys, traceback
sys.path.append({str(usual)!r})
from sysbox import _main
_main.use({str(usual)!r}, lines={lines})
from sysbox.cli.dispatch import fail
try:
    fail()
except ValueError:
    print(traceback.format_exc())
code = fail.__code__
print(len(list(code.co_positions())) == len(code.co_code) // 2)
"""
    command = [sys.executable, "-I", "-S", "-B", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"line {number}, in fail\n" in done.stdout
    assert "ValueError: on purpose" in done.stdout
    # CPython fills an array of the code's length from the table of lines, as soon as the code is traced
    assert done.stdout.endswith("True\n")


def test_debug_asks_for_line_numbers(usual: Path) -> None:
    """The command itself, with a traceback of its first module."""
    (usual / "sysbox/cli/dispatch.py").write_text(
        "def start(launcher, words):\n    raise ValueError(' '.join(words))\n"
    )
    precompile(usual)
    main = usual / "sysbox/_main.py"
    told = []
    for words in (["ps"], ["--debug", "ps"], ["-D", "ps"]):
        command = [sys.executable, "-I", "-S", "-B", main, "launcher", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr.endswith(f"ValueError: {' '.join(words)}\n")
        told.append("line 2, in start" in done.stderr)
    assert told == [False, True, True]


def test_what_is_loaded_already_is_not_loaded_again(usual: Path) -> None:
    precompile(usual)
    told = look_at(usual, "import sysbox.inner.middle\nprint('now')\nimport sysbox.cli.dispatch\n")
    assert told.splitlines() == ["base", "middle", "now", "top base base", "dispatch"]


def test_what_is_newer_than_its_piece(usual: Path) -> None:
    made = precompile(usual)
    source = usual / "sysbox/inner/middle.py"
    source.write_text("WORD = 'news'\n")
    later = made.stat().st_mtime + 61
    os.utime(source, (later, later))
    assert look_at(usual, PIECE).splitlines() == [
        "base", "top news base", "dispatch",
        "sysbox.cli.dispatch -sysbox.inner.middle",
        "SourceFileLoader Finder",
    ]  # fmt: skip


def test_a_newer_source_goes_before_it(package: Path) -> None:
    made = precompile(package)
    source = package / "sysbox/inner/word.py"
    source.write_text(source.read_text().replace("hello", "other"))  # of the same size
    later = made.stat().st_mtime + 61
    os.utime(source, (later, later))
    assert look(package).startswith("other SourceFileLoader")


def test_a_source_of_another_size_goes_before_it(package: Path) -> None:
    made = precompile(package)
    source = package / "sysbox/inner/word.py"
    source.write_text('SAID = "news"\nfail = str\n')
    same = made.stat().st_mtime
    os.utime(source, (same, same))
    assert look(package).startswith("news SourceFileLoader")


def test_an_installation_may_take_its_time(package: Path) -> None:
    """Where it took more than two seconds, every command was slower for ever, and nobody knew."""
    later = precompile(package).stat().st_mtime + 30
    os.utime(package / "sysbox/inner/word.py", (later, later))
    assert look(package).startswith("hello Finder")


def test_a_source_that_is_gone_is_not_imported(package: Path) -> None:
    precompile(package)
    (package / "sysbox/inner/word.py").unlink()
    with pytest.raises(AssertionError, match="No module named"):
        look(package)


@pytest.mark.parametrize("damage", ["none", "cut", "empty", "other", "noise", "long"])
def test_without_a_file_that_fits(package: Path, damage: str) -> None:
    made = precompile(package)
    data = made.read_bytes()
    match damage:
        case "none":
            made.unlink()
        case "cut":
            made.write_bytes(data[:20])
        case "empty":
            made.write_bytes(b"")
        case "other":  # another interpreter's magic number
            at = data.index(b"\r\n", 8)
            made.write_bytes(data[: at - 1] + bytes([data[at - 1] ^ 1]) + data[at:])
        case "long":  # the length of the index
            made.write_bytes(b"\xff" * 8 + data[8:])
        case "noise":
            made.write_bytes(b"\x10" + bytes(7) + b"\xf3noise" * 20)
    assert look(package).startswith("hello SourceFileLoader")


def test_a_file_that_is_replaced_meanwhile_is_not_read(package: Path) -> None:
    """An upgrade beside a command that runs: where a module was, something else is now."""
    (package / "sysbox/inner/later.py").write_text("SAID = 'again'\n")
    precompile(package)
    script = (
        LOOK.format(parent=str(package))
        + """
import os
name = f"{sys.path[-1]}/sysbox/modules.bin"
data = open(name, "rb").read()
with open(f"{name}.new", "wb") as file:
    file.write(data[:100] + bytes(len(data) - 100))
os.replace(f"{name}.new", name)
import sysbox.inner.later as later
print(later.SAID, type(later.__loader__).__name__)
"""
    )
    command = [sys.executable, "-I", "-S", "-B", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hello Finder")
    assert done.stdout.endswith("again SourceFileLoader\n")


def test_the_installed_package_is_in_its_file() -> None:
    """Else a command would be slower, and nobody would know."""
    assert sysbox.__file__
    parent = str(Path(sysbox.__file__).parents[1])
    script = f"""
import sys
sys.path.append({parent!r})
from sysbox import _main
_main.use({parent!r})
import sysbox.cli.table.verbs, sysbox.units.bus, sysbox.linux._sys
for module in list(sys.modules.values()):
    if module.__name__.startswith("sysbox."):
        print(module.__name__, type(module.__loader__).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    loaders = dict(line.split() for line in done.stdout.splitlines())
    assert loaders.pop("sysbox.linux._sys") == "ExtensionFileLoader"
    assert loaders.pop("sysbox._main") == "SourceFileLoader"
    assert set(loaders.values()) == {"Finder"}


def test_extensions_are_found_without_reading_their_directories(tmp_path: Path) -> None:
    """Those of the standard library and our own; they are the files that importlib finds."""
    parent = str(Path(sysbox.__file__).parents[1])
    names = ("_json", "sysbox.linux._sys")
    # the package is registered by hand, as _main.py does
    plain = (
        f"import sys; sys.path.append({parent!r}); package = sys.modules['sysbox'] = type(sys)('sysbox');"
        f" package.__path__ = [{parent + '/sysbox'!r}]"
    )
    finder = f"from sysbox import _main; _main.use({parent!r})"
    show = f"import {', '.join(names)}; print(*[sys.modules[name].__file__ for name in {names}])"
    found = []
    for code in (f"{plain}; {finder}; {show}", f"{plain}; {show}"):
        calls = tmp_path / "calls"
        command = ["strace", "-qq", "-y", "-e", "trace=getdents64", "-o", calls, sys.executable]
        done = subprocess.run(
            [*command, "-I", "-S", "-B", "-c", code], capture_output=True, text=True, check=True
        )
        read = calls.read_text()
        found.append((done.stdout, "lib-dynload>" in read, "sysbox/linux>" in read))
    assert found == [(found[1][0], False, False), (found[1][0], True, True)]
