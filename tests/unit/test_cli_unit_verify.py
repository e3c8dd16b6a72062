"""What systemd-analyze(1) says of declared units, with the lines of the declarations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sysbox.cli import unit_verify
from sysbox.lifecycle import unit_files


@pytest.fixture(autouse=True)
def _analyze(requires: Any) -> None:
    requires.program("systemd-analyze")


def said(path: Path, text: str) -> list[tuple[str, bool]]:
    path.write_text(text)
    return [
        (one.replace(f"{path}:", ""), fatal)
        for one, fatal in unit_verify.notes(unit_files.made([str(path)]))
    ]


def test_keys_and_values_that_systemd_ignores(tmp_path: Path) -> None:
    drop_in = tmp_path / "web.container.d" / "1.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nRestartSec=soon\n")
    found = said(
        tmp_path / "web.container",
        "[Unit]\nAfterr=x.service\n[Container]\nImage=x\n[Service]\nRestat=always\nMemoryMax=lots\n"
        "ImportCredential=x*\n[Install]\nWantdBy=multi-user.target\n",
    )
    for where, key in (("2", "Afterr"), ("6", "Restat"), ("10", "WantdBy")):
        assert any(one.startswith(f"{where}: ") and key in one for one, _ in found), found
    assert any(one.startswith(f"{drop_in}:2: ") for one, _ in found), found
    assert (len(found), [fatal for _, fatal in found]) == (4, [False] * 4), found
    assert any(one.endswith(": did you mean Restart?") for one, _ in found), found


def test_a_socket_that_systemd_refuses(tmp_path: Path) -> None:
    (tmp_path / "web.socket").write_text("[Socket]\nListenStreem=80\nListenNothing=1\n")
    found = said(tmp_path / "web.container", "[Container]\nImage=x\n")
    assert [fatal for _, fatal in found].count(True) == 1, found
    assert any(
        one.startswith(f"{tmp_path}/web.socket:2: ") and "ListenStreem" in one for one, _ in found
    )


def test_there_is_nothing_to_say_of_good_ones(tmp_path: Path) -> None:
    text = "[Container]\nImage=x\nListenStream=18000\nProxyPort=80\nIdleStop=9\n"
    assert said(tmp_path / "web.container", text) == []
    assert said(tmp_path / "t@.container", "[Container]\nImage=x:%i\n") == []
    assert said(tmp_path / "wrong.container", "[Container]\nImag=x\n") == []
