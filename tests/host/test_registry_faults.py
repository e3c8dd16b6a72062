"""Pull and push while something goes wrong: kill -9, full disks, removal of images at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from lane import SYSBOX, TIMEOUT, Sysbox
from registryserver import OCI_MANIFEST, Certificates, Registry, digest_of, program
from test_pull import IMAGES, blobs_fetched, fails, layer

pytestmark = [
    pytest.mark.skipif(program() is None, reason="docker-registry is not unpacked"),
    pytest.mark.usefixtures("no_pulled_images"),
]


def content() -> list[str]:
    """What the store has."""
    return sorted(str(path) for name in ("blobs", "layers") for path in (IMAGES / name).glob("*/*"))


def begin(*words: str) -> subprocess.Popen[bytes]:
    """A command in a process group of its own."""
    return subprocess.Popen(
        [SYSBOX, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def size(part: Path) -> int:
    """Of one that may be whole by now, and have another name."""
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def part_is_here() -> None:
    """Wait until a pull has the beginning of a blob."""
    deadline = time.monotonic() + TIMEOUT
    while not any(map(size, (IMAGES / "blobs/.partial").glob("*"))):
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_push_is_killed(sysbox: Sysbox, registry: Registry, base: bytes) -> None:
    """The tag means what it meant; the store is as before; the next push sends the rest."""
    registry.put_image("killed/from", "1", [base, *(layer(x=os.urandom(4 << 20)) for _ in "123")])
    old = registry.put_image("killed/to", "1", [layer(old=b"")])["digest"]
    name, target = (f"{registry.host}/killed/{one}:1" for one in ("from", "to"))
    sysbox("pull", "-q", name, check=True)
    # else its layers are mounted from there
    sysbox("tag", name, "killed:1", check=True)
    sysbox("untag", name, name, check=True)
    before = content()
    try:
        accept = {"Accept": OCI_MANIFEST}
        for delay in (0.15, 0.25, 0.35, 0.45):
            command = begin("push", "killed:1", target)
            time.sleep(delay)
            os.killpg(command.pid, signal.SIGKILL)
            command.wait()
            _, headers, _ = registry.request("HEAD", "/v2/killed/to/manifests/1", b"", accept)
            if headers["docker-content-digest"] != old:
                break
            assert content() == before
            assert sysbox("gc", check=True).stdout == ""
        done = sysbox("push", "killed:1", target, check=True).stdout
        _, headers, _ = registry.request("HEAD", "/v2/killed/to/manifests/1", b"", accept)
        assert headers["docker-content-digest"] == done.split()[2]
    finally:
        sysbox("rmi", "killed:1", check=True)


def test_a_push_to_a_full_disk(sysbox: Sysbox, base: bytes, image: str, tmp_path: Path) -> None:
    storage = tmp_path / "registry/storage"
    storage.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", storage], check=True)
    try:
        with Registry(tmp_path / "registry") as registry:
            before = content()
            words = ("push", "--retry", "0", image, f"{registry.host}/full:1")
            message = fails(sysbox, *words)
            assert f"{registry.host}/full: blob sha256:" in message, message
            assert "the server fails with status 500" in message
            assert content() == before
            assert registry.request("GET", "/v2/full/manifests/1")[0] == 404
    finally:
        subprocess.run(["umount", storage], check=True)


def test_one_of_ten_pulls_is_killed(sysbox: Sysbox, registry: Registry, base: bytes) -> None:
    """It is the one that fetches: another goes on with what it has."""
    name = f"{registry.host}/crowd/killed:1"
    big = layer(big=os.urandom(24 << 20))
    registry.put_image("crowd/killed", "1", [base, big], compress=False)
    first = begin("pull", "-q", name)
    part_is_here()
    others = [begin("pull", "-q", name) for _ in range(9)]
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert [one.wait(TIMEOUT) for one in others] == [0] * 9
    assert blobs_fetched(registry, digest_of(big)) <= 2
    sysbox("run", "--rm", "--pull", "never", name, "true", check=True)


def test_a_pull_while_images_are_removed(sysbox: Sysbox, registry: Registry, base: bytes) -> None:
    """What a pull relies on stays, also the layer of an image that goes meanwhile."""
    old, new = (f"{registry.host}/meanwhile/{one}:1" for one in ("old", "new"))
    registry.put_image("meanwhile/old", "1", [base])
    big = layer(big=os.urandom(24 << 20))
    registry.put_image("meanwhile/new", "1", [base, big], compress=False)
    sysbox("pull", "-q", old, check=True)
    pulling = begin("pull", "-q", new)
    part_is_here()
    os.killpg(pulling.pid, signal.SIGSTOP)
    try:
        assert "alone: a command is adding images" in sysbox("gc", check=True).stdout
        assert f"Untagged: {old}" in sysbox("rmi", old, check=True).stdout
        sysbox("image", "prune", "-f", check=True)
    finally:
        os.killpg(pulling.pid, signal.SIGCONT)
    assert pulling.wait(TIMEOUT) == 0
    sysbox("run", "--rm", "--pull", "never", new, "true", check=True)


def test_a_full_disk_at_any_step_of_a_pull(
    sysbox: Sysbox, registry: Registry, tmp_path: Path
) -> None:
    """A disk without an inode more: after the layer too, where only the image's documents are missing.

    One layer, since of two the one that fails is that which a worker reaches last.
    """
    registry.put_image("inodes/app", "1", [layer(a=b"1", b=b"2")])
    script = f"""
        mount -t tmpfs none {tmp_path}
        for inodes in $(seq 13 25); do
            mkdir {tmp_path}/d
            mount -t tmpfs -o nr_inodes=$inodes none {tmp_path}/d
            export SYSBOX_STATE_DIR={tmp_path}/d/state
            {SYSBOX} pull -q {registry.host}/inodes/app:1 >{tmp_path}/id
            status=$?
            cd {tmp_path}/d/state/images
            echo $status $(ls layers blobs/sha256 temporary records provenance | grep -v :)
            cd /
            [ $status = 0 ] || {SYSBOX} gc
            umount {tmp_path}/d
            rmdir {tmp_path}/d
        done
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=5 * TIMEOUT
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 13, done.stdout + done.stderr
    assert "1" in lines
    # nothing is left of a pull that failed, and gc has nothing to say
    assert {line for line in lines if line[0] == "1"} == {"1"}, done.stdout + done.stderr
    assert lines[-1].startswith("0 ")
    places = (
        "/blobs/.partial", "unpack", "/layer-1.json", "/blobs/sha256/", "/records/", "/index.lock",
        "/provenance", "/index.json",
    )  # fmt: skip
    for place in places:
        assert place in done.stderr, done.stderr


def test_flags(sysbox: Sysbox, registry: Registry, base: bytes, tmp_path: Path) -> None:
    """podman's flags of a push."""
    certificates = Certificates(tmp_path / "tls")
    with Registry(tmp_path / "one", tls=certificates) as one:
        own = certificates.trust(tmp_path, "certs")
        one.put_image("app", "1", [base])
        name = f"{one.host}/app:1"
        assert "certificate" in fails(sysbox, "pull", name)
        sysbox("pull", "-q", "--cert-dir", own, name, check=True)
        words = ("push", "--cert-dir", own, "--retry", "2", "--format")
        sysbox(*words, "oci", name, f"{one.host}/app:2", check=True)
        assert "application/vnd.oci" in fails(sysbox, *words, "v2s2", name)
        assert "unknown format" in fails(sysbox, *words, "v3", name)
        assert "whole number" in fails(sysbox, "push", "--retry", "x", name)
