"""Usage: python -X no_debug_ranges precompile.py TARGET [DIRECTORY]

Compile the package in DIRECTORY (by default this checkout) into TARGET/modules.bin, and its first file into
TARGET/_main.cpython-3N.pyc; sysbox/_main.py says why. Without the option -X the code would also contain
column numbers, and the file would be a tenth larger.
"""

from __future__ import annotations
import __future__

import ast
import marshal
import os
import py_compile
import sys
from collections.abc import Container, Iterator
from importlib.util import MAGIC_NUMBER
from pathlib import Path


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
    index, codes, begin = {}, [], 0
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
        index[name] = (begin, len(data), path.name == "__init__.py", len(text))
        codes.append(data)
        begin += len(data)
    head = marshal.dumps((MAGIC_NUMBER, index))
    made = target.with_suffix(f".{os.getpid()}")
    made.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(codes))
    made.replace(target)


if __name__ == "__main__":
    checkout = Path(__file__).resolve().parent.parent
    directory = Path(sys.argv[2]) if sys.argv[2:] else checkout
    compile_first(Path(sys.argv[1]), directory)
    compile_modules(Path(sys.argv[1]) / "modules.bin", directory)
