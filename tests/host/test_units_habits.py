"""Declared containers under an administrator's habits: revert, templates, other names, units of packages."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Container, eventually, systemctl
from lane import Sysbox

NAME = "habits"
UNITS = Path("/etc/systemd/system")


class Declared:
    """Declarations in a directory, and the units that were installed of them."""

    def __init__(self, sysbox: Sysbox, directory: Path, image: str) -> None:
        self.sysbox = sysbox
        self._directory = directory
        self._image = image

    def file(self, container: str = "", rest: str = "", name: str = NAME) -> Path:
        path = self._directory / f"{name}.container"
        path.write_text(
            f"[Container]\nImage={self._image}\nExec=sleep 1000\nRunInit=yes\n{container}\n{rest}\n"
        )
        return path

    def start(self, container: str = "", rest: str = "") -> Container:
        self.sysbox("unit", "install", self.file(container, rest), check=True)
        systemctl("start", NAME)
        found = self.sysbox("inspect", "-f", "{{.ID}}", f"systemd-{NAME}", check=True)
        return Container(self.sysbox, found.stdout.strip())

    def remove(self) -> None:
        listed = self.sysbox("unit", "list", "--format", "{{.Unit}}", check=True).stdout
        for unit in listed.splitlines():
            self.sysbox("unit", "uninstall", "--force", unit, check=True)


@pytest.fixture
def declared(sysbox: Sysbox, tmp_path: Path, image: str) -> Iterator[Declared]:
    one = Declared(sysbox, tmp_path, image)
    yield one
    one.remove()


def test_revert_takes_back_what_was_set_and_later_changes_act(declared: Declared) -> None:
    service = f"{NAME}.service"
    one = declared.start(
        "PidsLimit=90", "[Service]\nIPAddressDeny=10.0.0.0/8\nIPAddressDeny=11.0.0.0/8"
    )

    def denied() -> set[str]:
        return set(systemctl("show", "-P", "IPAddressDeny", one.scope).split())

    for tasks in ("40", "50"):
        change = (f"TasksMax={tasks}", "IPAddressDeny=12.0.0.0/8")
        systemctl("set-property", "--runtime", service, *change)
        eventually(lambda tasks=tasks: one.limit("pids", "pids.max") == tasks, f"{tasks} tasks")
        assert denied() == {"10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"}
        systemctl("revert", service)
        eventually(lambda: one.limit("pids", "pids.max") == "90", "what the declaration asks for")
        assert denied() == {"10.0.0.0/8", "11.0.0.0/8"}
        # the directory is there again before the next change
        eventually(Path(f"/run/systemd/system.control/{service}.d").is_dir, "it is watched again")


def test_a_drop_in_may_be_a_link(declared: Declared, tmp_path: Path) -> None:
    directory = UNITS / f"{NAME}.service.d"
    directory.mkdir()
    try:
        (tmp_path / "limits").write_text("[Service]\nTasksMax=37\n")
        (directory / "1.conf").symlink_to(tmp_path / "limits")
        (directory / "2.conf").symlink_to("/dev/null")
        assert declared.start().limit("pids", "pids.max") == "37"
        declared.remove()
    finally:
        shutil.rmtree(directory)


def test_isolating_a_target_that_wants_it_leaves_it_alone(declared: Declared) -> None:
    """`systemctl isolate` stops what the target does not want, as the unit between scope and service."""
    one = declared.start()
    target = UNITS / f"{NAME}.target"
    # what else runs here is wanted as well
    rest = [
        unit
        for unit in systemctl("list-units", "--plain", "--no-legend", "--state=active").split()
        if unit.endswith((".service", ".socket", ".timer", ".path", ".target", ".mount"))
        and not unit.startswith(("sysbox-stop-", "systemd-tmpfiles"))
    ]
    target.write_text(f"[Unit]\nAllowIsolate=yes\nWants={' '.join(rest)}\n")
    try:
        systemctl("daemon-reload")
        pid = one.pid
        systemctl("isolate", target.name)
        assert (systemctl("is-active", NAME).strip(), one.pid) == ("active", pid)
    finally:
        systemctl("stop", target.name)
        target.unlink()
        systemctl("daemon-reload")


def test_who_looks_for_a_stopped_one_is_told_its_service(
    declared: Declared, sysbox: Sysbox
) -> None:
    declared.start()
    sysbox("stop", f"systemd-{NAME}", check=True)
    for verb in ("start", "restart"):
        done = sysbox(verb, f"systemd-{NAME}")
        assert done.returncode == 1
        assert f"it is declared: `systemctl start {NAME}.service` makes it" in done.stderr


def test_a_default_comes_back(declared: Declared) -> None:
    one = declared.start()
    before = one.limit("pids", "pids.max")
    systemctl("set-property", "--runtime", f"{NAME}.service", "TasksMax=40")
    eventually(lambda: one.limit("pids", "pids.max") == "40", "the service's limit")
    systemctl("revert", f"{NAME}.service")
    eventually(lambda: one.limit("pids", "pids.max") == before, "DefaultTasksMax=, not infinity")


def test_uninstall_stops_instances_and_removes_every_link(
    declared: Declared, sysbox: Sysbox
) -> None:
    install = (
        "[Install]\nWantedBy=multi-user.target\nDefaultInstance=one\nAlias=other-habits@.service"
    )
    file = declared.file(rest=install, name=f"{NAME}@")
    sysbox("unit", "install", file, check=True)
    systemctl("enable", "--now", f"{NAME}@a.service")
    systemctl("start", f"{NAME}@b.service")
    assert len(sysbox("ps", "-q").stdout.split()) == 2
    sysbox("unit", "uninstall", f"{NAME}@", check=True)
    assert not sysbox("ps", "-aq").stdout
    left = [path for path in UNITS.rglob("*") if NAME in path.name]
    assert not left


def test_a_unit_of_a_package_is_not_replaced(declared: Declared, sysbox: Sysbox) -> None:
    file = declared.file(name="dbus")
    done = sysbox("unit", "install", file)
    assert done.returncode == 1
    assert "dbus.service would take the place of /" in done.stderr
    assert not (UNITS / "dbus.service").exists()
    file.write_text(file.read_text().replace("[Container]\n", "[Container]\nServiceName=habits\n"))
    assert sysbox("unit", "install", file, check=True).stdout == "habits.service\n"


def test_the_name_is_that_of_the_file(declared: Declared, sysbox: Sysbox) -> None:
    declared.start()
    done = sysbox("rename", f"systemd-{NAME}", "another")
    assert done.returncode == 1
    assert f"is declared by {NAME}.service" in done.stderr


def test_a_stop_may_take_as_long_as_the_file_says(declared: Declared, sysbox: Sysbox) -> None:
    for container, rest, patience in (
        ("StopTimeout=1000", "", "17min 10s"),
        ("StopTimeout=-1", "", "infinity"),
        ("StopTimeout=1000", "[Service]\nTimeoutStopSec=7", "7s"),
    ):
        sysbox("unit", "install", declared.file(container, rest), check=True)
        assert systemctl("show", "-P", "TimeoutStopUSec", NAME) == patience


def test_hostile_files_neither_stop_nor_delay_the_generator(image: str) -> None:
    """A fifo, links to / and to itself, a path with a newline, an empty word."""
    directory = Path("/run/sysbox/units")
    directory.mkdir()
    try:
        good = f"[Container]\nImage={image}\n[Install]\nWantedBy=multi-user.target\n"
        (directory / f"{NAME}.container").write_text(good)
        subprocess.run(["mkfifo", directory / f"{NAME}-fifo.container"], check=True)
        (directory / "root").symlink_to("/")
        (directory / f"{NAME}-self.container").symlink_to(f"{NAME}-self.container")
        (directory / "a\nb").mkdir()
        (directory / "a\nb" / f"{NAME}-line.container").write_text(good)
        empty = good.replace("multi-user.target", '""')
        (directory / f"{NAME}-empty.container").write_text(empty)
        systemctl("daemon-reload")
        made = {path.name for path in Path("/run/systemd/generator").glob(f"{NAME}*")}
        assert made == {f"{NAME}{end}.service" for end in ("", "-fifo", "-self", "-line", "-empty")}
        wanted = Path("/run/systemd/generator/multi-user.target.wants")
        assert (wanted / f"{NAME}.service").is_symlink()
    finally:
        subprocess.run(["rm", "-rf", directory], check=True)
        systemctl("daemon-reload")


def test_check_without_files_reads_all_declarations(
    declared: Declared, sysbox: Sysbox, tmp_path: Path, image: str
) -> None:
    """Those of the system, and those of ordinary users, of which no unit is made yet."""
    ours, users = Path("/run/sysbox/units"), Path("/etc/containers/systemd/users")
    home = tmp_path / "containers/systemd"
    text = f"[Container]\nImage={image}\n"
    files = {
        ours / f"{NAME}.container": (text, f"{NAME}.service"),
        users / f"{NAME}-all.container": (f"{text}Volume={NAME}.volume:/v\n", f"{NAME}-all.service"),
        users / f"{NAME}.volume": ("[Volume]\n", f"{NAME}-volume.service"),
        users / "group" / f"{NAME}-group.container": (text, f"{NAME}-group.service"),
        users / "1000" / f"{NAME}-one.container": (f"{text}Volume={NAME}.volume:/v\n", f"{NAME}-one.service"),
        home / f"{NAME}-home.container": (text, f"{NAME}-home.service"),
    }  # fmt: skip
    own = {"XDG_CONFIG_HOME": str(tmp_path)}
    try:
        for path, (content, _) in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        done = sysbox("unit", "check", env=own, check=True)
        found = {line for line in done.stdout.splitlines() if NAME in line}
        assert found == {f"{path}: {unit}" for path, (_, unit) in files.items()}
        later = "of ordinary users, whose containers sysbox does not start yet"
        assert done.stderr.count(later) == len(files) - 1
        one = users / "1000" / f"{NAME}-one.container"
        done = sysbox("unit", "check", one, env=own, check=True)
        assert (done.stdout, done.stderr) == (
            f"{one}: {NAME}-one.service\n",
            f"sysbox: {one}: {later}\n",
        )
        systemctl("daemon-reload")
        made = {path.name for path in Path("/run/systemd/generator").glob(f"{NAME}*")}
        assert made == {f"{NAME}.service"}, "of the system's files alone"
        one.write_text("[Container]\nImage=x\nVolume=none.volume:/v\nImagee=x\n")
        done = sysbox("unit", "check", env=own)
        assert done.returncode == 1
        assert f"{one}:3:8: Volume=: there is no none.volume" in done.stderr
        assert f"{one}:4:1: [Container] has no key Imagee" in done.stderr
    finally:
        subprocess.run(["rm", "-rf", ours, users], check=True)
        systemctl("daemon-reload")


def test_a_declaration_that_has_changed_since_it_was_installed(
    declared: Declared, sysbox: Sysbox
) -> None:
    """`daemon-reload`, which is enough for a generated unit, is not."""

    def listed() -> str:
        return sysbox("unit", "list", "--format", "{{.Declaration}}", check=True).stdout.strip()

    file = declared.file()
    sysbox("unit", "install", file, check=True)
    assert listed() == "same"
    assert sysbox("unit", "check", file, check=True).stderr == ""
    declared.file("PidsLimit=70")
    assert listed() == "changed"
    said = f"{NAME}.service was installed of it as it was: install it again"
    assert said in sysbox("unit", "check", file, check=True).stderr
    file.write_text("[Container]\nImag=x\n")
    assert listed() == "wrong"
    file.unlink()
    assert listed() == "gone"


def test_install_of_a_directory_and_over_another_file(
    declared: Declared, sysbox: Sysbox, tmp_path: Path
) -> None:
    file = declared.file()
    other = tmp_path / "other" / file.name
    other.parent.mkdir()
    other.write_text(file.read_text())
    for _ in range(2):  # again: nothing has changed
        assert sysbox("unit", "install", tmp_path, check=True).stdout == f"{NAME}.service\n"
    done = sysbox("unit", "install", other)
    assert (done.returncode, f"{NAME}.service was made of {file}" in done.stderr) == (1, True)
    systemctl("start", NAME)
    file.unlink()
    other.write_text(other.read_text().replace("sleep 1000", "sleep 999"))
    done = sysbox("unit", "install", other, check=True)
    assert f"{NAME}.service runs as it was: `systemctl restart {NAME}.service`" in done.stderr
    assert str(other) in sysbox("unit", "list", check=True).stdout
    drop_in = UNITS / f"{NAME}.service.d" / "override.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nTasksMax=40\n[Container]\nImage=x\n")
    done = sysbox("unit", "check", other, check=True)
    assert f"{drop_in}:4: systemd ignores [Container]" in done.stderr
    systemctl("revert", NAME)
    # as `unit install` takes it
    sysbox("unit", "uninstall", other.name, check=True)
    assert not (UNITS / f"{NAME}.service").exists()


def test_a_cycle_is_said_once(sysbox: Sysbox, tmp_path: Path, image: str) -> None:
    for one in range(12):
        text = f"[Unit]\nAfter=u{(one + 1) % 12}.container\n[Container]\nImage={image}\n"
        (tmp_path / f"u{one}.container").write_text(text)
    done = sysbox("unit", "check", tmp_path)
    assert (done.returncode, done.stderr.count("each waits for the next one")) == (1, 1)
    assert ", and 2 more, " in done.stderr
