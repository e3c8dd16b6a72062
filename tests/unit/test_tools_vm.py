"""What `make test-vm` keeps between runs, and what it runs where. The guest itself: tests/vm."""

from __future__ import annotations

import importlib.machinery
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent.parent / "tools" / "vm"))

import bytecode
import cache
import lane
from _pytest.assertion.rewrite import _read_pyc


def cached(parent: Path, made: list[Path], key: str = "1", space: int = 0) -> Path:
    """An entry with one file of five bytes; each time that it is made is in `made`."""

    def make(directory: Path) -> None:
        (directory / "below").mkdir()
        (directory / "below" / "file").write_text("12345", encoding="ascii")
        made.append(directory)

    return cache.cached(parent, "thing", key, space, make)


def test_made_once(tmp_path: Path) -> None:
    made: list[Path] = []
    assert cached(tmp_path, made) == cached(tmp_path, made)
    assert len(made) == 1


def test_a_damaged_entry_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made: list[Path] = []
    file = cached(tmp_path, made) / "below" / "file"
    os.truncate(file, 3)
    cached(tmp_path, made)
    file.unlink()
    cached(tmp_path, made)
    (tmp_path / "thing-1" / cache.SIZES).write_text("{", encoding="ascii")
    cached(tmp_path, made)
    assert len(made) == 4
    assert file.read_text(encoding="ascii") == "12345"
    assert capsys.readouterr().err.count("is damaged: making it again") == 3


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        (directory / "file").write_text("half of it", encoding="ascii")
        raise OSError(28, "No space left on device")

    with pytest.raises(cache.Failed, match=r"thing-1.*No space left"):
        cache.cached(tmp_path, "thing", "1", 0, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["thing.lock"]


def test_what_was_killed_is_no_entry(tmp_path: Path) -> None:
    (tmp_path / "new-thing").mkdir()
    (tmp_path / "new-thing" / "half").touch()
    entry = cached(tmp_path, [])
    assert sorted(path.name for path in entry.iterdir()) == ["below", cache.SIZES]


def test_too_little_space_is_told_beforehand(tmp_path: Path) -> None:
    made: list[Path] = []
    with pytest.raises(cache.Failed, match=r"GiB are free, and 1048576\.0 GiB are needed"):
        cached(tmp_path, made, space=1 << 50)
    assert not made


def test_what_nobody_uses_is_removed(tmp_path: Path) -> None:
    old, used = cached(tmp_path, [], "old"), cached(tmp_path, [], "used")
    for entry in (old, used):
        os.utime(entry, (0, 0))
    cached(tmp_path, [], "used")
    cached(tmp_path, [], "new")
    assert not old.exists()
    assert used.exists()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two entries are kept besides the newest."""
    monkeypatch.setitem(cache.MOST, "thing", 2)


def aged(tmp_path: Path, *hours: float) -> list[Path]:
    """Entries that were used that long ago."""
    made = [cached(tmp_path, [], str(one)) for one in hours]
    for entry, ago in zip(made, hours, strict=True):
        os.utime(entry, (time.time() - ago * 3600,) * 2)
    return made


@pytest.mark.usefixtures("few")
def test_of_large_ones_few_are_kept(tmp_path: Path) -> None:
    entries = aged(tmp_path, 3, 6, 4, 5)
    new = cached(tmp_path, [], "new")
    assert {*tmp_path.glob("thing-*")} == {new, entries[0], entries[2]}


@pytest.mark.usefixtures("few")
def test_what_may_be_in_use_is_kept(tmp_path: Path) -> None:
    """Another checkout's, used an hour ago or named by a process that runs."""
    entries = aged(tmp_path, 0.2, 0.4, 0.6, 0.8, 8, 9)
    waits = [
        sys.executable,
        "-c",
        "input(print(flush=True))",
        f"file={entries[4]}/disk,snapshot=on",
    ]
    with subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()  # execve(2) closes what Popen waits for, and sets the words after it
        cached(tmp_path, [], "new")
        process.kill()
    assert [entry.exists() for entry in entries] == [True] * 5 + [False]
    cached(tmp_path, [], "newer")
    assert not entries[4].exists()


def _slow(parent: Path) -> None:
    def make(directory: Path) -> None:
        time.sleep(0.2)
        (directory / str(os.getpid())).touch()

    cache.cached(parent, "thing", "1", 0, make)


def test_one_process_makes_it(tmp_path: Path) -> None:
    """Those that come meanwhile wait, and take what it has made."""
    makers = [multiprocessing.Process(target=_slow, args=(tmp_path,)) for _ in range(3)]
    for each in makers:
        each.start()
    for each in makers:
        each.join()
        assert each.exitcode == 0
    files = {path.name for path in (tmp_path / "thing-1").iterdir()}
    assert len(files) == 2


ONE = "pytest.param(1, marks=pytest.mark.guest('why'))"
ENFORCING = "pytestmark = pytest.mark.enforcing('why')"
APPARMOR = "pytestmark = pytest.mark.apparmor('why')"
SMP = "pytestmark = pytest.mark.smp('why')"


@pytest.mark.parametrize(
    ("text", "flavour"),
    [
        ("def test_it(): ...", ""),
        ('@pytest.mark.guest("why")\ndef test_it(): ...', "permissive"),
        (f"@pytest.mark.parametrize('x', [{ONE}])\ndef test_it(x): ...", "permissive"),
        ("pytestmark = pytest.mark.guest('why')\ndef test_it(): ...", "permissive"),
        (
            f"EACH = ({ONE}, 2)\n@pytest.mark.parametrize('x', EACH)\ndef test_it(x): ...",
            "permissive",
        ),
        (f"EACH = ({ONE}, 2)\n@pytest.mark.parametrize('x', OTHERS)\ndef test_it(x): ...", ""),
        (f"{ENFORCING}\n@pytest.mark.guest('why')\ndef test_it(): ...", "enforcing"),
        (f"{APPARMOR}\n@pytest.mark.guest('why')\ndef test_it(): ...", "apparmor"),
        (f"{SMP}\n@pytest.mark.guest('why')\ndef test_it(): ...", "smp"),
    ],
)
def test_where_a_file_runs(tmp_path: Path, text: str, flavour: str) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(f"import pytest\n\n{text}\n", encoding="ascii")
    assert lane.flavour(file) == flavour


def test_what_does_not_run_there_does_not_count(tmp_path: Path) -> None:
    text = (
        '@pytest.mark.guest("why")\ndef test_there():\n    a\n    b\n\n'
        "def test_here():\n    a\n\ndef helper():\n    a\n"
    )
    for file, lines in ((tmp_path / "host/test_it.py", 3), (tmp_path / "vm/test_it.py", 5)):
        file.parent.mkdir()
        file.write_text(text, encoding="ascii")
        assert lane.size(file) == lines


def test_each_file_with_the_marker_runs() -> None:
    """Whichever way it has it."""
    running = {file for _, group in lane.jobs(1) for file in group}
    for name in ("host", "attack"):
        for file in (lane.ROOT / "tests" / name).glob("test_*.py"):
            text = file.read_text(encoding="utf-8")
            marked = "mark.guest(" in text or "mark.also_enforcing(" in text
            assert (file in running) == marked


def test_each_file_runs_once() -> None:
    groups = lane.jobs(6)
    files = [file for _, group in groups for file in group]
    permissive = [file for flavour, group in groups if flavour == "permissive" for file in group]
    assert len(permissive) == len(set(permissive))
    assert {file.name for file in files} >= {
        "test_v2_limits.py",
        "test_selinux_smoke.py",
        "test_limits.py",
    }
    assert [flavour for flavour, _ in groups].count("enforcing") == 1


def test_what_has_been_measured_is_there() -> None:
    run = {(flavour, file) for flavour, group in lane.jobs(4) for file in group}
    assert set(lane.seconds()) <= run


def test_groups_are_balanced_and_the_longest_first() -> None:
    groups = [group for flavour, group in lane.jobs(4) if flavour == "permissive"]
    known = lane.seconds()
    seconds = [
        [known.get(("permissive", file)) or lane.size(file) * lane.LINE for file in group]
        for group in groups
    ]
    lengths = [sum(group) for group in seconds]
    assert len(lengths) == 4
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= max(max(group) for group in seconds)


def test_a_job_starts_when_a_guest_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "START", 1.0)
    monkeypatch.setattr(lane, "seconds", lambda: {("smp", Path(one)): float(one) for one in "5432"})
    made = [("smp", [Path(one)]) for one in "5432"]
    assert [lane.end(made, guests) for guests in (1, 2, 3, 4, 5)] == [18, 9, 7, 6, 6]


@pytest.mark.parametrize("guests", [1, 2, 3])
def test_as_many_groups_as_end_soonest(guests: int) -> None:
    """With one guest a second group would only start a second pytest; with more they end about together."""
    made = lane.planned(guests)
    groups = [flavour for flavour, _ in made].count("permissive")
    assert (groups == 1) == (guests == 1)
    assert lane.end(made, guests) < 1.1 * lane.end(made, 1) / guests


def test_bytecode_is_used_in_place_of_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Python, and by pytest, which finds its assertions rewritten."""
    monkeypatch.setattr(bytecode, "CACHE", tmp_path)
    project, names = tmp_path / "project", ("tests/unit/test_tools_vm.py", "tests/counted.py")
    bytecode.bytecode([lane.ROOT / one for one in names], project).rename(project)
    for name in names:
        shutil.copyfile(lane.ROOT / name, project / name)
    (kept,) = project.glob("tests/unit/__pycache__/*")
    code = _read_pyc(project / names[0], kept)
    assert code
    assert code.co_filename == str(project / names[0])
    assert "@pytest_ar" in code.co_names
    # Python compiles nothing, which it does by this function
    monkeypatch.setattr(importlib.machinery.SourceFileLoader, "source_to_code", None)
    loader = importlib.machinery.SourceFileLoader("counted", str(project / names[1]))
    assert loader.get_code("counted").co_filename == str(project / names[1])
