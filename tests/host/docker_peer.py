"""Debian's docker on an embedded host: a daemon of its own, which leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unpacked import PATH

from sysbox.base import paths

PROGRAMS = ("docker", "dockerd", "containerd", "containerd-shim-runc-v2", "runc")


def missing() -> list[str]:
    """Programs that are not there."""
    return [name for name in PROGRAMS if not shutil.which(name, path=PATH)]


class Docker:
    """`docker(WORDS...)` is (exit status, standard output)."""

    def __init__(self) -> None:
        self.unit = f"test-docker-{os.getpid()}.service"
        self.root = Path(paths.STATE) / f"test-docker-{os.getpid()}"  # on a real disk
        self.run = Path("/run") / f"test-docker-{os.getpid()}"
        self._socket = f"unix://{self.run}.sock"
        self._known = {
            path for path in (Path("/run/docker"), Path("/run/containerd")) if path.exists()
        }

    def __call__(self, *words: str, env: dict[str, str] | None = None) -> tuple[int, str]:
        done = subprocess.run(
            [shutil.which("docker", path=PATH) or "docker", *words],
            env={
                "PATH": PATH,
                "DOCKER_HOST": self._socket,
                "DOCKER_CONFIG": str(self.root / "config"),
                **(env or {}),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def start(self) -> None:
        """Boot the daemon; it changes neither the packet filter nor a kernel setting."""
        self.root.mkdir(parents=True)
        properties = ("Type=notify", "Delegate=yes", "KillMode=mixed")
        switches = ("iptables", "ip6tables", "ip-forward", "ip-masq", "userland-proxy")
        _call(
            *(
                "systemd-run",
                "--quiet",
                "--collect",
                f"--unit={self.unit}",
                f"--setenv=PATH={PATH}",
            ),
            *(f"--property={value}" for value in properties),
            *("--", shutil.which("dockerd", path=PATH) or "dockerd", "--host", self._socket),
            *("--data-root", str(self.root), "--exec-root", str(self.run)),
            *(f"--{name}=false" for name in switches),
            *("--pidfile", f"{self.run}.pid", "--exec-opt", "native.cgroupdriver=systemd"),
        )

    def stop(self) -> None:
        """End it, and take away what it leaves: namespaces' mounts, its bridge, directories."""
        _call("systemctl", "stop", self.unit)
        for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
            target = line.split()[1]
            if target.startswith((f"{self.run}/", f"{self.root}/")):
                _call("umount", target)
        if Path("/sys/class/net/docker0").exists():
            _call("ip", "link", "delete", "docker0")
        left = {Path("/run/docker"), Path("/run/containerd")} - self._known
        for path in (self.root, self.run, *left):
            shutil.rmtree(path, ignore_errors=True)


def _call(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


@contextmanager
def running() -> Iterator[Docker]:
    """A docker that is up."""
    docker = Docker()
    docker.start()
    try:
        yield docker
    finally:
        docker.stop()
