"""Host tests run on a booted systemd (`tools/test-host.sh`); what they share is in lane.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from lane import *  # noqa: F403 (its fixtures and hooks too)
from lane import Sysbox, rootfs
from registryserver import Registry

from sysbox.base.paths import IMAGES


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry for all tests of a file: plain, open, and empty at first."""
    with Registry(tmp_path_factory.mktemp("registry")) as one:
        yield one


@pytest.fixture(scope="module")
def base() -> bytes:
    """A layer with all that a container needs, as an archive."""
    return rootfs(Path("/bin/busybox"))


@pytest.fixture
def no_pulled_images(sysbox: Sysbox, registry: Registry) -> Iterator[None]:
    """Remove what has come from registries; nothing half-made is left."""
    yield
    listed = sysbox("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}", check=True)
    for line in listed.stdout.splitlines():
        name, _, image_id = line.partition(" ")
        if name.startswith("127.0.0.1:") or name == "<none>:<none>":
            sysbox("rmi", "-f", image_id)
    sysbox("gc", check=True)
    assert sysbox("gc", check=True).stdout == ""
    # the first image that is pulled or imported makes the directory
    assert list(Path(IMAGES, "temporary").glob("*")) == []


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with all that an image must keep."""
    from image_trees import make_tree

    return make_tree(tmp_path_factory.mktemp("sample"))
