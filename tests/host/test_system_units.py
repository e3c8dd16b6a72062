"""`system install-units`: systemd's files of an installation by pip; and who makes units of which files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import eventually, systemctl
from lane import SYSBOX, Sysbox

BASES = [Path("/usr/local/lib"), Path("/etc")]
FILES = [
    "systemd/system-generators/sysbox-generator",
    "systemd/system/sysbox-auto-update.service",
    "systemd/system/sysbox-auto-update.timer",
    "systemd/system/sysbox-boot.service",
    "systemd/system/sysbox-firewall.service",
    "systemd/system/sysbox.slice",
    "tmpfiles.d/sysbox.conf",
]


@pytest.fixture
def installed(sysbox: Sysbox) -> Iterator[list[Path]]:
    """The paths that were written."""
    done = sysbox("system", "install-units", check=True)
    yield [Path(line) for line in done.stdout.splitlines()]
    sysbox("system", "uninstall-units")
    systemctl("daemon-reload")
    systemctl("start", "sysbox-boot.service")  # that of this host


def is_active(unit: str) -> bool:
    return systemctl("is-active", unit, check=False) == "active"


def test_what_is_written_enabled_and_removed(sysbox: Sysbox, installed: list[Path]) -> None:
    (base,) = {one for one in BASES if installed[0].is_relative_to(one)}
    assert installed == [base / one for one in FILES]
    generator = installed[0].read_text()
    assert f'exec "{SYSBOX}" _generate "$@"' in generator
    assert os.access(installed[0], os.X_OK)
    (boot,) = (one for one in installed if one.name == "sysbox-boot.service")
    assert f'ExecStart="{SYSBOX}" _boot\n' in boot.read_text()
    for unit in ("sysbox-boot.service", "sysbox-firewall.service"):
        eventually(lambda unit=unit: is_active(unit), f"{unit} is started")  # type: ignore[misc]
        assert list(Path("/etc/systemd/system").rglob(f"*.wants/{unit}"))
    assert sysbox("system", "install-units", check=True).stdout.splitlines() == list(
        map(str, installed)
    )
    done = sysbox("system", "uninstall-units", check=True)
    assert done.stdout.splitlines() == list(map(str, installed))
    assert not any(one.exists() for one in installed)
    assert not list(Path("/etc/systemd/system").rglob("*.wants/sysbox-*"))
    done = sysbox("system", "uninstall-units")
    assert (done.returncode, "nothing that" in done.stderr) == (1, True)


def test_what_others_have_written_stays(sysbox: Sysbox, installed: list[Path]) -> None:
    unit = installed[1]
    text = unit.read_text()
    unit.write_text(f"{text}# mine\n")
    for verb in ("install-units", "uninstall-units"):
        done = sysbox("system", verb)
        assert (done.returncode != 0, str(unit) in done.stderr) == (True, True)
    assert unit.read_text().endswith("# mine\n")
    unit.write_text(text)
    assert "not there yet" in sysbox("system", "install-units", "--user").stderr


def test_who_makes_units_of_podmans_files(sysbox: Sysbox) -> None:
    """Podman's generator, unless sysbox.conf says otherwise; sysbox's where podman's is masked."""
    directory = Path("/run/containers/systemd")
    declared = directory / "podmans-test.container"
    generator = Path("/run/systemd/system-generators/podman-system-generator")
    unit, theirs = (
        "podmans-test.service",
        "[Unit]\\nDescription=theirs\\n[Service]\\nExecStart=true\\n",
    )
    own = Path("/etc/sysbox/sysbox.conf.d/podmans-test.conf")
    masked = generator.is_symlink()
    directory.mkdir(parents=True, exist_ok=True)
    generator.unlink(missing_ok=True)
    declared.write_text("[Container]\nImage=x\n")
    try:
        generator.write_text(f"#!/bin/sh\nprintf '{theirs}' >$1/{unit}\n")
        generator.chmod(0o755)
        assert (
            f"{generator} makes a unit of it"
            in sysbox("unit", "check", declared, check=True).stderr
        )
        assert f"{generator} makes units of 1 file" in sysbox("doctor").stdout
        systemctl("daemon-reload")
        assert systemctl("show", "-P", "Description", unit) == "theirs"
        own.parent.mkdir(exist_ok=True)
        own.write_text("[Units]\nPodmanFiles=sysbox\n")
        assert "sysbox makes a unit of it" in sysbox("unit", "check", declared, check=True).stderr
        systemctl("daemon-reload")
        assert systemctl("show", "-P", "Description", unit) == declared.name
        assert (
            systemctl("show", "-P", "FragmentPath", unit) == f"/run/systemd/generator.early/{unit}"
        )
        assert f"in place of {generator}, makes units of 1 file" in sysbox("doctor").stdout
        own.write_text("[Units]\nPodmanFiles=x\n")
        systemctl("daemon-reload")
        assert systemctl("show", "-P", "Description", unit) == "theirs"
        own.unlink()
        generator.unlink()
        generator.symlink_to("/dev/null")
        assert sysbox("unit", "check", declared, check=True).stderr == ""
        systemctl("daemon-reload")
        assert systemctl("show", "-P", "UnitFileState", unit) == "generated"
        assert systemctl("show", "-P", "Description", unit) == declared.name
        assert "sysbox-generator makes units of 1 file" in sysbox("doctor").stdout
    finally:
        own.unlink(missing_ok=True)
        declared.unlink()
        directory.rmdir()
        directory.parent.rmdir()
        generator.unlink()
        if masked:
            generator.symlink_to("/dev/null")
        systemctl("daemon-reload")
