"""Images from the command line to a container: import, list, inspect, remove; the image `host`; bootstrap."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lane import SYSBOX, Sysbox
from registryserver import Registry, program

NAME = "images-test"


@pytest.fixture
def imported(sysbox: Sysbox, archive: Path) -> Iterator[str]:
    """The id of an image of its own."""
    done = sysbox("import", archive, f"{NAME}:1", check=True)
    yield done.stdout.strip()
    sysbox("rmi", "-f", NAME + ":1", NAME + ":2")


def listed(sysbox: Sysbox, *words: str) -> list[str]:
    template = "{{.Repository}}:{{.Tag}} {{.ID}}"
    return sysbox("images", "--format", template, *words, check=True).stdout.splitlines()


def test_import_list_inspect_remove(sysbox: Sysbox, archive: Path) -> None:
    data = archive.read_bytes()
    changes = [
        "-c",
        'CMD ["echo", "from the image"]',
        "-c",
        "ENV A=b",
        "-c",
        "WORKDIR /tmp",
        "-c",
        "LABEL k=v",
    ]
    image_id = sysbox(
        "import", *changes, "-m", "a test", archive, f"{NAME}:1", check=True
    ).stdout.strip()
    assert image_id.startswith("sha256:")
    assert len(image_id) == 71
    assert f"{NAME}:1 {image_id[7:19]}" in listed(sysbox)
    assert sysbox("images", "-q", "--no-trunc", f"{NAME}:1").stdout == image_id + "\n"
    assert listed(sysbox, "--filter", "label=k=v", "--filter", f"reference={NAME[:5]}*:1")
    assert not listed(sysbox, "--filter", "label=k=other")
    assert not listed(sysbox, "--filter", "dangling=true", f"{NAME}:1")
    header = sysbox("images").stdout.splitlines()[0].split("  ")
    assert [word.strip() for word in header if word] == [
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
    ]

    (shown,) = json.loads(sysbox("image", "inspect", NAME + ":1", check=True).stdout)
    assert shown["Id"] == image_id
    assert shown["RepoTags"] == [f"{NAME}:1"]
    assert shown["Config"]["Cmd"] == ["echo", "from the image"]
    assert shown["Config"]["Labels"] == {"k": "v"}
    assert shown["Comment"] == "a test"
    assert shown["RootFS"] == {
        "Type": "layers",
        "Layers": [f"sha256:{hashlib.sha256(data).hexdigest()}"],
    }
    assert shown["Size"] > 100_000
    template = "{{.Os}} {{index .Config.Env 1}}"
    assert sysbox("image", "inspect", "-f", template, image_id[7:15]).stdout == "linux A=b\n"

    words = ("run", "--rm", "--network", "none")
    assert sysbox(*words, f"{NAME}:1", check=True).stdout == "from the image\n"
    assert sysbox(*words, f"{NAME}:1", "sh", "-c", "echo $A $PWD", check=True).stdout == "b /tmp\n"
    done = sysbox("rmi", f"{NAME}:1", check=True)
    assert done.stdout == f"Untagged: {NAME}:1\nDeleted: {image_id}\n"


@pytest.mark.parametrize("packer", ["gzip", "xz", "zstd"])
def test_compressed_and_through_a_pipe(
    sysbox: Sysbox, archive: Path, packer: str, requires: Any
) -> None:
    requires.program(packer)
    command = f"{packer} -c {archive} | {SYSBOX} import - {NAME}:1"
    subprocess.run(["sh", "-ec", command], check=True, capture_output=True, timeout=60)
    try:
        done = sysbox("run", "--rm", "--network", "none", f"{NAME}:1", "echo", "ok", check=True)
        assert done.stdout == "ok\n"
        shown = sysbox("image", "inspect", "-f", "{{.RootFS.Layers}}", f"{NAME}:1").stdout
        assert shown == f"[sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}]\n"
    finally:
        sysbox("rmi", f"{NAME}:1", check=True)


def test_an_image_in_use_stays(sysbox: Sysbox, imported: str) -> None:
    sysbox("create", "--name", "user-of-it", "--network", "none", f"{NAME}:1", "true", check=True)
    try:
        done = sysbox("rmi", f"{NAME}:1")
        assert done.returncode == 1
        assert "container user-of-it is using its referenced image" in done.stderr
        assert sysbox("rmi", imported).returncode == 1
        assert sysbox("rmi", "-f", f"{NAME}:1", check=True).stdout == f"Untagged: {NAME}:1\n"
        assert f"<none>:<none> {imported[7:19]}" in listed(sysbox, "--filter", "dangling=true")
        sysbox("gc", check=True)
        assert sysbox("start", "-a", "user-of-it").returncode == 0
    finally:
        sysbox("rm", "-f", "user-of-it")
    assert sysbox("rmi", imported, check=True).stdout == f"Deleted: {imported}\n"


def test_names_of_one_image(sysbox: Sysbox, imported: str, archive: Path) -> None:
    other = sysbox("import", "-c", "USER 5", archive, f"{NAME}:2", check=True).stdout.strip()
    assert other != imported
    assert sysbox("rmi", f"{NAME}:2", check=True).stdout.endswith(f"Deleted: {other}\n")
    # the layer was shared, and is still there for the first
    assert sysbox("run", "--rm", "--network", "none", f"{NAME}:1", "true").returncode == 0


@pytest.mark.parametrize(
    ("words", "text", "status"),
    [
        (["import", "/no/such/file"], "No such file", 1),
        (["import", "/etc"], "Is a directory", 1),
        (["import", "/etc/passwd"], "not a tar archive", 1),
        (["import", "-", "Bad"], "lower case", 1),
        (["import", "-", "host"], "built-in", 1),
        (["import", "-c", "RUN x", "-"], "not an instruction", 1),
        (["rmi", "no-such"], "no such image: no-such", 1),
        (["rmi", "-f", "no-such"], "no such image: no-such", 0),
        (["image", "inspect", "no-such"], "no such image: no-such", 1),
        (["images", "--filter", "labl=x"], "unknown key labl", 1),
        (["bootstrap", "debian"], "not a distribution and a suite", 1),
        (["run", "--rm", "no-such", "true"], "no such image", 125),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input(sysbox: Sysbox, words: list[str], text: str, status: int) -> None:
    done = sysbox(*words, input="")
    assert done.returncode == status, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout in ("", "[]\n")


def test_a_hostile_archive_leaves_nothing(sysbox: Sysbox, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        link = tarfile.TarInfo("d")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        file.addfile(link)
        file.addfile(tarfile.TarInfo("d/escaped"))
    (tmp_path / "bad.tar").write_bytes(buffer.getvalue())
    before = listed(sysbox)
    done = sysbox("import", tmp_path / "bad.tar", "bad")
    assert done.returncode == 1
    assert "'d/escaped': its directory is not in the layer" in done.stderr
    assert os.listdir(tmp_path) == ["bad.tar"]
    assert listed(sysbox) == before
    assert "layers/" not in sysbox("gc", check=True).stdout


def test_a_full_disk(sysbox: Sysbox, tmp_path: Path) -> None:
    """One clear line, and the store is as before."""
    script = f"""
        mount -t tmpfs -o size=2m none {tmp_path}
        SYSBOX_STATE_DIR={tmp_path}/state {SYSBOX} import - full
        echo status $?
        find {tmp_path}/state -type f -size +0 | grep -v oci-layout || echo nothing
    """
    noise = os.urandom(4 << 20)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        member = tarfile.TarInfo("noise")
        member.size = len(noise)
        file.addfile(member, io.BytesIO(noise))
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        input=buffer.getvalue(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert b"No space left on device" in done.stderr
    assert done.stdout == b"status 1\nnothing\n"


HOST = ("run", "--rm", "--network", "none", "host")


def test_the_host_image(sysbox: Sysbox) -> None:
    """The machine's /usr, read-only; nothing of its secrets, users and state."""
    script = """
        ls /usr/bin/env /bin/sh && touch /usr/x 2>&1 | grep -o 'Read-only file system'
        for path in /etc/shadow /etc/gshadow /etc/sudoers /etc/ssh /etc/ssl/private /var/lib/dpkg; do
            test -e $path && echo "found $path"
        done
        ls -A /home /root /srv
        id -un; id -un 65534
        echo written > /etc/new && cat /etc/new
        cat /etc/machine-id
    """
    done = sysbox(*HOST, "sh", "-c", script, check=True)
    assert done.stdout.split("\n") == [
        "/bin/sh", "/usr/bin/env", "Read-only file system", "/home:", "", "/root:", "", "/srv:",
        "root", "nobody", "written", "",
    ]  # fmt: skip
    assert any(line.startswith("host:latest ") for line in listed(sysbox))


def test_the_host_image_runs_the_machines_programs(sysbox: Sysbox, requires: Any) -> None:
    machine = subprocess.run(
        ["/bin/bash", "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert sysbox(*HOST, "bash", "--version", check=True).stdout == machine
    requires(Path("/usr/bin/openssl").exists(), "openssl")
    verified = sysbox(*HOST, "openssl", "version", "-d", check=True).stdout
    assert "OPENSSLDIR" in verified


def test_the_host_image_is_removed_and_comes_back(sysbox: Sysbox) -> None:
    sysbox(*HOST, "true", check=True)
    done = sysbox("rmi", "host", check=True)
    assert done.stdout.startswith("Untagged: host:latest\nDeleted: sha256:")
    assert sysbox(*HOST, "true").returncode == 0


@pytest.fixture
def repository(tmp_path: Path, requires: Any) -> Path:
    """An apt repository of one package called apt, so that a real mmdebstrap needs no network."""
    requires.program("mmdebstrap")
    build, place = tmp_path / "build", tmp_path / "repository"
    (build / "DEBIAN").mkdir(parents=True)
    place.mkdir()
    control = "Package: apt\nVersion: 1\nArchitecture: all\nMaintainer: none <n@example>\nDescription: x\n"
    (build / "DEBIAN" / "control").write_text(control)
    (build / "etc").mkdir()
    (build / "etc" / "proof").write_text("from the package")
    package = place / "apt_1_all.deb"
    subprocess.run(["dpkg-deb", "-b", build, package], check=True, capture_output=True)
    data = package.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    index = f"{control}Filename: ./{package.name}\nSize: {len(data)}\nSHA256: {digest}\n\n"
    (place / "Packages.gz").write_bytes(gzip.compress(index.encode()))
    tmp_path.chmod(0o755)
    return place


def test_bootstrap(sysbox: Sysbox, repository: Path, tmp_path: Path) -> None:
    mirror = f"deb [trusted=yes] copy:{repository} ./"
    words = (
        "bootstrap",
        "debian:bookworm",
        "--variant",
        "extract",
        "--mirror",
        mirror,
        "-t",
        f"{NAME}:1",
    )
    done = sysbox(*words, check=True)
    try:
        assert "creating tarball" in done.stderr  # progress
        (shown,) = json.loads(sysbox("image", "inspect", done.stdout.strip(), check=True).stdout)
        assert shown["RepoTags"] == [f"{NAME}:1"]
        assert shown["Config"]["Cmd"] == ["/bin/bash"]
        layer = Path(shown["GraphDriver"]["Data"]["UpperDir"])
        assert (layer / "etc" / "proof").read_text() == "from the package"
        if program() is None:
            return
        with Registry(tmp_path / "registry") as registry:
            there = f"{registry.host}/debian:bookworm"
            sysbox("push", f"{NAME}:1", there, check=True)
            sysbox("pull", there, check=True)
            (again,) = json.loads(sysbox("image", "inspect", there, check=True).stdout)
            assert again["Id"] == shown["Id"]
            sysbox("rmi", there, check=True)
    finally:
        sysbox("rmi", f"{NAME}:1", check=True)


def test_a_bootstrap_that_fails(sysbox: Sysbox, requires: Any, tmp_path: Path) -> None:
    requires.program("mmdebstrap")
    before = set(os.listdir("/var/tmp")), listed(sysbox)
    done = sysbox(
        "bootstrap", "debian:bookworm", "--mirror", f"deb copy:{tmp_path}/none ./", "-t", NAME
    )
    assert done.returncode == 1
    assert "bootstrap bookworm: mmdebstrap failed" in done.stderr
    assert (set(os.listdir("/var/tmp")), listed(sysbox)) == before
