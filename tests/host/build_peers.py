"""The cases of build_cases.py, built by sysbox, buildah and docker: what each image has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from build_cases import BASE, BUILDAH, BUILDKIT, CASES, Case, changes, listing, write_context
from docker_peer import Docker
from image_peers import Peers
from image_trees import mounted, shown
from lane import run_sysbox

from sysbox.base.paths import IMAGES

KEPT = Path(__file__).parents[1] / "docker" / "builds"
KEYS = (
    "Env", "Cmd", "Entrypoint", "User", "WorkingDir", "ExposedPorts", "Volumes", "Labels", "StopSignal",
    "Healthcheck", "OnBuild", "Shell",
)  # fmt: skip
Found = dict[str, dict[str, Any]]


def of_image(image_id: str, base: dict[str, str]) -> dict[str, Any]:
    """What an image of sysbox's store has: its tree beside that of the base, its configuration."""
    with mounted(image_id) as root:
        tree = changes(listing(root), base)
    digest = image_id.removeprefix("sha256:")
    document = json.loads(Path(IMAGES, "blobs", "sha256", digest).read_bytes())
    config = {key: document["config"].get(key) for key in KEYS}
    author = document.get("author") or None
    return {"tree": tree, "config": {k: v for k, v in config.items() if v}, "author": author}


def base_tree() -> dict[str, str]:
    """The tree of the base image."""
    with mounted(BASE) as root:
        return listing(root)


def by_sysbox(case: Case, context: Path, base: dict[str, str]) -> dict[str, Any]:
    """Built here: an image without a name."""
    words = ("build", "-q", "--format", "docker", *case.flags, context)
    image_id = run_sysbox(*words, check=True).stdout.strip()
    return of_image(image_id, base if "FROM scratch" not in case.text else {})


class Builders:
    """The other programs, each with the base image."""

    def __init__(self, docker: Docker, peers: Peers, directory: Path) -> None:
        self._docker = docker
        self._peers = peers
        self._directory = directory
        archive = directory / "base.tar"
        run_sysbox("save", "-q", "-o", archive, BASE, check=True)
        assert docker("load", "-i", str(archive))[0] == 0
        peers.buildah("pull", "-q", f"docker-archive:{archive}")

    def keep(self, peer: str, only: Sequence[str] = ()) -> Found:
        """All cases that a program knows, or some."""
        base = base_tree()
        known = {
            name: case
            for name, case in CASES.items()
            if peer in case.peers and (not only or name in only)
        }
        return {name: self._built(peer, name, case, base) for name, case in known.items()}

    def _built(self, peer: str, name: str, case: Case, base: dict[str, str]) -> dict[str, Any]:
        context = self._directory / f"{peer}-{name}"
        context.mkdir()
        write_context(case, context)
        archive = self._directory / "built.tar"
        build: Callable[..., None] = self._buildah if peer == BUILDAH else self._with_docker
        image = f"peers:{name}"
        build(peer, image, case, context, archive)
        run_sysbox("load", "-q", "-i", archive, check=True)
        archive.unlink()
        shutil.rmtree(context)
        loaded = f"localhost/{image}" if peer == BUILDAH else image
        try:
            image_id = shown(loaded, "{{.Id}}")
            return of_image(image_id, base if "FROM scratch" not in case.text else {})
        finally:
            run_sysbox("rmi", "-f", loaded, check=True)

    def _buildah(self, _: str, image: str, case: Case, context: Path, archive: Path) -> None:
        flags = ("--isolation", "chroot", "--format", "docker", "--pull-never")
        self._peers.buildah("build", *flags, "-t", image, *case.flags, context)
        self._peers.buildah("push", "-q", image, f"docker-archive:{archive}:localhost/{image}")

    def _with_docker(self, peer: str, image: str, case: Case, context: Path, archive: Path) -> None:
        kit = {"DOCKER_BUILDKIT": "1" if peer == BUILDKIT else "0"}
        status, said = self._docker(
            "build", "--network", "none", "-t", image, *case.flags, str(context), env=kit
        )
        assert status == 0, said
        assert self._docker("save", "-o", str(archive), image)[0] == 0
