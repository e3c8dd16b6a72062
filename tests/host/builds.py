"""Builds for tests: a context in a directory, the verb, and what is in the image."""

from __future__ import annotations

import functools
import http.server
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from lane import Sysbox

from sysbox.base.paths import CONFIGURATION, IMAGES


class Builds:
    """`sysbox build` of a context, under one name."""

    def __init__(self, sysbox: Sysbox, context: Path) -> None:
        self.sysbox = sysbox
        self.context = context

    def write(self, text: str, /, **files: str) -> None:
        """The Containerfile, and further files by their paths with __ for a slash."""
        (self.context / "Containerfile").write_text(text)
        for name, content in files.items():
            path = self.context / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def __call__(
        self, *flags: str, name: str = "built:1", check: bool = True, context: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return self.sysbox(
            "build",
            "--progress",
            "plain",
            "-t",
            name,
            *flags,
            context or str(self.context),
            check=check,
        )

    def run(self, *command: str, name: str = "built:1") -> str:
        """The output of a command in the image."""
        flags = ("--rm", "--network", "none")
        return self.sysbox("run", *flags, name, *command, check=True).stdout

    def config(self, name: str = "built:1") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.sysbox("image", "inspect", "-f", "{{json .Config}}", name, check=True).stdout
        )
        return found

    def id(self, name: str = "built:1") -> str:
        return self.sysbox("image", "inspect", "-f", "{{.Id}}", name, check=True).stdout.strip()

    def layers(self, name: str = "built:1") -> list[str]:
        template = "{{json .RootFS.Layers}}"
        found: list[str] = json.loads(
            self.sysbox("image", "inspect", "-f", template, name, check=True).stdout
        )
        return found

    def fails(self, *flags: str) -> str:
        """The error of a build that fails, its hint with it; nothing is left of it."""
        before = self.sysbox("ps", "-aq", check=True).stdout
        done = self(*flags, check=False, name="failed:1")
        assert done.returncode == 1, done.stdout + done.stderr
        assert self.sysbox("ps", "-aq", check=True).stdout == before
        assert self.sysbox("image", "exists", "failed:1").returncode == 1
        errors = [line for line in done.stderr.splitlines() if line.startswith("sysbox: ")]
        assert errors, done.stderr
        return "\n".join(errors)


@contextmanager
def cleaned(sysbox: Sysbox, directory: Path) -> Iterator[Builds]:
    """Builds of a context of its own; their images and the cache are removed, and nothing else is left."""
    context = directory / "context"
    context.mkdir()
    yield Builds(sysbox, context)
    clean(sysbox)


def clean(sysbox: Sysbox) -> None:
    """Remove the images that builds have made, and their cache; nothing else is left."""
    listed = sysbox("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}", check=True).stdout
    for line in listed.splitlines():
        name, _, image_id = line.partition(" ")
        if name.startswith(("built:", "failed:", "<none>")):
            sysbox("rmi", "-f", image_id if name.startswith("<") else name)
    sysbox("builder", "prune", "-af", check=True)
    sysbox("gc", check=True)
    assert list(Path(IMAGES, "temporary").glob("*")) == []


@contextmanager
def configured(text: str) -> Iterator[None]:
    """What an administrator writes into the section [Build] of sysbox.conf."""
    directory = Path(CONFIGURATION[1], "sysbox.conf.d")
    made = [one for one in (directory.parent, directory) if not one.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "build.conf"
    file.write_text(f"[Build]\n{text}\n")
    try:
        yield
    finally:
        file.unlink()
        for one in reversed(made):
            one.rmdir()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def serving(directory: Path) -> AbstractContextManager[str]:
    """The address of a web server with the files of a directory."""
    return answering(functools.partial(_Quiet, directory=str(directory)))


@contextmanager
def answering(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a web server with this handler."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
