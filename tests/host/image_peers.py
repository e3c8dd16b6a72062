"""skopeo, umoci, buildah and podman, unpacked by tools/setup.sh, each with a store of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unpacked import LIBRARIES, PATH

from sysbox.base import paths

PROGRAMS = ("skopeo", "umoci", "buildah", "podman")
TIMEOUT = 120.0  # seconds for one command


def missing(*programs: str) -> list[str]:
    """Programs that are not there."""
    return [name for name in programs or PROGRAMS if not shutil.which(name, path=PATH)]


class Peers:
    """The programs, with storage below a directory on a real disk."""

    def __init__(self, base: Path) -> None:
        self.base = base
        # where they look first, below $HOME: this machine has none of its own without their packages
        self.policy = base / ".config/containers/policy.json"
        self.policy.parent.mkdir(parents=True)
        self.policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (base / "storage.conf").write_text(
            f"[storage]\ndriver = 'overlay'\ngraphroot = '{base}/graph'\nrunroot = '{base}/run'\n"
        )

    def _call(self, *words: str | Path) -> str:
        name = str(words[0])
        done = subprocess.run(
            [shutil.which(name, path=PATH) or name, *words[1:]],
            env={
                "PATH": PATH,
                "LD_LIBRARY_PATH": LIBRARIES,
                "HOME": str(self.base),
                "TMPDIR": str(self.base),
                "CONTAINERS_STORAGE_CONF": str(self.base / "storage.conf"),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stderr}"
        return done.stdout.strip()

    def skopeo(self, *words: str | Path) -> str:
        """Standard output of a command that succeeds."""
        return self._call("skopeo", "--policy", self.policy, "--tmpdir", self.base, *words)

    def umoci(self, *words: str | Path) -> str:
        """The same."""
        return self._call("umoci", *words)

    def buildah(self, *words: str | Path) -> str:
        """The same."""
        return self._call("buildah", *words)

    def podman(self, *words: str | Path) -> str:
        """The same."""
        return self._call("podman", *words)

    def podman_load(self, archive: Path) -> str:
        """Load an archive or a directory; the name of the image, or its id."""
        said = self.podman("load", "--quiet", "--signature-policy", self.policy, "-i", archive)
        return said.rpartition("Loaded image: ")[2].strip()

    @contextmanager
    def podman_mount(self, image: str) -> Iterator[Path]:
        """The root file system of an image of podman's."""
        yield Path(self.podman("image", "mount", image))
        self.podman("image", "unmount", image)


@contextmanager
def ready() -> Iterator[Peers]:
    """The programs with an empty store, which is removed at the end."""
    base = Path(paths.STATE) / f"test-peers-{os.getpid()}"
    base.mkdir(parents=True)
    try:
        yield Peers(base)
    finally:
        for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()[::-1]:
            target = line.split()[1]
            if target.startswith(f"{base}/"):
                subprocess.run(["umount", target], check=True)
        shutil.rmtree(base)
