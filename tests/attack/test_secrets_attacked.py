"""Secrets against a hostile image, a hostile neighbour and a hostile local user."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import lane
import pytest
from containers import Containers, systemctl
from lane import SYSBOX, Sysbox, run_sysbox
from ways import MODES

from sysbox.base import paths
from sysbox.container import secrets

NAME = "hostile-secrets:test"
VALUE = "tell-no-one-47c1e0"
Import = Callable[..., str]


@pytest.fixture(autouse=True)
def secret(no_leaks: None, sysbox: Sysbox) -> Iterator[str]:
    sysbox("secret", "create", "one", "-", input=VALUE, check=True)
    yield "one"
    sysbox("secret", "rm", "-i", "one", check=True)


@pytest.fixture
def image_with(sysbox: Sysbox) -> Iterator[Import]:
    """`image_with(path=(TYPE, TEXT), ...)`: the small image with further entries."""

    def make(*entries: tuple[str, bytes, str], change: str = "CMD true") -> str:
        buffer = io.BytesIO(lane.rootfs(Path("/bin/busybox")))
        with tarfile.open(fileobj=buffer, mode="a") as archive:
            for name, kind, text in entries:
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname, entry.mode = kind, text, 0o777
                archive.addfile(entry)
        words = [SYSBOX, "import", "--change", change, "-", NAME]
        subprocess.run(words, input=buffer.getvalue(), check=True, capture_output=True)
        return NAME

    yield make
    run_sysbox("rmi", "-f", NAME)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return run_sysbox("run", "--rm", "--network", "none", *words)


@pytest.mark.parametrize(
    ("userns", "entries", "reason"),
    [
        ("auto", [("run/secrets", tarfile.SYMTYPE, "/etc")], "not an ordinary directory"),
        ("host", [("run/secrets", tarfile.SYMTYPE, "/etc")], "not an ordinary directory"),
        ("auto", [("run/secrets", tarfile.SYMTYPE, "/proc/self")], "it leads to /proc"),
        ("host", [("run", tarfile.SYMTYPE, "/dev/shm/../../sys")], "it leads to /sys"),
        ("auto", [("run/secrets", tarfile.REGTYPE, "")], "Not a directory"),
        ("auto", [("run/secrets", tarfile.SYMTYPE, "secrets")], "mount target /run/secrets"),
    ],
    ids=["to-etc", "to-etc-userns-host", "to-proc", "run-to-sys", "file", "loop"],
)
def test_a_place_that_the_image_has_taken(
    image_with: Import, userns: str, entries: list[tuple[str, bytes, str]], reason: str
) -> None:
    done = run("--userns", userns, "--secret", "one", image_with(*entries), "true")
    assert done.returncode == 125
    assert reason in done.stderr
    assert VALUE not in done.stdout + done.stderr
    assert run_sysbox("ps", "-aq", check=True).stdout == ""


@pytest.mark.parametrize("userns", MODES.values(), ids=MODES.keys())
def test_links_lead_nowhere_but_into_the_container(
    image_with: Import, userns: tuple[str, ...], tmp_path: Path
) -> None:
    """A target of the user's own choice follows the image's links, inside the image's root."""
    decoy = tmp_path / "key"
    decoy.write_text("of the host")
    up = "../" * 20
    image = image_with(("etc/key", tarfile.SYMTYPE, f"{up}{decoy}"))
    done = run(*userns, "--secret", "one,target=/etc/key", image, "cat", "/etc/key")
    assert (done.returncode, done.stdout) == (0, VALUE)
    assert decoy.read_text() == "of the host"
    for target in ("/proc/sys/kernel/core_pattern", "/dev/null", "/sys/kernel/mm"):
        image = image_with(("etc/key", tarfile.SYMTYPE, target))
        done = run(*userns, "--secret", "one,target=/etc/key", image, "true")
        assert done.returncode == 125
        assert "mount target /etc/key: it leads to" in done.stderr


@pytest.mark.parametrize("volume", ["/run/secrets/one", "/run"])
def test_a_volume_of_the_image_gets_no_value(
    image_with: Import, containers: Containers, sysbox: Sysbox, volume: str
) -> None:
    image = image_with(change=f'VOLUME ["{volume}"]')
    made = containers("--secret", "one", image=image)
    assert made.exec("cat", "/run/secrets/one") == VALUE
    found = subprocess.run(
        ["grep", "-rlsF", VALUE, paths.STATE, paths.RUN],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""
    made("rm", "-f", "-v")


@pytest.mark.parametrize("userns", MODES.values(), ids=MODES.keys())
def test_a_neighbour_sees_nothing(containers: Containers, userns: tuple[str, ...]) -> None:
    """Not through a volume that both have at /run, and not with every capability over its own mounts."""
    shared = ("-v", "test-shared-run:/run")
    owner = containers(*userns, *shared, "--secret", "one")
    other = containers(*userns, *shared, "--cap-add", "SYS_ADMIN", "--cap-add", "SYS_PTRACE")
    try:
        assert owner.sh("cat /run/secrets/one") == VALUE
        assert other.sh("ls -A /run/secrets; grep -c secrets /proc/self/mountinfo || true") == "0"
        found = other.sh("cat /proc/*/root/run/secrets/one /proc/*/environ 2>/dev/null || true")
        assert VALUE not in found
    finally:
        containers.remove()
        run_sysbox("volume", "rm", "test-shared-run", check=True)


def test_root_inside_cannot_write(containers: Containers) -> None:
    made = containers("--secret", "one,mode=600", "--secret", "one,target=/etc/key")
    for words in (
        "echo x >/run/secrets/one", "echo x >/etc/key", "touch /run/secrets/new", "rm /run/secrets/one",
        "chmod 777 /run/secrets/one", "chown 1000 /etc/key", "mount -o remount,rw /run/secrets",
        "umount /run/secrets",
    ):  # fmt: skip
        assert made.exec("sh", "-c", f"{words} 2>/dev/null || echo refused") == "refused", words
    assert made.sh("cat /run/secrets/one /etc/key") == VALUE * 2
    # another user of the container, whose file it is not
    assert made.exec(
        "sh", "-c", "cat /run/secrets/one 2>/dev/null || echo refused", flags=("-u", "1000")
    ) == ("refused")


def as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_local_user_sees_nothing(containers: Containers) -> None:
    made = containers("--secret", "one", "--secret", "one,type=env,target=TOKEN")
    for path in (
        paths.SECRETS,
        secrets.path_of("one"),
        made.inspect("GraphDriver.Data.UpperDir"),
        f"/proc/{made.pid}/root/run/secrets/one",
        f"/proc/{made.pid}/environ",
        f"/proc/{made.pid}/map_files",
    ):
        done = as_nobody("cat", path)
        assert done.returncode, path
        assert "Permission denied" in done.stderr, done.stderr
    for words in (("secret", "ls"), ("secret", "inspect", "one"), ("inspect", made.id)):
        assert VALUE not in as_nobody(str(SYSBOX), *words).stdout
    shown = as_nobody("ps", "-Awweo", "args").stdout
    shown += as_nobody("systemctl", "show", f"sysbox-{made.id}.service", made.scope).stdout
    shown += systemctl("show", f"sysbox-{made.id}.service", "-p", "Environment,ExecStart")
    assert VALUE not in shown


def test_a_file_planted_by_another_name_is_not_read(sysbox: Sysbox, image: str) -> None:
    """Whatever is put into the directory, such as by a restored backup, nothing else is read for it."""
    path = Path(secrets.path_of("planted"))
    path.symlink_to("/etc/shadow")
    try:
        refused = sysbox("run", "--rm", "--secret", "planted", image, "true")
        assert refused.returncode == 125
        assert "root:" not in refused.stderr
        assert "secret planted is damaged" in refused.stderr
        path.unlink()
        os.mkfifo(path)
        refused = sysbox("secret", "inspect", "planted")
        assert refused.returncode == 1
    finally:
        path.unlink()


@pytest.mark.parametrize("userns", MODES.values(), ids=MODES.keys())
def test_credentials_are_for_the_containers_user(
    image_with: Import, containers: Containers, userns: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "value"
    file.write_text(VALUE)
    flag = ("--credential", f"app:{file}")
    for link, reason in (
        ("/etc", "not an ordinary directory"),
        ("/proc/self", "it leads to /proc"),
    ):
        image = image_with(("run/host/credentials", tarfile.SYMTYPE, link))
        done = run(*userns, *flag, image, "true")
        assert done.returncode == 125
        assert reason in done.stderr
    made = containers(*userns, *flag, "--user", "1000")
    other = containers(*userns, "--pid", f"container:{made.id}", "--user", "3000")
    assert made.sh("cat $CREDENTIALS_DIRECTORY/app") == VALUE
    refused = "cat /run/host/credentials/app /proc/1/root/run/host/credentials/app 2>&1 || true"
    for one, flags in ((made, ("-u", "3000")), (other, ())):
        shown = one.exec("sh", "-c", refused, flags=flags)
        assert VALUE not in shown
    for path in (f"/proc/{made.pid}/root/run/host/credentials/app", str(made.inspect("Id"))):
        assert VALUE not in as_nobody("cat", path).stdout
