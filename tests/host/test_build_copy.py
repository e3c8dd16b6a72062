"""COPY and ADD: where things go, what they have, archives and URLs, and what may not be copied."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import Builds, serving
from lane import SYSBOX, Sysbox

pytestmark = pytest.mark.usefixtures("image")


@pytest.fixture
def build(sysbox: Sysbox, tmp_path: Path) -> Iterator[Builds]:
    """Builds of a context of its own; their images, and the cache, are removed."""
    context = tmp_path / "context"
    context.mkdir()
    yield Builds(sysbox, context)
    sysbox("rmi", "-f", "built:1")
    sysbox("image", "prune", "-f", check=True)
    sysbox("builder", "prune", "-af", check=True)
    sysbox("gc", check=True)


def listed(build: Builds, *paths: str) -> list[str]:
    """Mode, owner and path of everything below some paths of the image."""
    script = f"find {' '.join(paths)} | sort | xargs stat -c '%a %u:%g %n'"
    return build.run("sh", "-c", script).splitlines()


def test_where_things_go(build: Builds) -> None:
    """Files become the destination or go into it, of directories the content does."""
    build.write(
        """
        FROM busybox:test
        RUN mkdir -p /there /real && ln -s real /link && ln -s /real/target /final
        COPY a /new/name
        COPY a /there
        COPY a /slash/
        COPY a b /two/
        COPY d /dir
        COPY d /there/
        COPY [a-b] d/in* /wild/
        COPY a /link/a
        COPY b /final
        WORKDIR /w
        COPY a .
        COPY a rel/name
        """,
        a="A", b="B", d__inner="I", d__deep__file="F",
    )  # fmt: skip
    build()
    found = build.run("sh", "-c", "cd / && find new there slash two dir wild real w -type f | sort")
    assert found.split() == sorted(
        "new/name there/a there/inner there/deep/file slash/a two/a two/b dir/inner dir/deep/file wild/a "
        "wild/b wild/inner real/a real/target w/a w/rel/name".split()
    )
    assert build.run("cat", "/real/target", "/final") == "BB"


def test_several_sources_need_a_directory(build: Builds) -> None:
    build.write("FROM busybox:test\nCOPY a b /none\n", a="A", b="B")
    error = build.fails()
    assert "Containerfile:2:1: COPY: /none: is no directory, and there are 2 sources" in error
    assert "end the destination with a slash" in error


def test_owners_and_modes(build: Builds) -> None:
    build.write(
        """
        FROM busybox:test
        RUN echo 'app:x:70:71::/:/bin/sh' >> /etc/passwd && echo 'staff:x:72:' >> /etc/group
        COPY d /plain
        COPY --chown=app d /named
        COPY --chown=app:staff d /both
        COPY --chown=5 d /number
        COPY --chmod=640 a /mode
        COPY --chmod=u=rwX,go=rX d /symbolic
        """,
        a="a", d__x="x",
    )  # fmt: skip
    (build.context / "d").chmod(0o750)
    (build.context / "d/x").chmod(0o600)
    os.chown(build.context / "d/x", 1234, 1234)
    build()
    assert listed(build, "/plain", "/named", "/both", "/number", "/mode", "/symbolic") == sorted(
        [
            "750 0:0 /plain", "600 0:0 /plain/x", "750 70:71 /named", "600 70:71 /named/x",
            "750 70:72 /both", "600 70:72 /both/x", "750 5:5 /number", "600 5:5 /number/x",
            "640 0:0 /mode", "755 0:0 /symbolic", "644 0:0 /symbolic/x",
        ],
        key=lambda line: line.split()[2],
    )  # fmt: skip


def test_ignored_and_excluded(build: Builds) -> None:
    build.write(
        "FROM busybox:test\nCOPY . /all/\nCOPY --exclude=*.log --exclude=deep/** d /less/\n",
        keep="1", drop__a="1", drop__kept="1", secret__key="1", d__a="1", d__b__log="1",
        d__deep__x="1",
    )  # fmt: skip
    (build.context / "d/c.log").write_text("1")
    (build.context / ".dockerignore").write_text(
        "# comment\ndrop\n!drop/kept\n**/key\n.dockerignore\n"
    )
    build()
    found = build.run("sh", "-c", "cd / && find all less -type f | sort").split()
    assert found == sorted(
        "all/Containerfile all/d/a all/d/b/log all/d/c.log all/d/deep/x all/drop/kept all/keep less/a "
        "less/b/log".split()
    )
    build.write("FROM busybox:test\nCOPY secret/key /\n")
    assert "secret/key: the ignore file leaves it out" in build.fails()


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        entry = tarfile.TarInfo("top/file")
        entry.size, entry.uid, entry.gid, entry.mode = 4, 9, 9, 0o604
        made.addfile(entry, io.BytesIO(b"tar\n"))
    data = buffer.getvalue()
    compress = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}
    return compress[kind](data) if kind else data


@pytest.mark.parametrize("kind", ["", "gz", "xz", "bz2"], ids=["plain", "gzip", "xz", "bzip2"])
def test_archives_are_unpacked(build: Builds, kind: str) -> None:
    build.write(
        "FROM busybox:test\nADD a.tar /unpacked/\nCOPY a.tar /kept\nADD --chown=3 text /t\n",
        text="t",
    )
    (build.context / "a.tar").write_bytes(archive(kind))
    build()
    assert listed(build, "/unpacked/top/file", "/t") == [
        "644 3:3 /t", "604 9:9 /unpacked/top/file",
    ]  # fmt: skip
    assert build.run("cat", "/unpacked/top/file") == "tar\n"


def test_a_hostile_archive(build: Builds) -> None:
    """A name that leads out is refused; a link in the archive leads within the image's root."""
    build.write("FROM busybox:test\nADD a.tar /d/\n")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        made.addfile(tarfile.TarInfo("../../out"))
    (build.context / "a.tar").write_bytes(buffer.getvalue())
    assert "leads out of the destination" in build.fails()
    buffer = io.BytesIO()
    target = build.context.parent / "decoy"
    target.mkdir()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(target)
        made.addfile(link)
        made.addfile(tarfile.TarInfo("link/file"))
    (build.context / "a.tar").write_bytes(buffer.getvalue())
    build(check=False)
    assert list(target.iterdir()) == []


def test_urls(build: Builds, tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (served / "file.txt").write_text("web\n")
    (served / "a.tar").write_bytes(archive("gz"))
    with serving(served) as address:
        build.write(
            "FROM busybox:test\n"
            f"ADD {address}/file.txt {address}/a.tar /got/\nADD {address}/file.txt /named\n"
        )
        build()
        assert build.run("cat", "/got/file.txt", "/named") == "web\nweb\n"
        assert listed(build, "/got") == [
            "755 0:0 /got",
            "600 0:0 /got/a.tar",
            "600 0:0 /got/file.txt",
        ]
        wrong = f"sha256:{'0' * 64}"
        build.write(f"FROM busybox:test\nADD --checksum={wrong} {address}/file.txt /x\n")
        assert "its digest is sha256:" in build.fails()


def test_sources_out_of_the_context(build: Builds) -> None:
    decoy = build.context.parent / "decoy"
    decoy.mkdir()
    (decoy / "file").write_text("of the host")
    (build.context / "absolute").symlink_to(decoy / "file")
    (build.context / "relative").symlink_to("../decoy")
    (build.context / "d").mkdir()
    (build.context / "d/link").symlink_to(decoy)
    (build.context / "ok").symlink_to("d")
    for source in ("../decoy/file", "absolute", "relative/file", "d/link/file"):
        build.write(f"FROM busybox:test\nCOPY {source} /x\n")
        error = build.fails()
        assert "leads out of the build context" in error, source
        assert "Containerfile:2" in error
    build.write("FROM busybox:test\nCOPY missing /x\n")
    assert "missing: not in the build context" in build.fails()
    build.write("FROM busybox:test\nCOPY no*thing /x\n")
    assert "nothing in the build context matches" in build.fails()
    # below a source a link is copied as one; a link within the context is followed
    build.write("FROM busybox:test\nCOPY ok /copied\n")
    build()
    assert build.run("readlink", "/copied/link") == f"{decoy}\n"


def test_a_hostile_base(build: Builds) -> None:
    """Links of the image at the destination lead within it, never to the host."""
    decoy = build.context.parent / "decoy"
    decoy.mkdir()
    build.write(
        f"""
        FROM busybox:test
        RUN ln -s {decoy} /out && ln -s ../../../../../../../../{decoy} /up && ln -s /proc/self/cwd /cwd && \\
            mkdir -p {decoy} && ln -s {decoy}/f /file
        COPY a /out/a
        COPY a /up/b
        COPY a /file
        WORKDIR /out/work
        RUN touch here
        """,
        a="a",
    )
    build()
    assert list(decoy.iterdir()) == []
    assert build.run("sh", "-c", f"cd {decoy} && find . -type f | sort").split() == [
        "./a", "./b", "./f", "./work/here",
    ]  # fmt: skip


def test_contexts(build: Builds, tmp_path: Path) -> None:
    """An archive and a Containerfile on standard input."""
    text = "FROM busybox:test\nRUN echo alone > /x\n"
    words = [SYSBOX, "build", "-t", "built:1"]
    subprocess.run([*words, "-"], input=text.encode(), capture_output=True, check=True, timeout=60)
    assert build.run("cat", "/x") == "alone\n"
    build.write("FROM busybox:test\nCOPY a /x\n", a="tar")
    packed = subprocess.run(
        ["tar", "-C", build.context, "-cz", "."], capture_output=True, check=True
    )
    subprocess.run([*words, "-"], input=packed.stdout, capture_output=True, check=True, timeout=60)
    assert build.run("cat", "/x") == "tar"
    subprocess.run(
        [*words, "-f", "-", build.context], input=b"FROM busybox:test\nCOPY a /y\n", capture_output=True,
        check=True, timeout=60,
    )  # fmt: skip
    assert build.run("cat", "/y") == "tar"


def test_outputs(build: Builds, tmp_path: Path) -> None:
    build.write("FROM scratch\nCOPY d /\n", d__file="x", d__e__f="y")
    out = tmp_path / "out"
    build("--output", f"type=local,dest={out}")
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == ["e", "e/f", "file"]
    build("--output", f"type=tar,dest={tmp_path}/out.tar")
    with tarfile.open(tmp_path / "out.tar") as made:
        assert sorted(made.getnames()) == ["e", "e/f", "file"]
    build("--output", f"type=oci,dest={tmp_path}/image.tar")
    done = build.sysbox("load", "-i", f"{tmp_path}/image.tar", check=True)
    assert "Loaded image" in done.stdout
