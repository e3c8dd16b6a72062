"""Record what Debian's docker shows for the containers in tests/host/lookalike.py: see docker-keys.sh."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "host"))

import docker_peer
import lane
from lookalike import Lookalike, keep

with tempfile.TemporaryDirectory() as directory, docker_peer.running() as docker:
    archive = Path(directory) / "rootfs.tar"
    archive.write_bytes(lane.rootfs(Path("/bin/busybox")))
    look = Lookalike(docker, archive)
    try:
        look.make()
        keep(look)
    finally:
        look.remove()
