"""The table of limits, what is made from it, and what must agree with it."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
import source

from sysbox.cli.table.verbs import VERBS, options_of
from sysbox.spec import Limits
from sysbox.units.limits.allowlist import KEYS
from sysbox.units.limits.table import TABLE

DOCUMENT = source.ROOT / "docs" / "resources.md"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """tools/resources.py."""
    spec = importlib.util.spec_from_file_location("tool", source.ROOT / "tools" / "resources.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_document_has_the_table(generator: ModuleType) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == generator.with_table(text), "run `make docs`"


def test_the_document_names_each_property_that_may_be_set() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    chapter = text[text.index("## `--property") :].replace("/", " ").split()
    assert set(KEYS) <= set(chapter)


def test_every_limit_is_in_the_table_once() -> None:
    assert sorted(one.field for one in TABLE) == sorted(Limits._fields)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("verb", "all_of_them"), [("run", True), ("create", True), ("update", False)]
)
def test_every_limit_has_its_flag(verb: str, all_of_them: bool) -> None:
    options = options_of(VERBS[verb])
    names = {name for option in options for name in (*option.names, *option.hidden)}
    wanted = [one.flag for one in TABLE if one.live or all_of_them]
    assert [flag for flag in wanted if flag not in names] == []
