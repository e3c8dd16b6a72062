"""What users of docker build, buildx and podman type: done, or refused with what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import Builds, cleaned
from lane import Sysbox
from registryserver import Registry, program

from sysbox.base.paths import IMAGES

pytestmark = pytest.mark.usefixtures("image")


@pytest.fixture
def build(sysbox: Sysbox, tmp_path: Path) -> Iterator[Builds]:
    with cleaned(sysbox, tmp_path) as builds:
        yield builds


def test_outputs_beside_each_other(build: Builds, tmp_path: Path) -> None:
    build.write("FROM busybox:test\nCOPY a /a\n", a="A")
    out, metadata = tmp_path / "out", tmp_path / "metadata.json"
    build("--output", f"type=local,dest={out}")
    assert (out / "a").read_text() == "A"
    assert build.sysbox("image", "exists", "built:1").returncode == 1
    done = build(
        "--load", "-o", f"type=docker,dest={tmp_path}/a.tar", "--metadata-file", str(metadata),
        "--provenance=false", "--sbom=false", "--builder", "mine", "--compress", "--cache-from",
        "type=registry,ref=quay.io/a/cache", "-o", "type=image,name=built:2",
    )  # fmt: skip
    assert "sysbox: ignoring --cache-from type=registry,ref=quay.io/a/cache: " in done.stderr
    assert build.run("cat", "/a", name="built:2") == "A"
    found = json.loads(metadata.read_text())
    manifest = Path(IMAGES, "blobs", found.pop("containerimage.digest").replace(":", "/"))
    assert json.loads(manifest.read_text())["config"]["digest"] == build.id()
    assert found == {
        "containerimage.config.digest": build.id(),
        "image.name": "docker.io/library/built:1,docker.io/library/built:2",
    }
    assert "Loaded image" in build.sysbox("load", "-i", tmp_path / "a.tar", check=True).stdout
    assert build("-o", "type=cacheonly").stdout == ""


@pytest.mark.skipif(program() is None, reason="docker-registry is not unpacked")
@pytest.mark.parametrize(
    "flags",
    [("--push",), ("-o", "type=registry"), ("-o", "type=image,push=true")],
    ids=["push", "registry", "image"],
)
def test_push(build: Builds, sysbox: Sysbox, registry: Registry, flags: tuple[str, ...]) -> None:
    """Under each name; standard output has the id alone."""
    build.write("FROM busybox:test\nCOPY a /a\n", a="A")
    names = [f"{registry.host}/built/pushed:{tag}" for tag in ("1", "2")]
    done = build(*flags, "-t", names[1], name=names[0])
    image = build.id(names[0])
    assert done.stdout == f"{image}\n"
    assert done.stderr.count("digest: sha256:") == 2
    sysbox("rmi", "-f", *names, check=True)
    sysbox("pull", names[1], check=True)
    assert build.id(names[1]) == image
    sysbox("rmi", "-f", names[1], check=True)


REFUSED = {
    "--push": "sysbox: --push: the image has no name\nsysbox: give one: -t REGISTRY/NAME:TAG",
    "--platform linux/amd64,linux/arm64": "one platform at a time",
    "-o type=local,dest=/dev/null": "--output /dev/null: is not a directory",
    "--progress tty": "--progress tty: standard error is no terminal",
    "--cache-to type=inline": "--cache-to is not supported yet",
    "--provenance": "no attestations are made",
    "--attest type=sbom": "no attestations are made: leave it out",
    "--build-context a=oci-layout:///x": "`sysbox load -i DIRECTORY`, then docker-image://NAME",
    "--build-context a=s3://x": "these work: http://, https://",
    "-o type=image,compression=zstd": "compression= is not known for type=image",
    "--arch arm64": "`--platform` says for which machine",
    "--cgroup-parent x.slice": "steps are in sysbox-build.slice",
    "ftp://h/context": "is an address that nothing here fetches",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused(sysbox: Sysbox, tmp_path: Path, line: str) -> None:
    """Before anything is built, and with what to do."""
    (tmp_path / "Containerfile").write_text("FROM busybox:test\nRUN exit 3\n")
    place = [] if "://h" in line else [str(tmp_path)]
    done = sysbox("build", *line.split(), *place)
    assert done.returncode == 1
    assert REFUSED[line].split("\n")[0].removeprefix("sysbox: ") in done.stderr, done.stderr
    assert "did you mean" not in done.stderr
    assert "exit status" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_buildx(sysbox: Sysbox) -> None:
    done = sysbox("buildx", "build", ".")
    assert (done.returncode, done.stderr.count("`sysbox build`")) == (1, 1)


def test_from_a_directory(build: Builds, tmp_path: Path) -> None:
    """A named context is the root of a stage, or what COPY --from copies from; its ignore file counts."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc/name").write_text("of the directory\n")
    (root / "secret").write_text("x")
    (root / ".dockerignore").write_text("secret\n.dockerignore\n")
    build.write(
        """
        FROM base
        COPY --from=busybox:test /bin/busybox /bin/sh
        COPY --from=base etc/name /copied
        RUN echo run > /run-made
        FROM busybox:test
        COPY --from=0 / /all
        """
    )
    flags = ("--build-context", f"base={root}")
    build(*flags)
    found = build.run("sh", "-c", "cd /all && find . -type f | sort | xargs stat -c '%u %n'")
    names = [line for line in found.splitlines() if "bin/" not in line]
    assert names == ["0 ./copied", "0 ./etc/name", "0 ./run-made"]
    assert build(*flags).stderr.count("CACHED") == 5
    (root / "etc/name").write_text("another\n")
    build(*flags)
    assert build.run("cat", "/all/etc/name") == "another\n"
    build.write("FROM base\n")
    build(*flags)
    created = ("history", "--no-trunc", "--format", "{{.CreatedBy}}", "built:1")
    assert build.sysbox(*created, check=True).stdout == "FROM base\n"
    (root / "etc/name").unlink()
    (root / "etc").rmdir()
    (root / "etc").symlink_to("/etc")
    build.write("FROM base\nCOPY --from=base etc/passwd /x\n")
    assert "Containerfile:2:1: COPY: etc/passwd: leads out of the build context" in build.fails(
        *flags
    )


def test_another_image(build: Builds) -> None:
    """docker-image:// puts one in the place of a name, for FROM and --from=."""
    build.write("FROM busybox:test\nRUN echo base > /base\n")
    build(name="built:base")
    build.write("FROM nowhere AS one\nFROM one\nCOPY --from=nowhere /base /copied\n")
    build("--build-context", "nowhere=docker-image://built:base")
    assert build.run("cat", "/base", "/copied") == "base\nbase\n"


def test_a_name_before_an_id(build: Builds) -> None:
    """What an image's id begins with is no base, but as `images` shows it: its maker chooses the digits."""
    build.write("FROM busybox:test\nRUN echo base > /base\n")
    build(name="built:base")
    digits = build.id("built:base").removeprefix("sha256:")
    build.write(f"FROM {digits[:8]}\n")
    assert f"Containerfile:1:1: FROM {digits[:8]}: no such image" in build.fails("--pull=never")
    build.write(f"FROM {digits[:12]}\nRUN cat /base\n")
    build("--pull=never")
    assert build.sysbox("image", "exists", digits[:4]).returncode == 0
    assert build.sysbox("image", "exists", digits[:3]).returncode == 1
