"""Two dozen Containerfiles: the images have what those of Debian's docker and buildah have.

What those two make is kept in tests/docker/builds; `tools/build-peers.sh` makes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from build_cases import CASES, PEERS, write_context
from build_peers import KEPT, Found, base_tree, by_sysbox
from lane import Sysbox

pytestmark = pytest.mark.usefixtures("image")

# what buildah leaves of each container of a RUN
OF_RUN = ("etc/hostname", "etc/hosts", "etc/resolv.conf", "run", "run/.containerenv")
BUILDAHS_OWN = "io.buildah.version"
NO_SHELL = "SHELL has no effect there"
SLASH = "a path is kept without a slash at its end"
MOUNT_POINT = "the directory that was made to mount on stays"
# (case, peer): what differs, and why. Paths of the tree, keys of the configuration, or "author".
DIFFERENT: dict[tuple[str, str], dict[str, str]] = {
    ("scratch", "buildkit"): {"WorkingDir": "/ is what it means anyway"},
    ("shell", "buildah"): {"Cmd": NO_SHELL, "Entrypoint": NO_SHELL},
    ("workdir", "docker"): {"WorkingDir": SLASH},
    ("workdir", "buildkit"): {"WorkingDir": SLASH},
    ("workdir", "buildah"): {"WorkingDir": SLASH},
    ("expose-volume", "buildah"): {
        "ExposedPorts": "a range is one port there",
        "/three": "it makes the directory of a volume in JSON form, and not those of the other form",
    },
    ("mounts", "buildkit"): {
        f"/{name}": MOUNT_POINT for name in ("cache", "context", "scratch", "stage")
    },
    ("escape", "buildah"): {"Env": "it knows no other escape character in ENV"},
}


@pytest.fixture(scope="module")
def kept() -> dict[str, Found]:
    """What the others have made, by their names."""
    return {peer: json.loads((KEPT / f"{peer}.json").read_text()) for peer in PEERS}


@pytest.fixture(scope="module")
def base(image: str) -> dict[str, str]:
    assert image
    return base_tree()


@pytest.fixture(scope="module", autouse=True)
def clean(sysbox: Sysbox) -> Iterator[None]:
    """No image and no step of a build stays."""
    yield
    sysbox("image", "prune", "-f", check=True)
    sysbox("builder", "prune", "-af", check=True)


@pytest.mark.parametrize("name", CASES)
def test_the_same_image(
    name: str, kept: dict[str, Found], base: dict[str, str], tmp_path: Path
) -> None:
    case = CASES[name]
    write_context(case, tmp_path)
    ours = flat(by_sysbox(case, tmp_path, base))
    wrong = []
    for peer in case.peers:
        theirs = flat(kept[peer][name])
        known = DIFFERENT.get((name, peer), {})
        wrong += [
            f"{peer}: {path}: {theirs.get(path)!r}, sysbox {ours.get(path)!r}"
            for path in sorted({*ours, *theirs})
            if ours.get(path) != theirs.get(path) and path not in known
        ]
        wrong += [
            f"{peer}: {path}: no longer different"
            for path in known
            if ours.get(path) == theirs.get(path)
        ]
    assert not wrong, "\n".join(wrong)


def flat(found: dict[str, Any]) -> dict[str, Any]:
    """One level: paths of the tree with a slash before them, keys of the configuration, each label."""
    tree = {f"/{path}": text for path, text in found["tree"].items() if path not in OF_RUN}
    config = dict(found["config"])
    config["Env"] = sorted(config.get("Env", []))
    labels = {f"label {key}": text for key, text in config.pop("Labels", {}).items()}
    labels.pop(f"label {BUILDAHS_OWN}", None)
    return {**tree, **config, **labels, "author": found["author"]}
