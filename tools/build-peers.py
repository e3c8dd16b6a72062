"""Keep what docker and buildah make of Containerfiles. See tools/build-peers.sh."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "host"), str(ROOT / "tests")]

import docker_peer  # noqa: E402 (the path of the tests comes first)
import image_peers  # noqa: E402
import lane  # noqa: E402
from build_cases import PEERS  # noqa: E402
from build_peers import KEPT, Builders  # noqa: E402


def main() -> None:
    """Build all cases with each of them."""
    absent = [*docker_peer.missing(), *image_peers.missing("buildah")]
    if absent:
        sys.exit(f"{' '.join(absent)}: run tools/setup.sh test")
    archive = lane.rootfs(Path("/bin/busybox"))
    command = [lane.SYSBOX, "import", "-", lane.IMAGE]
    subprocess.run(command, input=archive, stdout=subprocess.DEVNULL, check=True)
    with (
        docker_peer.running() as docker,
        image_peers.ready() as peers,
        tempfile.TemporaryDirectory(dir="/var/lib/sysbox") as directory,
    ):
        builders = Builders(docker, peers, Path(directory))
        KEPT.mkdir(exist_ok=True)
        for peer in PEERS:
            path = KEPT / f"{peer}.json"
            others = json.loads(path.read_text()) if sys.argv[1:] else {}
            found = {**others, **builders.keep(peer, sys.argv[1:])}
            path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


main()
