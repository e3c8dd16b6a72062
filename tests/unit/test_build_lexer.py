"""Lines of a Containerfile as statements: Dockerfile reference, "Format", "Parser directives"."""

from __future__ import annotations

import pytest

from sysbox.build import lexer
from sysbox.build.errors import FileError
from sysbox.build.lexer import Lines, Statement
from sysbox.build.model import MAX_FILE, MAX_INSTRUCTIONS


def read(text: str | bytes) -> Lines:
    return lexer.read(text.encode() if isinstance(text, str) else text, "C")


def one(text: str) -> Statement:
    (statement,) = read(text).statements
    return statement


def pairs(text: str) -> list[tuple[str, str]]:
    return [(found.keyword, found.text) for found in read(text).statements]


def error(text: str | bytes) -> str:
    with pytest.raises(FileError) as caught:
        read(text)
    return caught.value.message


def test_comments_and_empty_lines_are_nothing() -> None:
    text = "# a comment\n\n  # another\nFROM a\n\t\nRUN echo '# not one' # nor this\n#\n"
    assert pairs(text) == [("FROM", "a"), ("RUN", "echo '# not one' # nor this")]


def test_a_keyword_in_any_case_and_with_space_before_it() -> None:
    assert pairs("  from a\n\tRun  b  \n") == [("FROM", "a"), ("RUN", "b")]


def test_continued_lines_keep_their_space() -> None:
    """The reference's own example: leading space of a continued line is part of the text."""
    assert one('RUN echo "\\\n     hello\\\n     world"').text == 'echo "     hello     world"'


def test_comments_and_empty_lines_in_a_continued_line_are_left_out() -> None:
    found = read("RUN echo hello \\\n# comment\n   # another \\\n\nworld")
    assert [statement.text for statement in found.statements] == ["echo hello world"]
    assert found.warnings == ("C:4:1: an empty line in an instruction",)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("RUN a \\  \t\nb", ["a b"]),
        ("RUN a \\\r\nb\r\nRUN c\r\n", ["a b", "c"]),
        ("RUN a \\", ["a"]),
        ("RUN a \\\n# end", ["a"]),
        ("RUN a \\\\\nRUN b", ["a \\\\", "b"]),
        ("\\\nRUN a", ["a"]),
        ("RUN a \\\n\\\nb", ["a b"]),
        ("RUN \\\n\\\n", [""]),
    ],
    ids=[
        "space after it", "crlf", "at the end", "then a comment", "two of them", "alone before",
        "alone inside", "nothing else",
    ],
)  # fmt: skip
def test_the_escape_character_at_the_end_of_a_line(text: str, wanted: list[str]) -> None:
    assert [statement.text for statement in read(text).statements] == wanted


def test_the_byte_order_mark_is_no_character() -> None:
    assert one("\ufeffFROM a").keyword == "FROM"


@pytest.mark.parametrize(
    "line",
    [
        "#escape=`",
        "# escape =`",
        "#\tescape= `",
        "# escape = `",
        "#\t  eScApE=`",
        "  # escape=`  \r",
    ],
)
def test_directives_may_have_space(line: str) -> None:
    found = read(f"{line}\nCOPY testfile.txt c:\\\nRUN dir c:\\")
    assert [statement.text for statement in found.statements] == ["testfile.txt c:\\", "dir c:\\"]
    assert {statement.escape for statement in found.statements} == {"`"}


def test_all_directives() -> None:
    found = read(
        "# syntax=docker/dockerfile:1\n# escape=`\n# check=skip=all;error=true\nFROM a `\n b"
    )
    assert found.directives == {
        "syntax": "docker/dockerfile:1",
        "escape": "`",
        "check": "skip=all;error=true",
    }
    assert found.statements[0].text == "a  b"


@pytest.mark.parametrize(
    "before",
    ["# about this file\n", "\n", "# unknown=value\n", "FROM a\n", "# escape=\n"],
    ids=["comment", "empty line", "unknown directive", "instruction", "no value"],
)
def test_what_ends_the_directives(before: str) -> None:
    assert read(f"{before}# escape=`\nRUN a \\\nb").statements[-1].text == "a b"


def test_wrong_directives() -> None:
    assert error("# escape=\\\n# escape=`\n") == "C:2:1: the directive 'escape' stands twice"
    assert error("#escape=x\nFROM a") == "C:1:1: escape='x': must be \\ or `"


def test_places() -> None:
    found = one("\n  RUN one \\\n# comment\n two \\\nthree\n")
    assert (found.line, found.column, found.last_line) == (2, 3, 5)
    assert found.text == "one  two three"
    assert found.place(0) == (2, 7)
    assert found.place(found.text.index("two")) == (4, 2)
    assert found.place(found.text.index("three")) == (5, 1)
    assert found.place(found.text.index("three") + 4) == (5, 5)


def test_arguments_that_begin_on_a_later_line() -> None:
    found = one("RUN \\\n  \\\n  one \\\n two")
    assert found.text == "one  two"
    assert found.place(0) == (3, 3)
    assert found.place(5) == (4, 2)


def test_the_instruction_inside_of_onbuild_has_its_own_place() -> None:
    inner = one("ONBUILD \\\n  RUN a \\\n b").rest(0)
    assert (inner.keyword, inner.text, inner.line, inner.column) == ("RUN", "a  b", 2, 3)
    assert inner.place(0) == (2, 7)
    assert inner.place(3) == (3, 2)


def documents(text: str) -> list[tuple[str, str, bool, bool, int]]:
    return [
        (found.name, found.content, found.expands, found.strips, found.descriptor)
        for found in one(text).heredocs
    ]


@pytest.mark.parametrize(
    ("line", "end", "wanted"),
    [
        ("RUN <<EOF", "EOF", ("EOF", True, False, 0)),
        ("RUN <<-EOF", "EOF", ("EOF", True, True, 0)),
        ("RUN <<-EOF", "\t\tEOF", ("EOF", True, True, 0)),
        ('COPY <<"EOF" /x', "EOF", ("EOF", False, False, 0)),
        ("COPY <<-'EOF' /x", "EOF", ("EOF", False, True, 0)),
        ("COPY <<E\"O\"F /x", "EOF", ("EOF", False, False, 0)),
        ("ADD <<\\EOF /x", "EOF", ("EOF", False, False, 0)),
        ("RUN 3<<EOF cat", "EOF", ("EOF", True, False, 3)),
        ("RUN cat << EOF", "EOF", ("EOF", True, False, 0)),
        ("RUN cat <<$EOF", "$EOF", ("$EOF", True, False, 0)),
        ("RUN cat <<'one two'", "one two", ("one two", False, False, 0)),
        ("run cat \\\n <<EOF", "EOF", ("EOF", True, False, 0)),
        ("ONBUILD RUN <<EOF", "EOF", ("EOF", True, False, 0)),
        ("ONBUILD copy <<EOF /x", "EOF", ("EOF", True, False, 0)),
    ],
)  # fmt: skip
def test_announcements(line: str, end: str, wanted: tuple[str, bool, bool, int]) -> None:
    name, *rest = wanted
    assert documents(f"{line}\n  # kept\n\n\tx \\\n{end}\n") == [
        (name, "  # kept\n\n\tx \\\n", *rest)
    ]


@pytest.mark.parametrize(
    "line",
    [
        "RUN echo $((1<<2))",
        "RUN echo $((1 << 2))",
        "RUN cat <<<EOF",
        "RUN echo '<<EOF'",
        'RUN echo "a <<EOF"',
        "RUN echo it's <<EOF",
        "RUN cat<<EOF",
        'RUN ["cat", "<<EOF"]',
        "ENV A=<<EOF",
        "CMD <<EOF",
        "RUN echo \\<<EOF",
        "RUN <<",
        "RUN echo <<'' x",
    ],
)
def test_what_announces_nothing(line: str) -> None:
    assert pairs(f"{line}\nRUN x") == [
        (line.split(maxsplit=1)[0], line.partition(" ")[2]),
        ("RUN", "x"),
    ]


def test_several_documents_in_one_line() -> None:
    text = "RUN <<FILE1 cat > file1 && <<FILE2 cat > file2\nI am\nfirst\nFILE1\nI am\nsecond\nFILE2\nRUN x"
    first, second = read(text).statements
    assert [(found.name, found.content) for found in first.heredocs] == [
        ("FILE1", "I am\nfirst\n"),
        ("FILE2", "I am\nsecond\n"),
    ]
    assert (first.line, first.last_line) == (1, 7)
    assert second.line == 8


def test_the_end_of_a_document() -> None:
    assert documents("RUN <<EOF\n EOF\nEOF \n\tEOF\nEOF\r\n")[0][1] == " EOF\nEOF \n\tEOF\n"
    what = "C:2:5: a here-document without its end: no line 'EOF'"
    assert error("FROM a\nRUN <<EOF\nx\n EOF\n") == what


@pytest.mark.parametrize("name", ["../etc/passwd", "/x", "..", "."])
def test_the_name_of_a_file(name: str) -> None:
    """COPY makes a file of this name: it must not lead elsewhere."""
    assert error(f"COPY <<{name} /d/\n{name}\n") == f"C:1:6: '{name}' is not the name of a file"
    assert documents(f"RUN <<{name} cat\nx\n{name}\n")[0][:2] == (name, "x\n")


def test_what_is_no_text() -> None:
    assert error(b"FROM a\nRUN \0") == "C:2:5: a NUL byte: this is no text file"
    assert error(b"FROM a\nRUN b\xff") == "C:2:6: the byte 0xff is not UTF-8"
    assert error(b"RUN a \\\nb\xff") == "C:2:2: the byte 0xff is not UTF-8"
    assert error(b"RUN <<E\n\xe9\nE\n") == "C:2:1: the byte 0xe9 is not UTF-8"
    assert pairs(b"# caf\xe9\nFROM a".decode("latin-1")) == [("FROM", "a")]
    assert read(b"# caf\xe9\nFROM a \\\n# \xe9\n").statements[0].text == "a"


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "\\\n\\\n", "\ufeff"])
def test_a_file_without_instructions(text: str) -> None:
    assert error(text) == "C:1:1: no instruction in this file"


def test_too_much() -> None:
    size = MAX_FILE + 1
    assert error(b"#" * size) == f"C:1:1: the file has {size} bytes, more than {MAX_FILE}"
    assert error("RUN x\n" * (MAX_INSTRUCTIONS + 1)) == (
        f"C:{MAX_INSTRUCTIONS + 1}:1: more than {MAX_INSTRUCTIONS} instructions"
    )


def test_a_hundred_thousand_continued_lines() -> None:
    found = one("RUN true \\\n" + "  && true \\\n" * 100_000 + "  && last\n")
    assert found.last_line == 100_002
    assert found.place(found.text.index("last")) == (100_002, 6)
