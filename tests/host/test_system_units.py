"""`system install-units`: systemd's files of an installation by pip; and who makes units of which files.

In the guest: systemd is PID 1 of a machine. What the generator says at boot is in tests/reboot.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import eventually, is_active, systemctl
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
    systemctl("start", "sysbox-boot.service", check=False)  # that of an embedded host


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


@pytest.mark.guest("systemd is PID 1 of a machine, and the generator the only one of sysbox's")
def test_what_the_generator_makes_and_says(
    sysbox: Sysbox, installed: list[Path], podmans: Podmans
) -> None:
    """Of an installation by pip."""
    assert any(one.name == "sysbox-generator" for one in installed)
    own = Path("/etc/sysbox/units")
    texts = {
        own / "generator-good.container": "[Container]\nImage=x\n",
        own / "generator-bad.container": "[Container]\nImag=x\n",
        own
        / "generator-twin.container": "[Container]\nImage=x\n[Install]\nAlias=generator-alias.service\n",
        podmans.directory / "generator-twin.container": "[Container]\nImage=x\n",
    }
    own.mkdir(parents=True, exist_ok=True)
    try:
        for path, text in texts.items():
            path.write_text(text)
        systemctl("daemon-reload")
        assert shown("generator-good") == [
            "generated",
            "/run/systemd/generator/generator-good.service",
        ]
        assert shown("generator-alias")[1].endswith("/generator-twin.service")
        bad = f"{own}/generator-bad.container:2: [Container] has no key Imag: did you mean Image?"
        said = systemctl("start", "generator-bad", check=False) + journal("-u", "generator-bad")
        assert bad in said
        # podman's writes through what it finds at its units' names
        podmans.make("generator-twin.service", "generator-alias.service")
        systemctl("daemon-reload")
        for name in ("good", "twin", "alias"):
            state, file = shown(f"generator-{name}")
            assert (state, file.rpartition("/")[0]) == ("generated", "/run/systemd/generator.early")
        assert (
            "theirs" not in Path("/run/systemd/generator.early/generator-twin.service").read_text()
        )
        both = f"makes generator-twin.service of {podmans.directory}/generator-twin.container, too"
        assert both in sysbox("unit", "check", own / "generator-twin.container", check=True).stderr
    finally:
        for path in texts:
            path.unlink(missing_ok=True)
        systemctl("reset-failed", "generator-bad", check=False)


def shown(name: str) -> list[str]:
    """What systemd says of the file of a unit: its state, its path."""
    return [
        systemctl("show", "-P", one, f"{name}.service") for one in ("UnitFileState", "FragmentPath")
    ]


def journal(*words: str) -> str:
    subprocess.run(["journalctl", "--sync"], check=True)
    command = ["journalctl", "-o", "cat", "--no-pager", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Podmans:
    """A stand-in for podman's generator, which is no part of the distribution's podman, and its directory."""

    directory = Path("/run/containers/systemd")
    generator = Path("/run/systemd/system-generators/podman-system-generator")

    def make(self, *units: str) -> None:
        """Have it make these."""
        text = "[Unit]\\nDescription=theirs\\n[Service]\\nExecStart=true\\n"
        lines = [f"printf '{text}' >$1/{unit}" for unit in units]
        self.generator.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        self.generator.chmod(0o755)


@pytest.fixture
def podmans() -> Iterator[Podmans]:
    """An embedded host masks podman's generator."""
    one = Podmans()
    masked = one.generator.is_symlink()
    one.generator.unlink(missing_ok=True)
    one.generator.parent.mkdir(parents=True, exist_ok=True)
    one.directory.mkdir(parents=True, exist_ok=True)
    yield one
    one.directory.rmdir()
    one.directory.parent.rmdir()
    one.generator.unlink(missing_ok=True)
    if masked:
        one.generator.symlink_to("/dev/null")
    systemctl("daemon-reload")


def test_who_makes_units_of_podmans_files(sysbox: Sysbox, podmans: Podmans) -> None:
    """Podman's generator, unless sysbox.conf says otherwise; sysbox's where podman's is masked."""
    declared, generator = podmans.directory / "podmans-test.container", podmans.generator
    unit = "podmans-test.service"
    own = Path("/etc/sysbox/sysbox.conf.d/podmans-test.conf")
    declared.write_text("[Container]\nImage=x\n")
    try:
        podmans.make(unit)
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
        assert shown("podmans-test")[1] == f"/run/systemd/generator.early/{unit}"
        assert f"in place of {generator}, makes units of 1 file" in sysbox("doctor").stdout
        own.write_text("[Units]\nPodmanFiles=x\n")
        systemctl("daemon-reload")
        assert systemctl("show", "-P", "Description", unit) == "theirs"
        own.unlink()
        generator.unlink()
        generator.symlink_to("/dev/null")
        assert sysbox("unit", "check", declared, check=True).stderr == ""
        systemctl("daemon-reload")
        assert shown("podmans-test")[0] == "generated"
        assert systemctl("show", "-P", "Description", unit) == declared.name
        assert "sysbox-generator makes units of 1 file" in sysbox("doctor").stdout
    finally:
        own.unlink(missing_ok=True)
        declared.unlink()
