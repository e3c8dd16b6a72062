"""Files of at most 400 lines, functions of at most 40; the named recipe may be longer."""

from __future__ import annotations

import ast

import pytest
import source

FILE_LINES = 400
FUNCTION_LINES = 40
RECIPES = {("sysbox.run.init", "main")}
MODULES = source.modules()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_sizes(module: str) -> None:
    path = MODULES[module]
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= FILE_LINES, f"{path}: {lines} lines; what is the second responsibility?"
    long = []
    for node in ast.walk(source.tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > FUNCTION_LINES and (module, node.name) not in RECIPES:
                long.append(f"{path}:{node.lineno}: {node.name} has {length} lines")
    assert not long, "\n".join(long)
