"""Ignore files: Go's filepath.Match, `**`, `!`, and the order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sysbox.build import context, ignore
from sysbox.build.errors import FileError
from sysbox.build.ignore import Seen

BRACKET = "a [ without its ], or with a - or ] in the wrong place"
STARS = "too many ** that are no whole name of a directory"


def excluded(patterns: str, path: str) -> bool:
    return ignore.parse(patterns.encode(), "I").excluded(path)


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["b", "b/a", "aa"]),
        ("/a/", ["a", "a/b"], ["b/a"]),
        ("a/b", ["a/b", "a/b/c"], ["a", "b", "x/a/b"]),
        ("./a/../b", ["b"], ["a"]),
        ("*", ["a", ".a", "a/b"], []),
        ("*.md", ["a.md", ".md", "a.md/b"], ["b/a.md", "amd"]),
        ("*/temp*", ["a/temp", "a/temporary.txt", "a/temp/b"], ["temp", "a/b/temp"]),
        ("*/*/temp*", ["a/b/temp"], ["a/temp"]),
        ("temp?", ["tempa", "tempb/c"], ["temp", "tempaa", "temp/"]),
        ("**/*.go", ["a.go", "b/a.go", "b/c/a.go", "b/a.go/c"], ["a.god"]),
        ("**/a/**/b/**/c", ["a/b/c", "x/a/y/b/z/z/c", "a/a/b/b/c/c"], ["a/c", "b/a/c", "a/bb/c"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab"]),
        ("**", ["a", "a/b"], []),
        ("a**b", ["ab", "ax/b", "axyz/y/b"], ["axb", "a"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a", "a/xb", "b"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "-x"]),
        ("[^a-c]x", ["dx", "^x"], ["ax", "/x"]),
        ("[^a]", ["b"], ["a"]),
        ("[a\\-c]", ["a", "-", "c"], ["b"]),
        ("[\\]]", ["]"], ["\\"]),
        ("a\\*b", ["a*b"], ["axb", "a\\*b"]),
        ("\\#a", ["#a"], ["a"]),
        ("a.b+c(d)|e$", ["a.b+c(d)|e$"], ["axb+c(d)|e$"]),
        ("*a*b*c", ["abc", "xaxbxc", "aabbcc", "abcabc"], ["acb", "ab/c", "abcd"]),
        ("a b", ["a b"], ["a"]),
        ("é*", ["éa"], ["ea"]),
        ("../a", [], ["a", "b/a"]),
    ],
)
def test_one_pattern(pattern: str, inside: list[str], outside: list[str]) -> None:
    found = ignore.parse(pattern.encode(), "I")
    assert [path for path in inside if not found.excluded(path)] == []
    assert [path for path in outside if found.excluded(path)] == []


def test_comments_space_and_empty_lines() -> None:
    text = "# comment\n\n  a  \n ! b \n#c\n\t\n.\n/\n"
    found = ignore.parse(text.encode(), "I")
    assert [found.excluded(path) for path in ("a", "b", "#c", "c")] == [True, False, False, False]
    assert excluded(" #d", "#d")
    assert not ignore.parse(b"# nothing\n", "I")
    assert excluded("\ufeffa\r\nb\r\n", "a")
    assert excluded("\ufeffa\r\nb\r\n", "b")


@pytest.mark.parametrize(
    ("patterns", "path", "wanted"),
    [
        ("*.md\n!README.md", "README.md", False),
        ("*.md\n!README.md", "a.md", True),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
        ("*\n!src", "src/a/b", False),
        ("*\n!src\nsrc/a", "src/a/b", True),
        ("a\n!a/b\n", "a/c", True),
        ("a\n!a/b\n", "a/b/c", False),
        ("a\n!a/b\na", "a/b", True),
        ("!a\n", "a", False),
        ("**/node_modules\n!keep/node_modules", "keep/node_modules/x", False),
    ],
)
def test_the_last_pattern_that_says_something_decides(
    patterns: str, path: str, wanted: bool
) -> None:
    assert excluded(patterns, path) is wanted


def test_a_tree_is_looked_at_from_above() -> None:
    found = ignore.parse(b"a\n!a/b\n", "I")
    above = found.look("a", Seen())
    assert (above.excluded, above.matched) == (True, 1)
    assert found.look("a/c", above) == above
    assert found.look("a/b", above) == Seen(excluded=False, matched=3)


@pytest.mark.parametrize(
    ("patterns", "directory", "wanted"),
    [
        ("a", "a", False),
        ("a\n!b", "a", False),
        ("a\n!a/b", "a", True),
        ("a\n!a/b/c", "a/b", True),
        ("a\n!a/b/c", "a/x", False),
        ("*\n!*/keep", "a", True),
        ("*\n!**/keep", "a/b", True),
        ("*\n!src/**", "doc", False),
        ("*\n!src/**/x", "src/a/b", True),
        ("a", "b", True),
    ],
)
def test_which_directories_need_a_look(patterns: str, directory: str, wanted: bool) -> None:
    found = ignore.parse(patterns.encode(), "I")
    seen, parts = Seen(), directory.split("/")
    for count in range(1, len(parts) + 1):
        seen = found.look("/".join(parts[:count]), seen)
    assert found.may_hold_more(directory, seen) is wanted


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a\n[b\n", f"I:2:1: the pattern '[b' is malformed: {BRACKET}"),
        ("!a[]\n", f"I:1:1: the pattern '!a[]' is malformed: {BRACKET}"),
        ("a\\", "I:1:1: the pattern 'a\\' is malformed: it ends in the middle"),
        ("[a-]", f"I:1:1: the pattern '[a-]' is malformed: {BRACKET}"),
        ("a[/]b", f"I:1:1: the pattern 'a[/]b' is malformed: {BRACKET}"),
        ("a\n!\n", "I:2:1: '!' has no pattern after the !"),
        ("! . ", "I:1:1: '!.' has no pattern after the !"),
        ("a\0", "I:1:2: a NUL byte: this is no text file"),
        ("a**b**c**d", f"I:1:1: the pattern 'a**b**c**d' is malformed: {STARS}"),
        ("a" * 5000, f"I:1:1: the pattern '{'a' * 57}...' is malformed: more than 4096 characters"),
        ("a\n" * 10_001, "I:10001:1: more than 10000 patterns"),
    ],
    ids=[
        "bracket", "empty class", "backslash", "range", "slash", "alone", "root", "nul", "stars", "long",
        "many",
    ],
)  # fmt: skip
def test_wrong_patterns(text: str, what: str) -> None:
    with pytest.raises(FileError) as caught:
        ignore.parse(text.encode(), "I")
    assert caught.value.message == what


def test_patterns_of_copy() -> None:
    found = ignore.exclude(["*.txt", "b/c"], "C", 7)
    assert found.excluded("a.txt")
    assert found.excluded("b/c/d")
    assert not found.excluded("b")
    with pytest.raises(FileError, match=r"^C:7:1: the pattern '\[' is malformed"):
        ignore.exclude(["["], "C", 7)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 200 + "b", "a" * 250),
        ("**/" + "a/**/" * 200 + "b", "/".join("a" * 2000)),
        ("a**a**b", "/".join("a" * 2000)),
        ("?*" * 100 + "b", "a" * 250),
        ("**/*a*a*b", "/".join(["a" * 200] * 20)),
    ],
    ids=["stars", "directories", "odd stars", "question marks", "both"],
)
def test_no_pattern_takes_ages(pattern: str, path: str) -> None:
    """Without atomic groups each of these would take longer than anyone waits: the test would not end."""
    assert not ignore.parse(pattern.encode(), "I").look(path, Seen()).excluded


def test_which_ignore_file_counts(tmp_path: Path) -> None:
    """One beside the Containerfile comes before that of the context, podman's name before docker's."""
    opened = context.Context(os.open(tmp_path, os.O_RDONLY), "the build context", here=True)
    (tmp_path / "dir").mkdir()
    assert context.ignore_file(opened, "dir/C", "") is None
    for name in (
        ".dockerignore",
        ".containerignore",
        "dir/C.dockerignore",
        "dir/C.containerignore",
    ):
        word = name.replace("/", "-")
        (tmp_path / name).write_text(f"{word}\n")
        found = context.ignore_file(opened, "dir/C", "")
        assert found is not None
        assert found.excluded(word)
    opened.close()
