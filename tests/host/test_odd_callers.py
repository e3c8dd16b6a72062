"""Callers and images that are out of the ordinary: what a command inherits, and settings without measure."""

from __future__ import annotations

import gzip
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from containers import Containers, eventually
from lane import SYSBOX, TIMEOUT, Sysbox, rootfs


def deaf(*words: str) -> subprocess.CompletedProcess[str]:
    """A command whose caller ignores SIGCHLD, as some supervisors do."""
    return subprocess.run(
        [SYSBOX, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    )


def test_sigchld_is_ignored(containers: Containers, image: str, tmp_path: Path) -> None:
    done = deaf("run", "--rm", image, "sh", "-c", "echo out; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "")
    box = containers(command=("sh", "-c", "echo said; sleep 1000"))
    done = deaf("exec", box.id, "sh", "-c", "exit 4")
    assert (done.returncode, done.stderr) == (4, "")
    done = deaf("logs", box.id)
    assert (done.returncode, done.stderr) == (0, "")
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(gzip.compress(rootfs(Path("/bin/busybox")))[:-8])
    done = deaf("import", str(cut), "cut:test")
    assert done.returncode != 0, "an archive that is cut was taken"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mask", [0, 0o077])
def test_the_umask_of_a_caller_stays_outside(containers: Containers, image: str, mask: int) -> None:
    script = ("sh", "-c", "umask; echo >/tmp/made; stat -c %a /tmp/made")
    box = containers()
    for words in (("run", "--rm", image), ("exec", box.id)):
        done = subprocess.run(
            [SYSBOX, *words, *script], umask=mask,
            capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        assert (done.stdout, done.stderr) == ("0022\n644\n", "")


def test_further_groups_are_those_of_every_process(containers: Containers) -> None:
    box = containers(
        "--group-add", "1234", "--group-add", "5", command=("sh", "-c", "id -G; sleep 1000")
    )
    assert {"1234", "5"} <= set(box.exec("id", "-G").split())
    eventually(lambda: {"1234", "5"} <= set(box("logs").split()), "it has said so")


def test_few_files_may_be_open(image: str) -> None:
    """It is refused before anything is made, and not in the middle of a start."""
    done = subprocess.run(
        [SYSBOX, "run", "--rm", image, "true"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (6, 4096)),
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert "ulimit -n" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_caller_leaves_many_files_open(
    containers: Containers, image: str, tmp_path: Path
) -> None:
    """The numbers of new ones are above 1024, which select(2) refuses; here it waits for journald."""
    shown = subprocess.run(
        ["systemctl", "show", "-P", "MainPID", "systemd-journald"], capture_output=True, check=True
    )
    journald = int(shown.stdout)
    leaving = (
        "import os, sys; [os.set_inheritable(os.dup(2), True) for _ in range(1100)];"
        " os.execv(sys.argv[1], sys.argv[1:])"
    )
    script = "until [ -e /go/on ]; do sleep 0.1; done; seq 100000"
    words = ("run", "--name", "many-files", "--network", "none", "-v", f"{tmp_path}:/go:ro", image)
    with subprocess.Popen(
        [sys.executable, "-c", leaving, SYSBOX, *words, "sh", "-c", script],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as command:  # fmt: skip
        containers.known("many-files")
        os.kill(journald, signal.SIGSTOP)
        try:
            (tmp_path / "on").touch()
            time.sleep(1)
        finally:
            os.kill(journald, signal.SIGCONT)
        out, errors = command.communicate(timeout=TIMEOUT)
    assert (command.returncode, errors) == (0, "")
    assert out.splitlines()[-1] == "100000"


def test_a_standard_stream_is_a_directory(image: str) -> None:
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for words, status in (
            (("run", "--rm", image, "true"), 0),
            (("run", "--rm", "-i", image, "cat"), 0),  # an input that cannot be read is at its end
            (("import", "-", "directory:test"), 1),
            (("ps",), 0),
        ):
            done = subprocess.run(
                [SYSBOX, *words], stdin=fd, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )  # fmt: skip
            assert done.returncode == status, (words, done.stderr)
            assert "Fatal" not in done.stderr
            assert len(done.stderr.splitlines()) == (1 if status else 0), done.stderr
        done = subprocess.run(
            [SYSBOX, "ps"], stdout=fd, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT, check=False
        )  # fmt: skip
        assert "Fatal" not in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        os.close(fd)


def test_settings_without_measure(sysbox: Sysbox, image: str, tmp_path: Path) -> None:
    """Nothing is left of a container whose record could not be read again, or that could not start."""
    root = tmp_path / "root.tar"
    with tarfile.open(root, mode="w") as made:
        made.addfile(tarfile.TarInfo("file"))
    sysbox("import", "-c", "USER " + "u" * 70_000, str(root), "user:test", check=True)
    try:
        refused = sysbox("create", "--name", "measure", "user:test", "true")
        assert refused.returncode == 125
        assert "70000 characters" in refused.stderr
        assert len(refused.stderr) < 500
    finally:
        sysbox("rmi", "user:test", check=True)
    command = ["é" * 60_000] * 3
    for flags in (
        ("-p", "1-65535:1-65535", image, "true"),
        ("--label", f"a={command[0]}", "-e", f"a={command[0]}", image, *command),
    ):
        refused = sysbox("create", "--name", "measure", *flags)
        assert (refused.returncode, refused.stdout) == (125, "")
        assert "its record may have" in refused.stderr
        assert len(refused.stderr.splitlines()) == 2
    done = sysbox("create", "--name", "measure", image, "true", check=True)
    sysbox("rm", done.stdout.strip(), check=True)


@pytest.mark.parametrize("flags", [(), ("-d",)])
@pytest.mark.parametrize("umask", [0, 0o077])
def test_the_callers_umask(sysbox: Sysbox, image: str, umask: int, flags: tuple[str, ...]) -> None:
    """077 is root's on a hardened machine: a user of a container reads its files all the same."""
    files = ("/", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname")
    script = f"stat -c %a {' '.join(files)}; find /sys/fs/cgroup -type d ! -perm -5"
    before = os.umask(umask)
    try:
        done = sysbox("run", *flags, "--name", "masked", "-u", "1000", image, "sh", "-c", script)
    finally:
        os.umask(before)
    try:
        assert sysbox("wait", "masked", check=True).stdout.strip() == "0", done.stderr
        text = sysbox("logs", "masked", check=True).stdout if flags else done.stdout
    finally:
        sysbox("rm", "-f", "masked", check=True)
    assert text.split() == ["755", "644", "644", "644"]


def test_from_another_pid_namespace(sysbox: Sysbox, containers: Containers) -> None:
    """Its processes cannot be seen from there: that is not taken for its end."""
    one = containers("--name", "seen")
    pid = one.pid
    for words in (("ps", "-a"), ("inspect", "seen"), ("rm", "seen"), ("gc",), ("stop", "seen")):
        done = subprocess.run(
            ["unshare", "--pid", "--fork", "--mount-proc", SYSBOX, *words],
            capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 1, done.stdout
        assert "another pid namespace" in done.stderr
        assert "Traceback" not in done.stderr
        assert one.pid == pid, words
