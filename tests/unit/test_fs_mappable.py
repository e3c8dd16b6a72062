"""Whether ids can be mapped: what is noted, and what a bad moment or another file system makes of it."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import in_child, needs_root

from sysbox.base.errors import SysboxError
from sysbox.fs import mappable
from sysbox.linux.namespace import CLONE_NEWNS

Ask = Callable[[], str]


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of what is known; nothing is yet."""
    needs_root()
    directory = tmp_path / "notes"
    monkeypatch.setattr(mappable, "_KEPT", str(directory))
    return directory


def known(notes: Path) -> list[str]:
    return sorted(os.listdir(notes)) if notes.exists() else []


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


def questions(path: Path) -> dict[str, Ask]:
    return {"kernel": mappable.why_not_kernel, "path": lambda: mappable.why_not(str(path))}


def scarce(ask: Ask, descriptors: int) -> str:
    """The answer of a process that may open so many files more; "EMFILE" where it gives none."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = os.dup(0)
    os.close(used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + descriptors, hard))
    try:
        return ask()
    except SysboxError as error:
        return "EMFILE" if os.strerror(errno.EMFILE) in error.message else error.message
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.mark.parametrize("which", ["kernel", "path"])
def test_a_lack_of_descriptors_is_no_answer(which: str, notes: Path, tmp_path: Path) -> None:
    """It was noted as "cannot be mapped", until the next boot."""

    def look() -> tuple[list[str], str]:
        ask = questions(tmp_path)[which]
        answers = []
        while "" not in answers[-1:] and len(answers) < 20:
            answers.append(scarce(ask, len(answers)))
            assert known(notes) == [] or answers[-1] == ""
        return answers, ask()

    answers, truth = in_child(look, CLONE_NEWNS)
    assert "EMFILE" in answers
    assert set(answers) <= {"EMFILE", truth}


@pytest.mark.parametrize("which", ["kernel", "path"])
def test_what_works_is_noted(which: str, notes: Path, tmp_path: Path) -> None:
    """And what does not is tried again."""

    def look() -> tuple[str, list[str], bool]:
        ask = questions(tmp_path)[which]
        first = ask()
        return first, known(notes), ask() == first

    answer, found, again = in_child(look, CLONE_NEWNS)
    assert again
    assert len(found) == (answer == "")


def test_a_reason_that_an_early_version_noted(notes: Path) -> None:
    notes.mkdir(mode=0o700)
    (notes / "kernel").write_text("the attempt to map ids failed")
    answer = in_child(mappable.why_not_kernel)
    assert answer != "the attempt to map ids failed"
    assert (notes / "kernel").read_text() == (
        "" if answer == "" else "the attempt to map ids failed"
    )


def test_another_file_system_with_the_same_number(tmp_path: Path) -> None:
    """The number of a device, and of a file system without one, serves the next."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()

    def look() -> tuple[bool, str, set[str]]:
        # another process of this machine may take the number meanwhile
        for _ in range(50):
            mount("-t", "tmpfs", "none", tmp_path / "one")
            number = os.stat(tmp_path / "one").st_dev
            first = mappable.why_not(str(tmp_path / "one"))
            subprocess.run(["umount", tmp_path / "one"], check=True)
            mount("-t", "ramfs", "none", tmp_path / "other")
            same = os.stat(tmp_path / "other").st_dev == number
            if same:
                break
            subprocess.run(["umount", tmp_path / "other"], check=True)
        return same, first, {mappable.why_not(str(tmp_path / "other")) for _ in "twice"}

    same, first, second = in_child(look, CLONE_NEWNS)
    assert same
    assert second == {f"the kernel cannot map the ids of {tmp_path}/other"}
    assert first in ("", f"the kernel cannot map the ids of {tmp_path}/one")  # Linux 6.3


@pytest.mark.parametrize("way", ["itself", "a link to it"])
def test_what_is_mounted_below_counts(tmp_path: Path, way: str) -> None:
    (tmp_path / "top").mkdir()
    (tmp_path / "link").symlink_to("top")
    path = tmp_path / ("top" if way == "itself" else "link")

    def look() -> tuple[str, str, str]:
        before = mappable.why_not(str(path))
        (tmp_path / "top/be low").mkdir()
        mount("-t", "ramfs", "none", tmp_path / "top/be low")
        return before, mappable.why_not(str(path)), mappable.why_not(str(path), recursive=False)

    before, after, alone = in_child(look, CLONE_NEWNS)
    assert after == f"the kernel cannot map the ids of {path}"
    assert before == alone
    assert before in ("", after)


def test_a_link_that_changes_teaches_nothing_wrong(notes: Path, tmp_path: Path) -> None:
    """What the link led to at first was noted as what could be mapped a moment later."""

    def look() -> bool:
        cannot = tmp_path / "cannot"
        cannot.mkdir()
        mount("-t", "proc", "proc", cannot)
        link, over = tmp_path / "link", threading.Event()
        link.symlink_to("/")

        def change() -> None:
            while not over.is_set():
                for target in (tmp_path, cannot):
                    (tmp_path / "next").symlink_to(target)
                    (tmp_path / "next").rename(link)

        changing = threading.Thread(target=change)
        changing.start()
        try:
            for _ in range(300):
                mappable.why_not(str(link), recursive=False)
        finally:
            over.set()
            changing.join()
        return mappable.why_not(str(cannot), recursive=False) == ""

    assert not in_child(look, CLONE_NEWNS)
