"""Usage: python precompile.py TARGET [DIRECTORY]

Compile the package in DIRECTORY (by default this checkout) into TARGET/modules.bin, and its first file into
TARGET/_main.cpython-3N.pyc; sysbox/_main.py says why.
"""

from __future__ import annotations
import __future__

import ast
import marshal
import os
import py_compile
import sys
from collections.abc import Container, Iterator
from functools import cache
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType

# The modules that the usual commands import one after the other. What each imports in addition to those
# before it in its line is a piece of the file, in which a function's lines all have the number of the first.
PIECES = """
    cli.dispatch cli.parse.hot cli.table.container host units.cgroup.tree cli.commands.run lifecycle.create image.trust.gate lifecycle.user_namespace run.background
    cli.dispatch cli.parse.hot cli.table.container host units.cgroup.tree cli.commands.run lifecycle.create image.trust.gate lifecycle.user_namespace run.foreground
    cli.dispatch cli.parse.hot cli.commands.exec
    cli.dispatch cli.parse.hot cli.commands.ps
    cli.dispatch cli.parse.hot cli.commands.stop
    cli.dispatch cli.parse.hot cli.commands.rm
    cli.dispatch cli.parse.hot units.cgroup.tree cli.commands.start lifecycle.control
    cli.dispatch cli.parse.hot cli.commands.update
    cli.dispatch cli.parse.hot cli.commands.inspect docker.inspect docker.live
    cli.dispatch cli.parse.hot cli.commands.stats
    cli.dispatch cli.parse.hot cli.commands.logs
    cli.dispatch cli.internal container.identity host units.cgroup.tree run.service parse.time run.builder netns.members netns.port_filter netns.firewall_nft run.cgroup_watch run.monitor run.tuned netns.firewall
    cli.dispatch cli.internal run.cleanup
"""  # noqa: E501


class Strip(ast.NodeTransformer):
    """Removes code that only readers and type checkers need, and that every start would have to load."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        """Remove `from __future__ import`: a flag of compile() does the same without loading the module."""
        return None if node.module == "__future__" else node

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        """Remove `if TYPE_CHECKING:`, keep its `else:`."""
        self.generic_visit(node)
        return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Remove the types of arguments and results. Those of fields stay: Frozen reads them."""
        self.generic_visit(node)
        node.returns = None
        arguments = node.args
        for one in (
            *(*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs),
            *filter(None, (arguments.vararg, arguments.kwarg)),
        ):
            one.annotation = None
        return node


def imports(tree: ast.Module, known: Container[str]) -> Iterator[str]:
    """The `known` modules that a module imports at its top, in import order: each after its package."""
    for statement in tree.body:
        names: list[str] = []
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            module = statement.module
            names = [module, *(f"{module}.{alias.name}" for alias in statement.names)]
        for name in names:
            parts = name.split(".")
            above = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
            yield from (one for one in above if one in known)


@cache
def first_line(units: int) -> bytes:
    """The table of lines of code of so many units (pairs of bytes): all of it is on its first line.

    CPython's Objects/locations.md: an entry is of 8 units at most; one of kind 13 has a difference of lines.
    With a table for more units than there are, CPython would write where it must not once code is traced.
    """
    return b"".join(
        bytes((0x80 | 13 << 3 | min(8, units - at) - 1, 0)) for at in range(0, units, 8)
    )


def without_lines(code: CodeType) -> CodeType:
    """The code with such a table: the real one, which only a traceback needs, is a sixth of its size."""
    consts = (without_lines(one) if isinstance(one, CodeType) else one for one in code.co_consts)
    return code.replace(co_linetable=first_line(len(code.co_code) // 2), co_consts=tuple(consts))


def compile_first(target: Path, parent: Path) -> None:
    """Compile the script that the launcher starts."""
    name = "sysbox/_main.py"
    file = target / f"_main.{sys.implementation.cache_tag}.pyc"
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(
        str(parent / name), str(file), name, doraise=True, optimize=2, invalidation_mode=mode
    )


def compile_modules(target: Path, parent: Path) -> None:
    """Write the file of all modules, which appears complete or not at all."""
    index, parts, begin = {}, [], 0
    modules: dict[str, tuple[tuple[str, ...], CodeType | None]] = {}
    flags = __future__.annotations.compiler_flag
    sources = {
        ".".join(path.relative_to(parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(parent.glob("sysbox/**/*.py"))
    }
    for name, path in sources.items():
        source = path.relative_to(parent)
        text = path.read_bytes()
        tree = Strip().visit(ast.parse(text))
        # a traceback finds the source by sys.path; nobody reads a docstring at run time
        code = compile(tree, str(source), "exec", flags, dont_inherit=True, optimize=2)
        needs = tuple(dict.fromkeys(imports(tree, sources)))
        # nothing to execute in a package that has a docstring at most
        is_empty = path.name == "__init__.py" and len(tree.body) == bool(ast.get_docstring(tree))
        data = b"" if is_empty else marshal.dumps((needs, code))
        modules[name] = (needs, None if is_empty else code)
        index[name] = (begin, len(data), path.name == "__init__.py", len(text))
        parts.append(data)
        begin += len(data)
    pieces = {}
    for name, piece in make_pieces(modules):
        pieces[name] = (begin, len(piece))
        parts.append(piece)
        begin += len(piece)
    head = marshal.dumps((MAGIC_NUMBER, index, pieces))
    made = target.with_suffix(f".{os.getpid()}")
    made.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(parts))
    made.replace(target)


def make_pieces(
    modules: dict[str, tuple[tuple[str, ...], CodeType | None]],
) -> Iterator[tuple[str, bytes]]:
    """(the name of a module, its piece): a list of (name, code), each after its imports."""
    done = set()
    for line in PIECES.strip().splitlines():
        loaded: dict[str, None] = {"sysbox": None}
        for word in line.split():
            name = f"sysbox.{word}"
            before = set(loaded)
            if name in modules:  # not in the tests' packages
                add_with_imports(name, modules, loaded)
            if name in loaded and name not in done:
                done.add(name)
                codes = [(one, modules[one][1]) for one in loaded if one not in before]
                yield (
                    name,
                    marshal.dumps([(one, code and without_lines(code)) for one, code in codes]),
                )


def add_with_imports(
    name: str,
    modules: dict[str, tuple[tuple[str, ...], CodeType | None]],
    loaded: dict[str, None],
) -> None:
    """Add to `loaded` what a module imports, then the module."""
    if name in loaded:
        return
    waiting = [(name, iter(modules[name][0]))]
    seen = {name}
    while waiting:
        module, needs = waiting[-1]
        need = next((one for one in needs if one not in loaded and one not in seen), None)
        if need is None:
            loaded[module] = None
            waiting.pop()
        else:
            seen.add(need)
            waiting.append((need, iter(modules[need][0])))


if __name__ == "__main__":
    checkout = Path(__file__).resolve().parent.parent
    directory = Path(sys.argv[2]) if sys.argv[2:] else checkout
    compile_first(Path(sys.argv[1]), directory)
    compile_modules(Path(sys.argv[1]) / "modules.bin", directory)
