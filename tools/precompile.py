"""Usage: python -X no_debug_ranges precompile.py FILE [DIRECTORY]

Compile the package that is in DIRECTORY (this checkout) into one file; sysbox/precompiled.py says what for.
Without that flag each line of code has its columns too, and the file is a tenth larger.
"""

from __future__ import annotations
import __future__

import ast
import marshal
import os
import sys
from collections.abc import Collection, Mapping
from importlib.util import MAGIC_NUMBER
from pathlib import Path

BLOCK = 1 << 16  # as in sysbox/precompiled.py
# What is called most, what it shares with the next first: the code that one command reads lies together.
FIRST = "cli.dispatch cli.hotparse cli.ps cli.exec cli.run cli.start cli.stop cli.rm cli.inspect".split()


def imports(tree: ast.Module, names: Collection[str]) -> tuple[list[str], list[str]]:
    """The modules of the package that a module imports when it is read, and what its functions import."""
    at_once: list[str] = []
    later: list[str] = []

    def look(node: ast.AST, found: list[str]) -> None:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            inside = isinstance(node, ast.FunctionDef)
            for child in ast.iter_child_nodes(node):
                look(child, later if inside else found)

    look(tree, at_once)
    return [name for name in at_once if name in names], [name for name in later if name in names]


class Strip(ast.NodeTransformer):
    """Leaves out what only readers and type checkers need, and each start would pay for."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        """`from __future__ import annotations`: a flag says the same, and its module need not be read."""
        return None if node.module == "__future__" else node

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        """`if TYPE_CHECKING:`, but for its `else:`"""
        self.generic_visit(node)
        return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """The types of arguments and of what is returned. Those of fields stay: a Frozen reads them."""
        self.generic_visit(node)
        node.returns = None
        arguments = node.args
        for one in (
            *(*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs),
            *filter(None, (arguments.vararg, arguments.kwarg)),
        ):
            one.annotation = None
        return node


def order(trees: Mapping[str, ast.Module]) -> list[str]:
    """The names of all modules, in the order that they lie in."""
    needs = {name: imports(tree, trees) for name, tree in trees.items()}
    placed: dict[str, None] = {}

    def place(name: str) -> None:
        if name not in placed:
            placed[name] = None
            for other in needs[name][0]:
                place(other)

    for name in FIRST:
        if f"sysbox.{name}" in trees:
            place(f"sysbox.{name}")
    for name in tuple(placed):
        for other in needs[name][1]:
            place(other)
    for name in sorted(trees):
        place(name)
    return list(placed)


def main(target: Path, parent: Path) -> None:
    """Write the file; it is there whole or not at all."""
    sources, trees = {}, {}
    for path in parent.glob("sysbox/**/*.py"):
        source = path.relative_to(parent)
        name = ".".join(source.with_suffix("").parts).removesuffix(".__init__")
        sources[name] = str(source)
        trees[name] = Strip().visit(ast.parse(path.read_bytes()))
    flags = __future__.annotations.compiler_flag
    index, blocks = {}, [b"", b""]
    for name in order(trees):
        # a traceback finds the source by sys.path; nobody reads a docstring at run time
        code = compile(trees[name], sources[name], "exec", flags, dont_inherit=True, optimize=2)
        data = marshal.dumps(code)
        if len(blocks[-1]) + len(data) > BLOCK:
            blocks.append(b"")
        index[name] = (len(blocks) - 1, len(blocks[-1]), len(data), sources[name])
        blocks[-1] += data
    head = marshal.dumps((MAGIC_NUMBER, index))
    blocks[0] = len(head).to_bytes(8, "little") + head
    if any(len(block) > BLOCK for block in blocks):
        sys.exit(f"precompile.py: the index or a module is larger than {BLOCK} bytes")
    made = target.with_suffix(f".{os.getpid()}")
    made.write_bytes(b"".join(block.ljust(BLOCK, b"\0") for block in blocks))
    made.replace(target)


if __name__ == "__main__":
    checkout = Path(__file__).resolve().parent.parent
    main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else checkout)
