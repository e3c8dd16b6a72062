"""Contexts from git repositories that name files, programs and repositories of the host, or have no end."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builds import Builds, cleaned, configured
from containers import eventually
from lane import Sysbox

pytestmark = pytest.mark.usefixtures("image")

AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.org")
NOBODY = "git://127.0.0.1:1/x"  # nothing answers there


@pytest.fixture
def build(sysbox: Sysbox, tmp_path: Path, requires: Any) -> Iterator[Builds]:
    requires.program("git")
    with cleaned(sysbox, tmp_path) as builds:
        yield builds


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of the repositories below `tmp_path`: that of a file is refused for submodules."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    words = ["daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}"]
    path = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True)
    command = [f"{path.stdout.strip()}/git-{words[0]}", *words[1:], f"--base-path={tmp_path}"]

    def answers() -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    with subprocess.Popen([*command, tmp_path], stderr=subprocess.DEVNULL) as process:
        try:
            eventually(answers, "it answers")
            yield f"git://127.0.0.1:{port}"
        finally:
            process.terminate()


def git(directory: Path, *words: str, input: str | None = None) -> str:
    """git(1) in a repository, as its author: its output."""
    words = (*AUTHOR, "-c", "protocol.file.allow=always", "-C", str(directory), *words)
    done = subprocess.run(["git", *words], input=input, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def repository(top: Path, modules: dict[str, tuple[str, str]] | None = None, **files: str) -> str:
    """A repository with files, and with submodules by path, each (address, commit); its commit."""
    top.mkdir()
    git(top, "init", "--quiet")
    for name, content in files.items():
        (top / name).write_text(content)
    lines = [
        f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n'
        for path, (url, _) in (modules or {}).items()
    ]
    (top / ".gitmodules").write_text("".join(lines))
    git(top, "add", ".")
    index = [f"160000 {commit}\t{path}\n" for path, (_, commit) in (modules or {}).items()]
    git(top, "update-index", "--index-info", input="".join(index))
    git(top, "commit", "--quiet", "-m", "all")
    return git(top, "rev-parse", "HEAD")


def refused(build: Builds, top: Path, branch: str = "") -> str:
    """The error of a build of a repository."""
    ref = f"#{branch}" if branch else ""
    done = build(context=f"file://{top}/.git{ref}", name="failed:1", check=False)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("sysbox: ")]
    assert errors, done.stderr
    return errors[0]


def test_a_submodule_of_the_host(build: Builds, tmp_path: Path) -> None:
    """A repository cannot have the host's own repositories put into the context (CVE-2022-39253)."""
    private = tmp_path / "private"
    commit = repository(private, file="of the host\n")
    text = "FROM busybox:test\nCOPY . /got\nRUN cat /got/m/file\n"
    hostile = tmp_path / "hostile"
    repository(hostile, {"m": (f"file://{private}", commit)}, Containerfile=text)
    done = build(context=f"file://{hostile}/.git", name="failed:1", check=False)
    assert done.returncode == 1
    assert "git: fatal: transport 'file' not allowed" in done.stderr
    assert "of the host" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("address", "error"),
    [
        pytest.param("file://{}/.git#--upload-pack=touch made", "is not a branch", id="option"),
        pytest.param("ext::sh -c touch% made .git", "no such file or directory", id="ext"),
        pytest.param("ssh://-oProxyCommand=touch%20made/x.git", "git: fatal: ", id="ssh"),
        pytest.param("file://{}/.git#:link", "leads out", id="link"),
        pytest.param("file://{}/.git#:../..", "leads out of", id="up"),
    ],
)
def test_addresses_of_repositories(build: Builds, tmp_path: Path, address: str, error: str) -> None:
    """No part of an address is an option of git's, a program, or a way out of the repository."""
    top = tmp_path / "repository"
    repository(top, Containerfile="FROM busybox:test\n")
    (top / "link").symlink_to(tmp_path)
    git(top, "add", ".")
    git(top, "commit", "--quiet", "-m", "link")
    done = build(context=address.format(top), name="failed:1", check=False)
    assert done.returncode in (1, 125), done.stdout + done.stderr
    assert error in done.stderr
    assert not list(tmp_path.rglob("made"))
    assert not Path("made").exists()


def test_a_repository_that_grows_without_end(build: Builds, tmp_path: Path) -> None:
    """A few objects can have a million files (a tree that is a hundred times in each of several trees)."""
    top = tmp_path / "repository"
    repository(top)

    def commit(branch: str, tree: str) -> None:
        git(top, "update-ref", f"refs/heads/{branch}", git(top, "commit-tree", tree, input=""))

    blob = git(top, "hash-object", "-w", "--stdin", input="FROM busybox:test\n")
    lines = [f"100644 blob {blob}\tf{n}\n" for n in range(100)]
    tree = git(top, "mktree", input="".join(lines))
    lines = [f"040000 tree {tree}\td{n}\n" for n in range(100)]
    commit("bomb", git(top, "mktree", input="".join(lines)))
    with configured("ContextFiles=5000"):
        assert "more than 5000 files" in refused(build, top, "bomb")
    large = "".join(f"{n}\n" for n in range(300_000))
    blob = git(top, "hash-object", "-w", "--stdin", input=large)
    commit("large", git(top, "mktree", input=f"100644 blob {blob}\tf\n"))
    with configured("FetchSize=1m"):
        assert "1048576 bytes" in refused(build, top, "large")


def test_submodules_and_theirs(build: Builds, tmp_path: Path, served: str) -> None:
    """All are in the context, but for one that its repository says is not wanted."""
    inner = repository(tmp_path / "inner", file="of the inner one\n")
    modules = {"a dir/inner": (f"{served}/inner", inner)}
    outer = repository(tmp_path / "outer", modules, file="of the outer one\n")
    top = tmp_path / "top"
    repository(
        top,
        {"outer": (f"{served}/outer", outer), "none": (NOBODY, outer)},
        Containerfile="FROM busybox:test\nCOPY . /got\n"
        "RUN cat /got/outer/file '/got/outer/a dir/inner/file' > /seen\n",
    )
    git(top, "config", "-f", ".gitmodules", "submodule.none.update", "none")
    git(top, "add", ".gitmodules")
    git(top, "commit", "--quiet", "-m", "none")
    build(context=f"file://{top}/.git")
    assert build.run("cat", "/seen") == "of the outer one\nof the inner one\n"
    assert build.run("ls", "/got/none") == ""


def test_submodules_without_end(build: Builds, tmp_path: Path) -> None:
    """Their number is known, and refused, before one of them is fetched."""
    top = tmp_path / "top"
    modules = {f"m{n}": (NOBODY, "1" * 40) for n in range(501)}
    repository(top, modules, Containerfile="FROM busybox:test\n")
    assert refused(build, top).endswith(": more than 500 submodules")


def test_submodules_of_submodules_without_end(build: Builds, tmp_path: Path, served: str) -> None:
    commit = repository(tmp_path / "9")
    for n in reversed(range(9)):
        modules = {"m": (f"{served}/{n + 1}", commit)}
        commit = repository(tmp_path / str(n), modules, Containerfile="FROM busybox:test\n")
    assert refused(build, tmp_path / "0").endswith(": submodules that are more than 8 deep")
    build(context=f"file://{tmp_path}/1/.git")


@pytest.mark.parametrize("bound", ["ContextFiles=50", "FetchSize=40k"])
def test_the_files_of_submodules_count(
    build: Builds, tmp_path: Path, served: str, bound: str
) -> None:
    """Together with those of the others, and before they are written."""
    files = {f"f{n}": f"{n}" * 500 for n in range(30)}
    commit = repository(tmp_path / "module", **files)
    one, two = ((f"{served}/module", commit) for _ in range(2))
    top = tmp_path / "top"
    repository(top, {"one": one, "two": two}, Containerfile="FROM busybox:test\n")
    with configured(bound):
        assert "more than " in refused(build, top)
    git(top, "rm", "--quiet", "two")
    git(top, "commit", "--quiet", "-m", "one")
    with configured(bound):
        build(context=f"file://{top}/.git")
