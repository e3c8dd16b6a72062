"""The list of mutants is true: each still applies, and the tests that should notice it exist."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tools_mutants", ROOT / "tools" / "mutants.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks there
    spec.loader.exec_module(module)
    return module


tool: Any = _load()
MUTANTS = {mutant.name: mutant for mutant in tool.all_mutants()}
TEXT = """# a comment

name: it is wrong
file: src/x.c
danger: it never ends
tests: tests/unit/test_x.py::test_one
tests: tests/host/test_y.py
 kept
-gone
+come
"""


def test_each_has_a_name_of_its_own() -> None:
    assert len(MUTANTS) == len(tool.all_mutants())


@pytest.mark.parametrize("name", MUTANTS)
def test_it_still_applies_and_its_tests_exist(name: str) -> None:
    mutant = MUTANTS[name]
    changed = mutant.apply((ROOT / mutant.file).read_text(encoding="utf-8"))
    if mutant.file.endswith(".py"):
        ast.parse(changed)
    for test in mutant.tests:
        file, _, function = test.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not function or f"\ndef {function}(" in text, test


@pytest.fixture
def mutant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One of a list of its own, in a checkout of its own."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/x.c").write_text("kept\ngone\n")
    (tmp_path / "list.txt").write_text(TEXT)
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    (found,) = tool.parse(tmp_path / "list.txt")
    return found


def test_a_mutant_is_read(mutant: Any) -> None:
    assert (mutant.name, mutant.what, mutant.file) == ("list/name", "it is wrong", "src/x.c")
    assert mutant.danger == "it never ends"
    assert tool.commands([mutant, mutant]) == [
        (*tool.PYTEST, "tests/unit/test_x.py::test_one"),
        (*tool.HOST, "tests/host/test_y.py"),
    ]
    assert mutant.apply("before\nkept\ngone\nafter\n") == "before\nkept\ncome\nafter\n"


def test_a_mutant_that_is_dangerous_here_runs_in_a_guest_alone(mutant: Any) -> None:
    """And so do tests that only a guest can run; each file in one of its own, as its marker says."""
    dangerous = dataclasses.replace(mutant, guest="it changes labels")
    assert tool.commands([dangerous]) == [
        (*tool.GUEST, "tests/unit/test_x.py::test_one"),
        (*tool.GUEST, "tests/host/test_y.py"),
    ]
    labels = ("tests/vm/test_x.py::test_one", "tests/vm/test_x.py::test_two", "tests/vm/test_y.py")
    assert tool.commands([dataclasses.replace(mutant, tests=labels)]) == [
        (*tool.GUEST, *labels[:2]),
        (*tool.GUEST, labels[2]),
    ]


@pytest.mark.parametrize("text", ["kept\n", "kept\ngone", "xkept\ngone\n", "kept\ngone\n" * 2])
def test_a_mutant_applies_to_whole_lines_that_are_there_once(mutant: Any, text: str) -> None:
    with pytest.raises(LookupError, match=r"list/name: its text is [02] times in src/x.c"):
        mutant.apply(text)


@pytest.mark.parametrize(
    ("line", "instead", "why"),
    [
        ("file: src/x.c\n", "", "file"),
        ("name: it is wrong", "name", "says what is wrong"),
        ("-gone\n+come\n", "", "changes something"),
        ("danger: it", "dangre: it", "not a line of a mutant: dangre"),
        ("danger: it never ends", "equivalent: nobody reads it", "either tests, or"),
        (
            "tests: tests/unit/test_x.py::test_one\ntests: tests/host/test_y.py\n",
            "",
            "either tests, or",
        ),
    ],
)
def test_a_list_that_is_wrong(tmp_path: Path, line: str, instead: str, why: str) -> None:
    assert line in TEXT
    (tmp_path / "list.txt").write_text(TEXT.replace(line, instead))
    with pytest.raises(ValueError, match=f"list.txt: name.*{why}"):
        tool.parse(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("statuses", "word", "text"),
    [
        ([1, 0], "noticed", "tests/unit/test_x.py::test_one"),
        ([0, 1], "noticed", "tests/unit/test_x.py::test_one"),
        ([0, 0], "SURVIVED", "it is wrong"),
        ([0, None], "HUNG", "test_y"),
        ([4], "BROKEN", "status 4\nfailed: "),
    ],
)
def test_what_comes_of_a_mutant(
    mutant: Any, monkeypatch: pytest.MonkeyPatch, statuses: list[int], word: str, text: str
) -> None:
    """The status of the tests decides; a status that is not pytest's for a failed test notices nothing."""
    given: list[tuple[str, str]] = []

    def run(_: object, file: str, changed: str) -> tuple[int, str]:
        given.append((file, changed))
        return statuses.pop(0), "failed: tests/unit/test_x.py::test_one\nthe end"

    monkeypatch.setattr(tool, "run", run)
    found, said = tool.judge(mutant)
    assert (found, text in said, statuses) == (word, True, [])
    assert set(given) == {("src/x.c", "kept\ncome\n")}


def test_a_text_that_is_gone(mutant: Any, tmp_path: Path) -> None:
    (tmp_path / "src/x.c").write_text("kept\n")
    assert tool.judge(mutant) == ("GONE", "list/name: its text is 0 times in src/x.c")
