"""What nothing in the package uses is not there: what tests alone use is tested for nobody."""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Iterator

import source

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
# (module, name, or a suffix after "*") -> who uses it, where no line of the package names it
CALLED_BY_NAME = {
    ("sysbox.cli.table", "*_options"): "cli.table.verbs, by the name that a verb has for its flags",
    ("sysbox.build.run_mounts", "_tmpfs"): "StepMounts, by the kind of a mount",
    ("sysbox.build.run_mounts", "_ssh"): "StepMounts, by the kind of a mount",
    ("sysbox.cli.parse.cold", "collect_usage_pieces"): "click",
    ("sysbox._main", "create_module"): "the import system",
    ("sysbox._main", "exec_module"): "the import system",
    ("sysbox.units.quadlet.keyhelp", "HELP"): "tools/man.py",
    ("sysbox.units.quadlet.keyhelp", "VERB"): "tools/man.py",
    # a container that is made and not started, as the OCI runtime specification has it: no verb does so yet
    ("sysbox.run.parent", "await_waiting"): "the OCI runtime specification's create",
    ("sysbox.run.parent", "let_start"): "the OCI runtime specification's start",
}

_FEW = 20  # of more uses one is another's


def _uses(tree: ast.AST) -> Counter[str]:
    """How often each name is read, as a variable, an attribute, or a whole string as for getattr()."""
    found: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found[node.id] += 1
        elif isinstance(node, ast.Attribute):
            found[node.attr] += 1
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found[node.value] += 1
    return found


def _defined(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Functions, methods and classes, and a module's constants but public ones of a set, as A, B = 1, 2."""
    for node in ast.walk(tree):
        if isinstance(node, Definition):
            yield node.name, node
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        for target in targets:
            if isinstance(target, ast.Name):
                yield target.id, target
            elif isinstance(target, ast.Tuple):
                names = (one.id for one in target.elts if isinstance(one, ast.Name))
                yield from ((name, target) for name in names if name[0] == "_")


def _is_used(name: str, node: ast.AST, used: Counter[str]) -> bool:
    """Whether anybody but itself uses it."""
    if used[name] > _FEW or not isinstance(node, Definition):
        return used[name] > 0
    calls = (one for one in ast.walk(node) if isinstance(one, ast.Name) and one.id == name)
    return used[name] > sum(1 for _ in calls)


@functools.cache
def _unused() -> set[tuple[str, str]]:
    """(module, name) of each."""
    trees = {name: source.tree(path) for name, path in source.modules().items()}
    used: Counter[str] = Counter()
    for tree in trees.values():
        used.update(_uses(tree))
    return {
        (module, name)
        for module, tree in trees.items()
        for name, node in _defined(tree)
        if not name.startswith("__") and not _is_used(name, node, used)
    }


def _matches(module: str, name: str, entry: tuple[str, str]) -> bool:
    where, what = entry
    fits = name.endswith(what[1:]) if what[0] == "*" else name == what
    return fits and f"{module}.".startswith(f"{where}.")


def test_everything_is_used() -> None:
    found = [one for one in _unused() if not any(_matches(*one, each) for each in CALLED_BY_NAME)]
    assert not found, "remove it, or say in CALLED_BY_NAME who uses it"


def test_the_table_names_what_there_is() -> None:
    for each in CALLED_BY_NAME:
        assert any(_matches(*one, each) for one in _unused()), each
