"""Names of images and what the listings say: tag, untag, history, image tree, filters, prune, events."""

from __future__ import annotations

import json
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lane import Sysbox, rootfs

NAME = "names-test"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "rootfs.tar"
    path.write_bytes(rootfs(Path("/bin/busybox")))
    with tarfile.open(path, "a") as file:
        file.addfile(tarfile.TarInfo("names"))  # no other test's image shares the layer
    return path


@pytest.fixture
def image(sysbox: Sysbox, archive: Path) -> Iterator[str]:
    """The id of an image of its own."""
    done = sysbox(
        "import", "-c", "LABEL names=test", "-m", "made", archive, f"{NAME}:1", check=True
    )
    yield done.stdout.strip()
    sysbox("image", "prune", "-af", "--filter", "label=names=test", check=True)


def names(sysbox: Sysbox, *words: str) -> list[str]:
    template = "{{.Repository}}:{{.Tag}}"
    words = ("--filter", "label=names=test", *words)
    return sorted(sysbox("images", "--format", template, *words, check=True).stdout.split())


def moment() -> float:
    """Now, in seconds of the epoch: what happened before is in the journal, whose own times count."""
    subprocess.run(["journalctl", "--sync"], check=True)
    return time.time()


def events(sysbox: Sysbox, since: float, *words: str) -> list[tuple[str, str, dict[str, str]]]:
    """(action, id, attributes) of the images' events since then."""
    moment()
    fixed = ("events", "--since", f"{since:.6f}", "--until", "0s", "--format", "json")
    text = sysbox(*fixed, "--filter", "type=image", *words, check=True).stdout
    found = [json.loads(line) for line in text.splitlines()]
    return [(one["Action"], one["Actor"]["ID"], one["Actor"]["Attributes"]) for one in found]


def test_tag_and_untag(sysbox: Sysbox, image: str) -> None:
    since = moment()
    assert sysbox("tag", f"{NAME}:1", f"{NAME}:2", "localhost:5000/x/y", check=True).stdout == ""
    assert names(sysbox) == ["localhost:5000/x/y:latest", f"{NAME}:1", f"{NAME}:2"]
    assert sysbox("untag", image[7:19], f"{NAME}:2", f"{NAME}:9").returncode == 1
    assert len(names(sysbox)) == 3
    sysbox("image", "untag", f"{NAME}:1", f"{NAME}:2", check=True)
    sysbox("untag", image, check=True)
    assert names(sysbox) == ["<none>:<none>"]
    sysbox("image", "tag", image, f"{NAME}:1", check=True)
    found = events(sysbox, since, "--filter", "label=names=test")
    assert [(action, attributes["name"]) for action, _, attributes in found] == [
        ("tag", f"{NAME}:2"), ("tag", "localhost:5000/x/y:latest"), ("untag", f"{NAME}:2"),
        ("untag", f"{NAME}:1"), ("untag", "localhost:5000/x/y:latest"), ("tag", f"{NAME}:1"),
    ]  # fmt: skip
    assert {actor for _, actor, _ in found} == {image}


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("pull", ["missing", "never"])
def test_the_name_that_podman_gives(sysbox: Sysbox, pull: str) -> None:
    """podman's `build -t NAME` makes localhost/NAME: whoever asks for that is told what is here."""
    done = sysbox("run", "--rm", "--pull", pull, f"localhost/{NAME}:1", "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 2), done.stderr
    assert f"no such image: localhost/{NAME}:1" in done.stderr
    assert (
        f"{NAME}:1 is here: write that, or `sysbox tag {NAME}:1 localhost/{NAME}:1`" in done.stderr
    )


def test_a_name_for_the_host_image(sysbox: Sysbox) -> None:
    sysbox("tag", "host", f"{NAME}:host", check=True)
    try:
        done = sysbox("run", "--rm", "--network", "none", f"{NAME}:host", "echo", "ok", check=True)
        assert done.stdout == "ok\n"
    finally:
        sysbox("untag", "host", f"{NAME}:host", check=True)


def test_filters(sysbox: Sysbox, image: str, archive: Path) -> None:
    time.sleep(0.01)
    other = sysbox("import", "-c", "LABEL names=test two=", archive, f"{NAME}:2", check=True).stdout
    both = [f"{NAME}:1", f"{NAME}:2"]
    first, second = [f"{NAME}:1"], [f"{NAME}:2"]
    digest = sysbox("image", "inspect", "-f", "{{index .RepoDigests 0}}", image).stdout.strip()
    for words, expected in {
        f"id={image[7:20]}": first,
        f"id={other.strip()}": second,
        f"digest={digest.partition('@')[2]}": first,
        "digest=sha256:0000000000000000": [],
        "label!=two": first,
        "label=two": second,
        f"before={NAME}:2": first,
        f"since={NAME}:1": second,
        f"after={NAME}:1": second,
        "until=1h": [],
        "until=0s": both,
        "containers=true": [],
        "containers=false": both,
        "dangling=false": both,
        f"reference={NAME[:4]}*": both,
        f"reference={NAME}:2": second,
    }.items():
        assert names(sysbox, "--filter", words) == expected, words
    assert names(sysbox, "--filter", f"id={image}", "--filter", f"id={other.strip()}") == both
    assert names(sysbox, "--filter", "label!=two", "--filter", f"id={other.strip()}") == []
    assert digest.partition("@")[2] in sysbox("images", "--digests", f"{NAME}:1").stdout
    for words in ("id=xyz", "containers=maybe", "digest="):
        done = sysbox("images", "--filter", words)
        assert (done.returncode, done.stdout) == (1, "")


def test_history_and_tree(sysbox: Sysbox, image: str) -> None:
    sysbox("create", "--name", "names-c", "--network", "none", f"{NAME}:1", "sh", "-c", "x" * 60)
    try:
        made = sysbox("commit", "-m", "second", "names-c", f"{NAME}:2", check=True).stdout.strip()
    finally:
        sysbox("rm", "names-c", check=True)
    table = sysbox("history", f"{NAME}:2", check=True).stdout.splitlines()
    assert table[0].split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert table[1].startswith(made[7:19])
    assert f"sh -c {'x' * 38}…" in table[1]
    assert table[2].startswith("<missing>")
    assert table[2].endswith("made")
    lines = sysbox("image", "history", "--format", "json", "--no-trunc", "-H=false", made).stdout
    shown = [json.loads(line) for line in lines.splitlines()]
    assert [sorted(one) for one in shown] == 2 * [
        ["Comment", "CreatedAt", "CreatedBy", "CreatedSince", "ID", "Size"]
    ]
    assert shown[0]["ID"] == made
    assert shown[0]["CreatedBy"] == f"sh -c {'x' * 60}"
    assert shown[0]["Size"] == "0"
    assert int(shown[1]["Size"]) > 100_000
    assert sysbox("history", "-q", made).stdout == f"{made[7:19]}\n<missing>\n"

    tree = sysbox("image", "tree", f"{NAME}:2", check=True).stdout.splitlines()
    assert tree[0] == f"Image ID: {made[7:19]}"
    assert tree[1] == f"Tags:     [{NAME}:2]"
    assert tree[3] == "Image Layers"
    assert tree[4].startswith("├── ID: ")
    assert tree[4].endswith(f"Top Layer of: [{NAME}:1]")
    assert tree[5].startswith("└── ID: ")
    assert tree[5].endswith(f"Size: 0B Top Layer of: [{NAME}:2]")
    above = sysbox("image", "tree", "--whatrequires", f"{NAME}:1", check=True).stdout.splitlines()
    assert above[4] == tree[4].replace("├", "└")
    assert above[5].strip() == tree[5]


def test_prune_and_its_events(sysbox: Sysbox, image: str, archive: Path) -> None:
    since = moment()
    only = ("--filter", "label=names=test")
    sysbox("image", "prune", "-f", *only, check=True)
    assert names(sysbox) == [f"{NAME}:1"]
    sysbox("image", "prune", "-af", *only, "--filter", "until=1h", check=True)
    assert names(sysbox) == [f"{NAME}:1"]
    done = sysbox("image", "prune", "-af", *only, "--filter", "until=0s", check=True).stdout
    assert f"untagged: {NAME}:1\ndeleted: {image}\n" in done
    found = events(sysbox, since)
    pruned = [one for one in found if one[0] == "prune"]
    assert [actor for _, actor, _ in pruned] == ["", "", ""]
    assert [one["reclaimed"] == "0" for _, _, one in pruned] == [True, True, False]
    assert [one[0] for one in found if one[1] == image] == ["untag", "delete"]
    assert sysbox("image", "prune", "-f", "--filter", "colour=red").returncode == 1
    assert sysbox("image", "prune", input="n\n").returncode == 1
