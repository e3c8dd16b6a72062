"""`make install` puts things where shells, man(1) and systemd look; `make uninstall` takes them away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def install_system(verb: str, prefix: Path, links: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "tools/install-system.sh", verb],
        env=os.environ | {"PREFIX": str(prefix), "LINKS": str(links)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An environment with sysbox in it, as pip leaves one: that of the tests, by links."""
    made = tmp_path / "opt"
    made.mkdir()
    for name in ("bin", "man"):
        (made / name).symlink_to(Path(sys.prefix) / name)
    return made


def files_below(directory: Path) -> set[str]:
    return {str(one.relative_to(directory)) for one in directory.rglob("*") if not one.is_dir()}


def test_what_is_made_is_taken_away_again(prefix: Path, tmp_path: Path) -> None:
    links = tmp_path / "local"
    older = links / "share/man/man1/sysbox-older.1"
    older.parent.mkdir(parents=True)
    older.symlink_to(prefix / "man/man1/sysbox-older.1")
    (prefix / "installed").write_text(f"{older}\n")
    foreign = links / "bin/foreign"
    foreign.parent.mkdir()
    foreign.touch()

    done = install_system("links", prefix, links)
    assert done.returncode == 0, done.stderr
    command = links / "bin/sysbox"
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("sysbox version ")
    made = files_below(links)
    assert {
        "share/man/man1/sysbox.1",
        "share/man/man1/sysbox-run.1",
        "share/man/man5/sysbox-container.5",
        "share/man/man5/sysbox.conf.5",
        "share/zsh/site-functions/_sysbox",
        "share/fish/vendor_completions.d/sysbox.fish",
        "lib/systemd/system/sysbox.slice",
        "lib/tmpfiles.d/sysbox.conf",
    } <= made
    assert "share/man/man1/sysbox-older.1" not in made
    script = links / "share/bash-completion/completions/sysbox"
    assert "complete" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)
    unit = (links / "lib/systemd/system/sysbox-boot.service").read_text()
    assert f"ExecStart={command} _boot\n" in unit
    assert f"ExecStop={command} _halt\n" in unit
    unit = (links / "lib/systemd/system/sysbox-firewall.service").read_text()
    assert unit.count(f"={command} network reload\n") == 2

    assert install_system("links", prefix, links).returncode == 0
    assert files_below(links) == made
    done = install_system("uninstall", prefix, links)
    assert done.returncode == 0, done.stderr
    assert files_below(links) == {"bin/foreign"}
    assert not prefix.exists()
    assert (Path(sys.prefix) / "bin/sysbox").exists()


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_a_directory_of_others_is_left_alone(tmp_path: Path, verb: str) -> None:
    prefix = tmp_path / "opt"
    prefix.mkdir()
    (prefix / "letter").write_text("mine")
    done = install_system(verb, prefix, tmp_path / "local")
    assert done.returncode == 1
    assert str(prefix) in done.stderr
    assert files_below(tmp_path) == {"opt/letter"}


def test_where_must_be_absolute(tmp_path: Path) -> None:
    done = install_system("install", Path("opt"), tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "install: PREFIX and LINKS must be absolute paths\n",
    )
    assert not (ROOT / "opt").exists()
