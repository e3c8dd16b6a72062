"""The linter, the formatter and the type checker have nothing to say."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import source

CHECKS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
}


# Directory of tests -> the paths of their imports: mypy takes the first module of a name.
PATHS = {
    "host": ["tests/host", "bench", "tests"],
    "attack": ["tests/host", "tests"],
    "reboot": ["tests/reboot", "tools/vm", "tests"],
    "unit": ["tools/vm", "tests/unit", "tests"],
    "plans": ["tests/plans", "tests"],
    "fuzz": ["tests/fuzz", "tests"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_tool_is_content(name: str) -> None:
    check(name, CHECKS[name])


@pytest.mark.parametrize("directory", PATHS)
def test_names_in_tests(directory: str) -> None:
    """The host lane would notice an old name too, a quarter of an hour later."""
    files = sorted((source.ROOT / "tests" / directory).glob("test_*.py"))
    command = ["mypy", "--config-file", "tests/lint/names.ini", *map(str, files)]
    check("mypy", command, MYPYPATH=":".join(PATHS[directory]))


def check(name: str, words: list[str], **environment: str) -> None:
    """Run a tool; the test fails with what it says."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=source.ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named" in done.stderr and not os.environ.get("CI"):
        pytest.skip(f"{name}: not installed (in CI this is a failure)")
    assert done.returncode == 0, done.stdout + done.stderr
