"""What nothing in the package uses is not there: what tests alone use is tested for nobody."""

from __future__ import annotations

import ast
import fnmatch
import functools
from collections import Counter
from collections.abc import Iterator

import source

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
# patterns of names -> who uses what they are of, where no line of the package names it
BY_NAME = {
    "cli.commands.*.main": "cli.invoke, by the verb",
    "cli.table.*_options": "cli.table.verbs, by the verb",
    "fs.drivers.overlay.*": "fs.drivers.driver, by the driver of a record",
    "netns.firewall_iptables.*": "netns.firewall, by the packet filter of the mark",
    "netns.firewall_legacy.*": "netns.firewall, likewise",
    "netns.firewall_nft.*": "netns.firewall, likewise",
    "build.run_mounts._tmpfs": "StepMounts, by the kind of a mount",
    "build.run_mounts._ssh": "StepMounts, by the kind of a mount",
    "cli.parse.cold.collect_usage_pieces": "click",
    "_main.create_module": "the import system",
    "_main.exec_module": "the import system",
    "units.quadlet.keyhelp.*": "tools/man.py",
    # a container that is made and not started, as the OCI runtime specification has it: no verb does so yet
    "run.parent.await_waiting": "the OCI runtime specification's create",
    "run.parent.let_start": "the OCI runtime specification's start",
}


def _names(tree: ast.AST) -> Iterator[str]:
    """Each name that is read: a variable, an attribute, or a whole string as for getattr()."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _of_others(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name) of what it takes of other modules: by `from`, or as an attribute of a module."""
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in source.modules():
                    modules[alias.asname or alias.name] = inner
                else:
                    yield node.module or "", alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield modules.get(node.value.id, ""), node.attr


def _defined(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """A module's functions, classes and constants, but public ones of a set, as A, B = 1, 2."""
    for node in tree.body:
        if isinstance(node, Definition):
            yield node.name, node
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        for target in targets:
            if isinstance(target, ast.Name):
                yield target.id, target
            elif isinstance(target, ast.Tuple):
                names = (one.id for one in target.elts if isinstance(one, ast.Name))
                yield from ((name, target) for name in names if name[0] == "_")


def _methods(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from (one.name for one in node.body if isinstance(one, ast.FunctionDef))


@functools.cache
def unused() -> list[str]:
    """MODULE.NAME of each, without the package."""
    trees = {name: source.tree(path) for name, path in source.modules().items()}
    taken = {one for tree in trees.values() for one in _of_others(tree)}
    anywhere = {name for tree in trees.values() for name in _names(tree)}
    found = []
    for module, tree in trees.items():
        own = Counter(_names(tree))
        for name, node in _defined(tree):
            # one that only calls itself is used by nobody
            calls = Counter(_names(node))[name] if isinstance(node, Definition) else 0
            if own[name] <= calls and (module, name) not in taken:
                found.append(f"{module}.{name}")
        found += (f"{module}.{name}" for name in _methods(tree) if name not in anywhere)
    return [one.removeprefix("sysbox.") for one in found if "__" not in one]


def test_everything_is_used() -> None:
    found = [one for one in unused() if not any(fnmatch.fnmatch(one, each) for each in BY_NAME)]
    assert not found, "remove it, or say in BY_NAME who uses it"


def test_the_table_names_what_there_is() -> None:
    for each in BY_NAME:
        assert fnmatch.filter(unused(), each), each
