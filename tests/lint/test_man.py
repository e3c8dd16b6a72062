"""The man pages: one for each verb, which says nothing that roff does not understand."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import source

from sysbox.cli.table.verbs import VERBS, options_of
from sysbox.conf.table import BY_SECTION
from sysbox.units.quadlet import keyhelp
from sysbox.units.quadlet.keys import SECTIONS

SOURCES = source.ROOT / "docs" / "man"
VERB_NAMES = sorted({verb.name for verb in VERBS.values()})


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """tools/man.py."""
    spec = importlib.util.spec_from_file_location("man", source.ROOT / "tools" / "man.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(generator: ModuleType) -> dict[str, str]:
    """File name -> roff."""
    made: dict[str, str] = generator.pages()
    return made


def test_each_verb_has_a_source_and_each_source_a_verb() -> None:
    wanted = {"sysbox", "sysbox.conf", *("sysbox-" + name.replace(" ", "-") for name in VERB_NAMES)}
    wanted |= {f"sysbox-{section.lower()}.5" for section in SECTIONS}
    assert {path.stem for path in SOURCES.iterdir()} == wanted


@pytest.mark.parametrize("name", VERB_NAMES)
def test_each_page_has_every_option_and_none_that_is_hidden(
    name: str, pages: dict[str, str]
) -> None:
    page = pages[f"sysbox-{name.replace(' ', '-')}.1"].replace("\\-", "-")
    chapter = page.partition(".SH OPTIONS\n")[2].partition(".SH ")[0]
    entries = {line for line in chapter.splitlines() if line.startswith("\\fB-")}
    terms = {term.split("\\fR")[0] for line in entries for term in line.split("\\fB")[1:]}
    assert terms == {flag for option in options_of(VERBS[name]) for flag in option.names}
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "SEE ALSO"):
        assert f".SH {section}\n" in page


def test_the_pages_are_of_this_version(pages: dict[str, str]) -> None:
    project = tomllib.loads((source.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    version = project["project"]["version"]
    assert all(f'"sysbox {version}"' in page.splitlines()[0] for page in pages.values())


def test_what_pages_refer_to_is_there(generator: ModuleType, pages: dict[str, str]) -> None:
    named = {
        f"{found[3]}.{found[4][1]}"
        for path in SOURCES.iterdir()
        for found in generator._INLINE.finditer(path.read_text(encoding="utf-8"))
        if found[3] and found[3].startswith("sysbox")
    }
    assert named <= set(pages)


def test_the_page_of_the_configuration_has_every_key(pages: dict[str, str]) -> None:
    page = pages["sysbox.conf.5"]
    assert '.TH "SYSBOX.CONF" 5 ' in page
    for section, keys in BY_SECTION.items():
        chapter = page.partition(f".SH [{section.upper()}] SECTION OPTIONS\n")[2].partition(".SH ")[
            0
        ]
        assert [line[3:-4] for line in chapter.splitlines() if line.endswith("=\\fR")] == list(keys)
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "SEE ALSO"):
        assert f".SH {section}\n" in page


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_of_a_kind_of_unit_has_every_key(section: str, pages: dict[str, str]) -> None:
    page = pages[f"sysbox-{section.lower()}.5"]
    chapter = page.partition(f".SH [{section.upper()}] SECTION OPTIONS\n")[2].partition(".SH ")[0]
    names = [line[3:-4] for line in chapter.splitlines() if line.endswith("=\\fR")]
    known = [one.name for one in SECTIONS[section]]
    assert names == sorted(known, key=str.lower)
    # a key is explained by its flag, by what is said of it in the table, or by a text of its own
    own = {one.name for one in SECTIONS[section] if not (one.flag or one.refused or one.ignored)}
    assert own == set(keyhelp.HELP[section]) & set(known) == set(keyhelp.HELP[section])
    for title in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "SEE ALSO"):
        assert f".SH {title}\n" in page


def test_groff_has_nothing_to_warn_of(pages: dict[str, str], requires: Any, tmp_path: Path) -> None:
    groff = requires.program("groff")
    for name, page in pages.items():
        (tmp_path / name).write_text(page, encoding="ascii")
    for device in ("utf8", "ascii"):
        done = subprocess.run(
            [groff, "-ww", "-z", "-man", f"-T{device}", *sorted(pages)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_the_same_source_makes_the_same_pages(pages: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-I", source.ROOT / "tools" / "man.py", tmp_path]
    subprocess.run(command, check=True)
    assert {path.name: path.read_text(encoding="ascii") for path in tmp_path.iterdir()} == pages
