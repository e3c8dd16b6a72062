"""docs/security.md: each attack says what holds it, and names a test that exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import source

TESTS = source.ROOT / "tests"
DOCUMENT = source.ROOT / "docs" / "security.md"
HEADER = ["attack", "docker", "podman", "sysbox", "held by", "test"]
NETS = {
    "namespace", "capability", "seccomp", "mount", "cgroup", "packet filter", "label", "Landlock",
    "owner", "sysbox",
}  # fmt: skip
# a file of tests with a test in it, perhaps, or a directory
NAMED = re.compile(r"`([\w/]+(?:\.py)?)(?:::(\w+))?`")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows() -> Iterator[list[str]]:
    """The cells of each row of the tables, without the headers."""
    lines = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    for line in lines:
        if cells(line) != HEADER and not set(line) <= set("|- "):
            yield cells(line)


ROWS = list(rows())


def file_of(name: str) -> Path:
    """The file, or the directory, that a row means: in the attack lane if nothing else is said."""
    places = (TESTS / "attack" / name, TESTS / name, source.ROOT / name)
    return next((place for place in places if place.exists()), Path())


def test_there_are_attacks() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert len(ROWS) > 80
    assert text.count("| " + " | ".join(HEADER) + " |") == 4


def test_each_attack_says_what_holds_it() -> None:
    for row in ROWS:
        assert len(row) == len(HEADER), f"{len(row)} cells: {row}"
        assert all(row), f"an empty cell: {row}"
        nets = re.split(", | and ", row[4])
        assert set(nets) <= NETS, f"{row[0]}: no net is called {set(nets) - NETS}"
        assert len(nets) == len(set(nets)), f"{row[0]}: {row[4]}"


def test_the_test_of_each_is_there() -> None:
    for row in ROWS:
        named = NAMED.findall(row[-1])
        assert named or row[-1] == "the same", f"no test: {row}"
        for file, function in named:
            path = file_of(file)
            assert path.name, f"{row[0]}: there is no {file}"
            assert not function or f"def {function}(" in path.read_text(encoding="utf-8"), (
                f"{row[0]}: no {function} in {file}"
            )


def test_each_file_of_attacks_is_in_the_tables() -> None:
    named = {file_of(file) for row in ROWS for file, _ in NAMED.findall(row[-1])}
    missing = {path.name for path in (TESTS / "attack").glob("test_*.py")} - {
        one.name for one in named
    }
    assert not missing, f"docs/security.md says nothing of {missing}"
