"""Bytecode of the tests for the guest, where to compile them takes longer than to run many of them.

pytest rewrites the assertions of some files before it compiles them, and keeps the result under a name
with its version: a guest with another pytest, or with another Python, does not look at it.
"""

from __future__ import annotations

import ast
import marshal
import struct
import sys
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path, PurePath
from types import CodeType

from cache import CACHE, GIB, ROOT, cached, digest

CHECKED = 3  # flags of PEP 552: for a source with this digest, which is looked at


def bytecode(sources: list[Path], project: PurePath) -> Path:
    """A directory with the bytecode of Python files of the checkout, to be copied over `project`.

    `project` is the checkout's copy in the guest. Raises Failed.
    """
    import pytest

    key = digest([*sources, Path(__file__).resolve()], f"{sys.version} {pytest.__version__}")

    def make(directory: Path) -> None:
        for path in sources:
            file = path.relative_to(ROOT)
            place = directory / file.parent / "__pycache__"
            place.mkdir(parents=True, exist_ok=True)
            data = path.read_bytes()
            name, code = _compiled(data, project / file)
            head = MAGIC_NUMBER + struct.pack("<I", CHECKED) + source_hash(data)
            (place / name).write_bytes(head + marshal.dumps(code))

    return cached(CACHE, "bytecode", key, GIB // 32, make)


def _compiled(source: bytes, path: PurePath) -> tuple[str, CodeType]:
    """The name of the file that keeps the code, and the code; `path` is that of the source in the guest."""
    from _pytest.assertion import rewrite

    tree = ast.parse(source, str(path))
    tail = f".{sys.implementation.cache_tag}.pyc"
    if path.stem == "conftest" or path.stem.startswith("test_"):
        rewrite.rewrite_asserts(tree, source, str(path))
        tail = rewrite.PYC_TAIL
    return path.stem + tail, compile(tree, str(path), "exec", dont_inherit=True)
