"""What the rules look at: the modules of the package, and who imports whom."""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "sysbox"


@functools.cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, of every module of the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


# in C, by src/_sys.c, src/_journal.c, src/_notify.c and src/_layer.c
EXTENSIONS = {f"sysbox.linux.{name}" for name in ("_sys", "_journal", "_notify", "_layer")}


@functools.cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of one file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """The modules that a file imports when it runs: not those that only its annotations name."""
    known = modules()
    found: set[str] = set()
    for node in _running(tree(path), top_level_only):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                found.add(inner if inner in known or inner in EXTENSIONS else origin)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "__import__":
            found.update(name for name in known if name.startswith(_prefix(node.args[0])))
    return found


def _prefix(name: ast.expr) -> str:
    """The start of a name given to `__import__(f"sysbox.PACKAGE.{...}")`: any module may follow."""
    assert isinstance(name, ast.JoinedStr), ast.unparse(name)
    start = name.values[0]
    assert isinstance(start, ast.Constant), ast.unparse(name)
    return str(start.value)


def _running(node: ast.AST, top_level_only: bool) -> list[ast.AST]:
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if _types_only(child) or (function and top_level_only):
            continue
        found.append(child)
        found += _running(child, top_level_only)
    return found


def _types_only(node: ast.AST) -> bool:
    """`if TYPE_CHECKING:`, whose body never runs (its `else` may hold definitions, never imports)."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def own(names: set[str]) -> set[str]:
    """Those of some modules that are the package's."""
    return {name for name in names if name == "sysbox" or name.startswith("sysbox.")}


def outside(names: set[str]) -> set[str]:
    """The top-level names of those that are not."""
    return {name.partition(".")[0] for name in names - own(names)}


def third_party(names: set[str]) -> set[str]:
    """Those that come neither from here nor from the standard library."""
    return outside(names) - set(sys.stdlib_module_names) - {"__future__"}


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """All that `start` imports, directly or not, and itself."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen
