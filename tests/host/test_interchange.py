"""Images go to docker, podman, buildah, skopeo and umoci, and back: the same trees, entry by entry."""

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

import docker_peer
import image_peers
import pytest
from image_peers import Peers
from image_trees import CAPABILITY, Tree, overlay, same, shown, tree_of
from lane import Sysbox, run_sysbox
from sampletree import described

from sysbox.base.tree import TreeEntry
from sysbox.image.tarwriter import Archive

NAME = "localhost/interchange"
BASE, TOP = f"{NAME}:base", f"{NAME}:top"


@pytest.fixture(scope="module")
def peers(requires: Any) -> Iterator[Peers]:
    absent = image_peers.missing()
    requires(not absent, f"{' '.join(absent)}: run tools/setup.sh test")
    with image_peers.ready() as peers:
        yield peers


@pytest.fixture(scope="module")
def archive(sample: Path) -> Path:
    """Two images: the tree, and a layer with whiteouts and an opaque directory above it."""
    below, above = _packed(sample), _top_layer()
    files: dict[str, bytes] = {"1.tar": gzip.compress(below, 1), "2.tar": gzip.compress(above, 1)}
    manifest = []
    for name, layers in ((BASE, [below]), (TOP, [below, above])):
        config = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2020-01-01T00:00:00Z",
            "config": {"Cmd": ["true"], "Labels": {"k": "v"}},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers],
            },
            "history": [{"created_by": "test"} for _ in layers],
        }
        files[f"{len(layers)}.json"] = json.dumps(config).encode()
        paths = [f"{number}.tar" for number in range(1, len(layers) + 1)]
        manifest.append({"Config": f"{len(layers)}.json", "RepoTags": [name], "Layers": paths})
    files["manifest.json"] = json.dumps(manifest).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            _add(archive, name, data)
    path = sample.parent / "images.tar"
    path.write_bytes(buffer.getvalue())
    return path


@pytest.fixture
def images(archive: Path) -> Iterator[dict[str, str]]:
    """Name -> id of both."""
    assert run_sysbox("load", "-i", archive, check=True).stdout.count("Loaded image") == 2
    yield {name: shown(name, "{{.Id}}") for name in (BASE, TOP)}
    run_sysbox("rmi", "-f", BASE, TOP)


def _packed(sample: Path) -> bytes:
    buffer = io.BytesIO()
    archive = Archive(buffer.write)
    found = TreeEntry(".", os.open(sample, os.O_PATH))
    archive.tree(found, ".")
    found.close()
    archive.finish()
    return buffer.getvalue()


def _add(
    archive: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE
) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.mtime, member.mode = len(data), kind, 1_700_000_000, 0o755
    archive.addfile(member, io.BytesIO(data))


def _top_layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, ".wh.old")
        _add(archive, ".wh.fifo")
        _add(archive, "replaced", kind=tarfile.DIRTYPE)
        _add(archive, "replaced/.wh..wh..opq")
        _add(archive, "replaced/new", b"new")
        _add(archive, "link", kind=tarfile.DIRTYPE)  # was a symbolic link
        _add(archive, "su2", b"no link of the others any more")
    return buffer.getvalue()


@pytest.fixture
def trees(images: dict[str, str], sample: Path) -> dict[str, Tree]:
    """What sysbox has made of the images; of the first, what it was made from."""
    found = {name: tree_of(name) for name in images}
    same(found[BASE], described(sample))
    assert "old" not in found[TOP]
    assert "replaced/file" not in found[TOP]
    return found


def save(form: str, out: Path, *names: str) -> Path:
    run_sysbox("save", "--format", form, "-o", out, *names, check=True)
    return out


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
def test_podman_reads_ours(
    images: dict[str, str], trees: dict[str, Tree], peers: Peers, tmp_path: Path, form: str
) -> None:
    name = peers.podman_load(save(form, tmp_path / "out", TOP))
    try:
        assert peers.podman("image", "inspect", "-f", "sha256:{{.Id}}", name) == images[TOP]
        if form == "docker-archive":
            assert name == TOP
        with peers.podman_mount(name) as path:
            same(trees[TOP], described(path))
    finally:
        peers.podman("rmi", "-f", name)


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir", "docker-dir"])
def test_ours_reads_podmans(
    images: dict[str, str], trees: dict[str, Tree], peers: Peers, tmp_path: Path, form: str
) -> None:
    # podman keeps the configuration of an image only where it need not change its type
    ours = "oci-archive" if form.startswith("oci") else "docker-archive"
    name = peers.podman_load(save(ours, tmp_path / "in", TOP))
    try:
        peers.podman("save", "-q", "--format", form, "-o", tmp_path / "out", name)
    finally:
        peers.podman("rmi", "-f", name)
    run_sysbox("rmi", TOP, check=True)
    said = run_sysbox("load", "-i", tmp_path / "out", check=True).stdout
    if form == "docker-dir":
        identity = said.partition("Loaded image ID: ")[2].strip()
        run_sysbox("tag", identity, TOP, check=True)
    else:
        assert said == f"Loaded image: {TOP}\n"
        assert shown(TOP, "{{.Id}}") == images[TOP]
    same(trees[TOP], tree_of(TOP))


def test_skopeo_and_umoci(
    images: dict[str, str], trees: dict[str, Tree], peers: Peers, tmp_path: Path
) -> None:
    """The layers stay byte for byte what they are on the way through both."""
    layout = save("oci-dir", tmp_path / "layout", BASE, TOP)
    digest = shown(TOP, "{{index .RepoDigests 0}}").partition("@")[2]
    raw = peers.skopeo("inspect", "--raw", f"oci:{layout}:{TOP}")
    assert hashlib.sha256(f"{raw}\n".encode()).hexdigest() == digest.partition(":")[2]
    bundle = peers.base / "bundle"
    peers.umoci("unpack", "--image", f"{layout}:{TOP}", bundle)
    same(trees[TOP], described(bundle / "rootfs"))
    subprocess.run(["rm", "-r", bundle], check=True)
    for form in ("docker-archive", "oci-archive"):
        out = tmp_path / form
        peers.skopeo("copy", f"oci:{layout}:{TOP}", f"{form}:{out}:{TOP}")
        run_sysbox("rmi", TOP, check=True)
        assert run_sysbox("load", "-i", out, check=True).stdout == f"Loaded image: {TOP}\n"
        assert shown(TOP, "{{.Id}}") == images[TOP]
        if form == "oci-archive":
            assert shown(TOP, "{{index .RepoDigests 0}}").endswith(digest)
        peers.skopeo(
            "copy", f"{form}:{save(form, tmp_path / f'{form}-2', TOP)}", f"dir:{tmp_path}/d"
        )
    same(trees[TOP], tree_of(TOP))


def test_what_umoci_makes(peers: Peers, sample: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    peers.umoci("init", "--layout", layout)
    peers.umoci("new", "--image", f"{layout}:one")
    peers.umoci("insert", "--image", f"{layout}:one", sample, "/")
    peers.umoci("config", "--image", f"{layout}:one", "--config.cmd", "true")
    image = run_sysbox("load", "-i", layout, check=True).stdout.partition("ID: ")[2].strip()
    run_sysbox("tag", image, f"{NAME}:umoci", check=True)
    try:
        bundle = peers.base / "bundle"
        peers.umoci("unpack", "--image", f"{layout}:one", bundle)
        same(tree_of(image), described(bundle / "rootfs"))
        subprocess.run(["rm", "-r", bundle], check=True)
        assert shown(image, "{{.Config.Cmd}}") == "[true]"
    finally:
        run_sysbox("rmi", "-f", image, check=True)


def test_buildah(
    images: dict[str, str], trees: dict[str, Tree], peers: Peers, tmp_path: Path
) -> None:
    ours = save("oci-archive", tmp_path / "ours", TOP)
    policy = ("--signature-policy", str(peers.policy))
    made = peers.buildah("from", *policy, f"oci-archive:{ours}").splitlines()[-1]
    try:
        root = Path(peers.buildah("mount", made))
        same(trees[TOP], described(root))
        (root / "by-buildah").write_text("new")
        os.utime(root / "by-buildah", (1, 1))  # it keeps whole seconds
        (root / "link").rmdir()
        theirs = described(root)
        peers.buildah("config", "--label", "by=buildah", made)
        for form in ("docker-archive", "oci-archive"):
            out = f"{form}:{tmp_path / form}:{NAME}:buildah"
            peers.buildah("commit", "-q", *policy, made, out)
            said = run_sysbox("load", "-i", tmp_path / form, check=True).stdout
            assert said == f"Loaded image: {NAME}:buildah\n"
            same(tree_of(f"{NAME}:buildah"), theirs)
            assert shown(f"{NAME}:buildah", "{{.Config.Labels.by}}") == "buildah"
            run_sysbox("rmi", f"{NAME}:buildah", check=True)
    finally:
        peers.buildah("umount", made)
        peers.buildah("rm", made)
        peers.buildah("rmi", "-a", "-f")


def test_docker(
    sysbox: Sysbox, images: dict[str, str], trees: dict[str, Tree], tmp_path: Path, requires: Any
) -> None:
    """docker 20.10, in both directions; its layers are plain.

    It loses the capabilities of a file with hard links: it sets the owner of each link, which clears them.
    """
    requires(not docker_peer.missing(), "docker: run tools/setup.sh test")
    ours = save("docker-archive", tmp_path / "ours", BASE, TOP)
    with docker_peer.running() as docker:
        status, said = docker("load", "-i", str(ours))
        assert (status, said.count("Loaded image")) == (0, 2)
        template = "{{.Id}} {{.GraphDriver.Data.UpperDir}}:{{.GraphDriver.Data.LowerDir}}"
        identity, _, lower = (
            docker("image", "inspect", "-f", template, TOP)[1].strip().partition(" ")
        )
        assert identity == images[TOP]
        with overlay(lower) as path:
            found = described(path)
        for name in ("su", "deep/su3"):
            found[name][-2].setdefault(CAPABILITY, trees[TOP][name][-2][CAPABILITY])
        same(trees[TOP], found)
        status, _ = docker("save", "-o", str(tmp_path / "theirs"), BASE, TOP)
        assert status == 0
    sysbox("rmi", BASE, TOP, check=True)
    said = sysbox("load", "-i", tmp_path / "theirs", check=True).stdout
    assert sorted(said.splitlines()) == [f"Loaded image: {BASE}", f"Loaded image: {TOP}"]
    for name, identity in images.items():
        assert shown(name, "{{.Id}}") == identity
        same(trees[name], tree_of(name))
