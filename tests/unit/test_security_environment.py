"""The environment is built from nothing."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError
from sysbox.base.suggest import did_you_mean
from sysbox.security.environment import PATH, build_env


def test_the_least_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    assert build_env((), (), "/root", "box", False) == (
        f"PATH={PATH}",
        "HOSTNAME=box",
        "HOME=/root",
    )


def test_later_wins_and_a_terminal_has_a_type() -> None:
    got = build_env(("PATH=/bin", "A=1", "LANG=C"), ("A=2", "A=3=4", "B="), "", "", True)
    assert got == ("PATH=/bin", "TERM=xterm", "A=3=4", "LANG=C", "B=", "HOME=/")
    assert "TERM=screen" in build_env((), ("TERM=screen",), "/", "", True)
    assert "HOME=/srv" in build_env(("HOME=/srv",), (), "/root", "", False)


@pytest.mark.parametrize("entry", ["", "=x", "NAME", "A=\0", "A\0B=1"])
def test_bad_entries(entry: str) -> None:
    for image, user in (((entry,), ()), ((), (entry,))):
        with pytest.raises(SpecError, match="environment variable"):
            build_env(image, user, "/", "box", False)


def test_suggestions() -> None:
    assert did_you_mean("net.ipv", ("net.ipv4", "kernel.sem")) == "did you mean 'net.ipv4'?"
    assert did_you_mean("zzzz", ("net.ipv4", "kernel.sem")) == ""
    assert did_you_mean("", ("a",)) in ("", "did you mean 'a'?")
