"""What was resolved when a container was made is kept: no image is asked again, whatever became of it."""

from __future__ import annotations

import json
from pathlib import Path

from containers import Container, Containers
from lane import Sysbox

from sysbox.base.paths import CONTAINERS, IMAGES


def strip(container: Container) -> None:
    """Make its record one of a version that kept nothing of this."""
    file = Path(CONTAINERS) / container.id / "record.json"
    data = json.loads(file.read_text())
    assert data.pop("resolved")["layers"]
    file.write_text(json.dumps(data))


def look(container: Container) -> list[object]:
    config = container.inspect("Config")
    return [container.inspect("Path"), config, container.inspect("GraphDriver.Data.LowerDir")]


def test_a_container_goes_on_without_its_image(
    containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    one = containers("--stop-signal", "SIGKILL", "-e", "A=1", "-w", "/tmp")
    before = look(one)
    index = Path(IMAGES) / "index.json"
    aside = index.with_suffix(".aside")
    index.rename(aside)
    try:
        assert one.exec("sh", "-c", "echo $A $PWD") == "1 /tmp"
        one.sh("echo new >/etc/new")
        assert "A /etc/new" in one("diff")
        sysbox("cp", f"{one.id}:/etc/new", str(tmp_path / "new"), check=True)
        assert (tmp_path / "new").read_text() == "new\n"
        assert look(one) == before
        one("stop")
        sysbox("cp", f"{one.id}:/etc/new", str(tmp_path / "again"), check=True)
        one("start")
        assert one.exec("cat", "/etc/new") == "new"
        one("logs")
    finally:
        aside.rename(index)


def test_an_older_record_asks_its_image(containers: Containers) -> None:
    one = containers("-e", "A=1", "-w", "/tmp")
    before = look(one)
    strip(one)
    assert one.exec("sh", "-c", "echo $A $PWD") == "1 /tmp"
    assert look(one) == before
    one("restart", "-t", "0")
    assert one.exec("pwd") == "/tmp"
    one("stop", "-t", "0")
