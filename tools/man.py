#!/usr/bin/env python3
"""The man pages: one for each verb, one for each kind of declared unit, sysbox(1) and sysbox.conf(5).

Name, usage and options come from the option table, the keys of sysbox.conf and of declared units from the
tables of keys, the rest from docs/man/PAGE.md (for sysbox-build(5), sysbox-build.5.md).

tools/man.py --list             the names of the files that are made
tools/man.py DIRECTORY          make them there
tools/man.py --tree DIRECTORY   make them in man1/ and man5/ below it

It understands this Markdown: `## SECTION`, paragraphs, `* ` lists, definitions (`: ` begins the second line),
fenced code, `code` and *emphasis*. Version and date are those of CHANGELOG.md, so that the same source makes
the same pages.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "docs" / "man"

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from sysbox.cli.table.options import Option, Verb  # noqa: E402 (the path comes first)
from sysbox.cli.table.verbs import GROUPS, VERBS, options_of  # noqa: E402
from sysbox.conf.table import BY_SECTION, Key  # noqa: E402
from sysbox.units.quadlet import keyhelp  # noqa: E402
from sysbox.units.quadlet import keys as unit_keys  # noqa: E402

# after this section come those made from the tables, and then the others in the order of the source
FIRST = "DESCRIPTION"
CONFIGURATION = "sysbox.conf"
_TYPED = {"…": "...", "–": "-", "“": '"', "”": '"', "→": "->", "×": "x"}
_INLINE = re.compile(r"`([^`]+)`|\*([^*\s][^*]*)\*|\b([a-z][\w.-]*)(\([1-8]\))")


def verbs() -> list[Verb]:
    """Every verb once, by its first name, in the table's order."""
    return list({verb.name: verb for verb in VERBS.values()}.values())


def page_name(verb: Verb) -> str:
    """`sysbox-volume-ls`."""
    return "sysbox-" + verb.name.replace(" ", "-")


def pages() -> dict[str, str]:
    """File name -> roff, of every page."""
    made = {f"{page_name(verb)}.1": verb_page(verb) for verb in verbs()}
    units = {f"{unit_page_name(section)}.5": unit_page(section) for section in unit_keys.SECTIONS}
    return {"sysbox.1": overview(), **made, f"{CONFIGURATION}.5": configuration(), **units}


def release() -> tuple[str, str]:
    """Version and date of the newest entry of the changelog: `## 0.1.0 (2026-12-01)`."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(r"^## (\S+) \(([^)]+)\)$", text, re.MULTILINE)
    if found is None:
        raise SystemExit("CHANGELOG.md: no `## VERSION (DATE)`")
    return found[1], found[2]


def verb_page(verb: Verb) -> str:
    """The page of one verb."""
    sections = read_sections(page_name(verb))
    usage = [f"\\fBsysbox {code(verb.name)}\\fR", *synopsis(verb)]
    name = f"{code(page_name(verb))} \\- {text(verb.summary)}"
    made = [heading(page_name(verb)), ".SH NAME", name, ".SH SYNOPSIS", *usage]
    also = spellings(verb)
    if also:
        made += [".PP", "Also: " + ", ".join(f"\\fBsysbox {code(one)}\\fR" for one in also) + "."]
    made += [".SH DESCRIPTION", *blocks(sections.pop(FIRST))]
    options = options_of(verb)
    if options:
        made += [".SH OPTIONS", *(line for one in options for line in option(one))]
    see = sections.pop("SEE ALSO", "")
    made += rest(sections)
    return finish([*made, ".SH SEE ALSO", *blocks(", ".join(filter(None, ["sysbox(1)", see])))])


def overview() -> str:
    """sysbox(1)."""
    sections = read_sections("sysbox")
    made = [heading("sysbox"), ".SH NAME", "sysbox \\- " + text(sections.pop("NAME"))]
    made += [
        ".SH SYNOPSIS",
        "\\fBsysbox\\fR [\\fB\\-\\-debug\\fR] \\fIVERB\\fR [\\fIARGUMENT\\fR...]",
    ]
    made += [".SH DESCRIPTION", *blocks(sections.pop(FIRST)), ".SH VERBS"]
    for verb in verbs():
        made += [".TP", f"\\fB{code(page_name(verb))}\\fR(1)", text(verb.summary)]
    groups = ", ".join(f"*{group}*" for group in GROUPS if " " not in group)
    made += [".PP", inline(f"The verbs of a group ({groups}) are two words: `sysbox volume ls`.")]
    return finish(made + rest(sections))


def configuration() -> str:
    """sysbox.conf(5)."""
    sections = read_sections(CONFIGURATION)
    made = [heading(CONFIGURATION, 5), ".SH NAME"]
    made += [f"{CONFIGURATION} \\- {text(sections.pop('NAME'))}", ".SH SYNOPSIS"]
    for line in sections.pop("SYNOPSIS").splitlines():
        made += [inline(line), ".br"]
    made += [".SH DESCRIPTION", *blocks(sections.pop(FIRST))]
    for section, keys in BY_SECTION.items():
        made.append(f".SH [{section.upper()}] SECTION OPTIONS")
        made += [line for one in keys.values() for line in key_entry(one)]
    return finish(made + rest(sections))


def key_entry(one: Key) -> list[str]:
    """One key of sysbox.conf."""
    return [
        ".TP",
        f"\\fB{code(one.name)}=\\fR",
        inline(f"{one.help} The default is {one.default}."),
    ]


# how the assignments of a key are read, in words
_KINDS = {
    unit_keys.ONE: "",
    unit_keys.ALL: "May be given more than once.",
    unit_keys.WORDS: "Words, quoted as in systemd.syntax(7); may be given more than once.",
    unit_keys.PAIRS: "NAME=VALUE words; may be given more than once.",
    unit_keys.BOOL: "A boolean.",
    unit_keys.ON: "A boolean.",
}


def unit_page_name(section: str) -> str:
    """`sysbox-container`."""
    return f"sysbox-{section.lower()}"


def unit_page(section: str) -> str:
    """The page of the files that have a section [SECTION]."""
    name = unit_page_name(section)
    sections = read_sections(f"{name}.5")
    made = [heading(name, 5), ".SH NAME", f"{code(name)} \\- {text(sections.pop('NAME'))}"]
    made += [".SH SYNOPSIS", f"\\fINAME\\fR.{code(section.lower())}"]
    made += [
        ".SH DESCRIPTION",
        *blocks(sections.pop(FIRST)),
        f".SH [{section.upper()}] SECTION OPTIONS",
    ]
    for one in sorted(unit_keys.SECTIONS[section], key=lambda key: key.name.lower()):
        made += [".TP", f"\\fB{code(one.name)}=\\fR", inline(unit_key(section, one))]
    return finish(made + rest(sections))


def unit_key(section: str, one: unit_keys.Key) -> str:
    """What a key means: the help of its flag, or its own."""
    verb = VERBS[keyhelp.VERB[section]]
    if one.refused or one.ignored:
        what = "Refused" if one.refused else "Without effect"
        return f"{what}: {one.refused or one.ignored}."
    if one.flag:
        flag = next(found for found in options_of(verb) if one.flag in found.names + found.hidden)
        words = f"As `{one.flag}` of {page_name(verb)}(1). {flag.help.rstrip('.')}."
    else:
        words = keyhelp.HELP[section][one.name].replace("{verb}", f"sysbox {verb.name}")
    return f"{words} {_KINDS[one.kind]}".rstrip()


def heading(name: str, section: int = 1) -> str:
    version, date = release()
    head = f'.TH "{code(name.upper())}" {section} "{code(date)}" "sysbox {version}" "sysbox"'
    return f"{head}\n.nh\n.ad l"  # no hyphenation: a flag broken in two cannot be pasted


def finish(lines: list[str]) -> str:
    made = "\n".join(lines) + "\n"
    strange = sorted({one for one in made if ord(one) > 126})
    if strange:
        raise SystemExit(f"{lines[0]}: only ASCII, not {strange}")
    return made


def read_sections(name: str) -> dict[str, str]:
    """Title -> Markdown, of one source."""
    path = SOURCES / f"{name}.md"
    parts = re.split(r"^## (.+)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = dict(zip(parts[1::2], (part.strip("\n") for part in parts[2::2]), strict=True))
    if parts[0].strip() or FIRST not in found:
        raise SystemExit(f"{path}: begins with `## {FIRST}`")
    return found


def rest(sections: dict[str, str]) -> list[str]:
    return [line for title, body in sections.items() for line in (f".SH {title}", *blocks(body))]


def synopsis(verb: Verb) -> list[str]:
    """Options and arguments of the usage line, one per line, arguments in italics."""
    shown = ["[\\fIOPTION\\fR...]"] if options_of(verb) else []
    return shown + [re.sub(r"[A-Z_]+", r"\\fI\g<0>\\fR", word) for word in verb.args.split()]


def spellings(verb: Verb) -> list[str]:
    """The other names of a verb."""
    return [name for name, one in VERBS.items() if one is verb and name != verb.name]


def option(one: Option) -> list[str]:
    """One flag, its values and its help."""
    names = ", ".join(f"\\fB{code(name)}\\fR" for name in one.names)
    metavar = f" \\fI{code(one.metavar)}\\fR" if one.metavar else ""
    if one.bare:
        metavar = f"[=\\fI{code(one.metavar)}\\fR]"
    again = " May be given more than once." if one.repeat else ""
    return [".TP", names + metavar, f"{inline(one.help.rstrip('.'))}.{again}"]


def blocks(body: str) -> list[str]:
    """The roff of some Markdown without headings."""
    made: list[str] = []
    fenced = False
    for part in re.split(r"^(```)$\n?", body, flags=re.MULTILINE):
        if part == "```":
            made += [".EE", ".RE"] if fenced else [".PP", ".RS 4", ".EX"]
            fenced = not fenced
        elif fenced:
            made += [guard(code(line)) for line in part.rstrip("\n").split("\n")]
        else:
            for paragraph in filter(None, re.split(r"\n\s*\n", part.strip("\n"))):
                made += prose(paragraph)
    return made


def prose(paragraph: str) -> list[str]:
    """A paragraph, a list, or definitions."""
    if paragraph.startswith("* "):
        items = re.split(r"\n\* ", paragraph.removeprefix("* "))
        return [line for one in items for line in (".IP \\(bu 2", inline(" ".join(one.split())))]
    if "\n: " not in paragraph:
        return [".PP", inline(" ".join(paragraph.split()))]
    made: list[str] = []
    for term, meaning in re.findall(
        r"^(\S.*)\n: ((?:.+\n?(?!\S.*\n: ))+)", paragraph, re.MULTILINE
    ):
        made += [".TP", inline(term), inline(" ".join(meaning.split()))]
    return made


def inline(words: str) -> str:
    """Text with `code`, *emphasis* and references to pages."""
    made, at = "", 0
    for found in _INLINE.finditer(words):
        made += text(words[at : found.start()])
        literal, emphasis, page, section = found.groups()
        if literal:
            made += f"\\fB{code(literal)}\\fR"
        elif emphasis:
            made += f"\\fI{text(emphasis)}\\fR"
        else:
            made += f"\\fB{code(page)}\\fR{section}"
        at = found.end()
    return guard(made + text(words[at:]))


def text(words: str) -> str:
    """Running text, with the characters escaped that have a meaning for roff."""
    return re.sub(r"(?<![\w])-(?=\w)", r"\\-", code(words, hyphen="-"))


def code(words: str, hyphen: str = "\\-") -> str:
    """Literal text, whose hyphens and quotes can be pasted into a shell."""
    for shape, typed in _TYPED.items():
        words = words.replace(shape, typed)
    words = words.replace("\\", "\\e").replace("-", hyphen)
    for character, glyph in {"'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}.items():
        words = words.replace(character, glyph)
    return words


def guard(line: str) -> str:
    """A line of text as it is: roff would take one that begins with a dot for a request."""
    return "\\&" + line if line.startswith((".", "'")) else line


def main(words: list[str]) -> int:
    if words == ["--list"]:
        names = ["sysbox.1", *(f"{page_name(verb)}.1" for verb in verbs()), f"{CONFIGURATION}.5"]
        names += [f"{unit_page_name(section)}.5" for section in unit_keys.SECTIONS]
        print("\n".join(names))
        return 0
    tree = words[:1] == ["--tree"]
    words = words[tree:]
    if len(words) != 1 or words[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    for name, roff in pages().items():
        directory = Path(words[0], f"man{name[-1]}" if tree else "")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(roff, encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
