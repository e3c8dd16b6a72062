"""`save` and `load` from the command line: files, pipes, directories, full disks, kill -9, events."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import commands, eventually
from lane import SYSBOX, TIMEOUT, Sysbox

NAME = "save-test"
FORMS = ("docker-archive", "oci-archive", "oci-dir", "docker-dir")


@pytest.fixture
def image(sysbox: Sysbox, archive: Path) -> Iterator[str]:
    """The id of an image of two layers with two names."""
    sysbox("import", "-c", "LABEL save=test", archive, f"{NAME}:base", check=True)
    sysbox(
        "run", "--name", "save-c", "--network", "none", f"{NAME}:base", "touch", "/new", check=True
    )
    made = sysbox("commit", "-c", 'CMD ["ls", "/new"]', "save-c", f"{NAME}:1", check=True).stdout
    sysbox("rm", "save-c", check=True)
    sysbox("tag", f"{NAME}:1", "localhost:5000/save-test:2", check=True)
    yield made.strip()
    sysbox("image", "prune", "-af", "--filter", "label=save=test", check=True)


def names(sysbox: Sysbox) -> list[str]:
    template = "{{.Repository}}:{{.Tag}} {{.ID}}"
    words = ("images", "--no-trunc", "--format", template, "--filter", "label=save=test")
    return sorted(sysbox(*words, check=True).stdout.splitlines())


def forget(sysbox: Sysbox) -> None:
    sysbox("image", "prune", "-af", "--filter", "label=save=test", check=True)
    assert names(sysbox) == []


@pytest.mark.parametrize("form", FORMS)
def test_there_and_back(sysbox: Sysbox, image: str, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    assert sysbox("save", "--format", form, "-o", out, f"{NAME}:1", check=True).stdout == ""
    forget(sysbox)
    done = sysbox("load", "-i", out, check=True)
    if form == "docker-dir":
        assert done.stdout == f"Loaded image ID: {image}\n"
    else:
        assert done.stdout == f"Loaded image: {NAME}:1\n"
    assert sysbox("run", "--rm", "--network", "none", image).stdout == "/new\n"
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_several_through_a_pipe(sysbox: Sysbox, image: str) -> None:
    before = names(sysbox)
    since = time.time()
    words = (SYSBOX, "save", "-q", NAME, "localhost:5000/save-test:2")
    saved = subprocess.run(words, capture_output=True, check=True, timeout=TIMEOUT).stdout
    again = subprocess.run(words, capture_output=True, check=True, timeout=TIMEOUT).stdout
    assert saved == again  # the same byte for byte
    forget(sysbox)
    with subprocess.Popen(
        [SYSBOX, "load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as loading:
        out, _ = loading.communicate(saved, timeout=TIMEOUT)
    assert loading.returncode == 0
    assert sorted(out.decode().splitlines()) == sorted(
        f"Loaded image: {one.partition(' ')[0]}" for one in before
    )
    assert names(sysbox) == before
    text = sysbox(
        "events", "--since", f"{since:.6f}", "--until", "0s", "--format", "json", "--filter",
        "label=save=test", "--filter", "event=save", "--filter", "event=load", check=True,
    ).stdout  # fmt: skip
    found = [json.loads(line) for line in text.splitlines()]
    assert [one["Action"] for one in found] == ["save"] * 4 + ["load"] * 2
    assert {one["Actor"]["ID"] for one in found} == {one.partition(" ")[2] for one in before}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("save", "no-such:1"), "no such image: no-such:1"),
        (("save", "host"), "the machine's own /usr"),
        (("save", "--format", "tar", f"{NAME}:1"), "unknown format"),
        (("save", "--format", "oci-dir", f"{NAME}:1"), "needs a directory"),
        (("save", "-o", "/no/such/file", f"{NAME}:1"), "No such file"),
        (("save", "--format", "oci-dir", "-o", "/etc", f"{NAME}:1"), "is not empty"),
        (("save", "--format", "docker-dir", "-o", "/var/tmp/save-test", NAME), "holds one image"),
        (("load", "-i", "/no/such/file"), "No such file"),
        (("load", "-i", "/etc"), "neither a manifest.json nor an oci-layout"),
        (("load", "-i", "/etc/passwd"), "not a tar archive"),
        (("load",), "truncated"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input(sysbox: Sysbox, image: str, words: tuple[str, ...], text: str) -> None:
    before = names(sysbox)
    done = sysbox(*words, input="")
    assert done.returncode == 1
    assert text in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) <= 2
    assert names(sysbox) == before
    assert not Path("/var/tmp/save-test").exists()


def test_a_terminal(sysbox: Sysbox, image: str) -> None:
    ours, theirs = os.openpty()
    try:
        for words in (("save", f"{NAME}:1"), ("load",)):
            done = subprocess.run(
                [SYSBOX, *words], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, check=False,
                timeout=TIMEOUT, text=True,
            )  # fmt: skip
            assert done.returncode == 1
            assert "is a terminal" in done.stderr
    finally:
        os.close(ours)
        os.close(theirs)


def noisy(sysbox: Sysbox) -> bytes:
    """An archive of an image with 8 MiB that cannot be compressed."""
    noise = os.urandom(8 << 20)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for number in range(4):
            member = tarfile.TarInfo(f"noise{number}")
            member.size = len(noise) // 4
            file.addfile(member, io.BytesIO(noise[: member.size]))
    words = [SYSBOX, "import", "-c", "LABEL save=test", "-", f"{NAME}:noise"]
    subprocess.run(words, input=buffer.getvalue(), check=True, timeout=TIMEOUT, capture_output=True)
    saved = subprocess.run([SYSBOX, "save", f"{NAME}:noise"], capture_output=True, check=True)
    sysbox("rmi", f"{NAME}:noise", check=True)
    return saved.stdout


def test_a_full_disk(sysbox: Sysbox, tmp_path: Path) -> None:
    """One clear line, and the store is as before; while the archive is read, and while it is unpacked."""
    data = noisy(sysbox)
    for size in ("4m", "12m"):
        script = f"""
            mount -t tmpfs -o size={size} none {tmp_path}
            SYSBOX_STATE_DIR={tmp_path}/state {SYSBOX} load
            echo status $?
            find {tmp_path}/state -type f -size +0 | grep -v oci-layout || echo nothing
        """
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script], input=data, capture_output=True, check=True,
            timeout=TIMEOUT,
        )  # fmt: skip
        assert b"No space left on device" in done.stderr
        assert done.stdout == b"status 1\nnothing\n"


def test_a_full_disk_for_the_archive(sysbox: Sysbox, image: str, tmp_path: Path) -> None:
    script = f"""
        mount -t tmpfs -o size=64k none {tmp_path}
        for form in {" ".join(FORMS)}; do
            {SYSBOX} save --format $form -o {tmp_path}/out {NAME}:1; echo $?
        done
        ls -A {tmp_path}
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, check=True, text=True
    )
    assert done.stdout == "1\n" * 4
    assert done.stderr.count("No space left on device") == 4


def test_killed_while_it_loads(sysbox: Sysbox, tmp_path: Path) -> None:
    """At whatever moment: no image, or the whole one; and `gc` leaves nothing else."""
    archive = f"{tmp_path}/noise.tar"
    Path(archive).write_bytes(noisy(sysbox))
    state = tmp_path / "state"
    environment = {**os.environ, "SYSBOX_STATE_DIR": str(state)}

    def run(*words: str | Path) -> str:
        return subprocess.run(
            [SYSBOX, *words],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=TIMEOUT,
        ).stdout

    run("load", "-i", archive)
    run("rmi", f"{NAME}:noise")
    for delay in (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4):
        loading = subprocess.Popen([SYSBOX, "load", "-i", archive], env=environment)
        time.sleep(delay)
        loading.send_signal(signal.SIGKILL)
        loading.wait(TIMEOUT)
        # its workers are killed by its end, and keep gc away until they are dead
        eventually(lambda: not any(archive in one for one in commands()), "its workers are gone")
        run("gc")
        if run("images", "-q"):
            assert run("rmi", f"{NAME}:noise").startswith("Untagged")
        left = [path.name for path in state.rglob("*") if path.is_file() and path.stat().st_size]
        assert set(left) <= {"oci-layout", "index.json", "events.key"}, delay
    run("load", "-i", archive)
    assert run("images", "-q")
