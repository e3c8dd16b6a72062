"""A test that fails is run again: what passes then is called unsteady, what does not fails the run."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNSTEADY = """
def test_{name}(tmp_path_factory):
    mark = __import__("pathlib").Path({mark!r})
    first = not mark.exists()
    mark.touch()
    assert not first, "the first time"
"""
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/test.py, as a module."""
    spec = importlib.util.spec_from_file_location("tools_test", ROOT / "tools" / "test.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: object) -> Run:
    """`run(TEXT...)`: the status and output of tools/test.py, with a lane for each text of a test file."""

    def lanes(*texts: str) -> tuple[int, str]:
        plugins = "-p no:cacheprovider -p no:xdist -p no:hypothesispytest".split()
        pytest_ = (sys.executable, "-m", "pytest", *plugins, "-c", "/dev/null")
        found = {}
        (tmp_path / "conftest.py").write_bytes((ROOT / "tests" / "conftest.py").read_bytes())
        monkeypatch.setattr(tool, "ROOT", tmp_path)
        for number, text in enumerate(texts):
            file = tmp_path / f"test_{number}.py"
            file.write_text(text)
            command = (*pytest_, "--rootdir", str(tmp_path))
            found[f"lane {number}"] = ((*command, file.name), command)
        monkeypatch.setattr(tool, "LANES", found)
        status = tool.main()
        assert isinstance(capfd, pytest.CaptureFixture)
        return status, capfd.readouterr().out

    return lanes


def unsteady(tmp_path: Path, *names: str) -> str:
    return "".join(UNSTEADY.format(name=name, mark=str(tmp_path / name)) for name in names)


def test_what_passes_the_second_time_is_unsteady(run: Run, tmp_path: Path) -> None:
    status, output = run(
        unsteady(tmp_path, "a"), "def test_good(): pass\n", unsteady(tmp_path, "b")
    )
    assert status == 0
    assert output.count("UNSTEADY: test_0.py::test_a") == 2
    assert "  | E       AssertionError: the first time" in output
    assert "  | ============================== 1 passed" in output
    assert output.splitlines()[-2:] == [
        "test: UNSTEADY: test_0.py::test_a",
        "test: UNSTEADY: test_2.py::test_b",
    ]


def test_what_fails_twice_fails(run: Run) -> None:
    status, output = run("def test_bad(): assert not 1\n", "def test_good(): pass\n")
    assert status == 1
    assert "test: test_0.py::test_bad failed twice" in output
    assert "test_1.py" not in output


def test_more_than_three_fail(run: Run, tmp_path: Path) -> None:
    status, output = run(unsteady(tmp_path, "a", "b"), unsteady(tmp_path, "c", "d"))
    assert status == 1
    assert "the lane lane 1 failed: status 1, 2 tests" in output


@pytest.mark.parametrize("text", ["import nothing_of_the_kind\n", "def test_a(:\n", ""])
def test_a_lane_that_did_not_run_fails(run: Run, text: str) -> None:
    assert run(text)[0] == 1


def test_a_lane_that_hangs_says_what_failed_before(
    run: Run, tool: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "DEADLINE", 5.0)
    status, output = run(
        "import time\n\ndef test_bad(): assert not 1\n\ndef test_hangs(): time.sleep(600)\n"
    )
    assert status == 1
    assert "test: not done after 5 s: the lane ends" in output
    assert "failed: test_0.py::test_bad" in output
