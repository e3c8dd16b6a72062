"""What a step depends on: with anything else it is not taken from the cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import Builds, cleaned
from lane import Sysbox

pytestmark = pytest.mark.usefixtures("image")


@pytest.fixture
def build(sysbox: Sysbox, tmp_path: Path) -> Iterator[Builds]:
    with cleaned(sysbox, tmp_path) as builds:
        yield builds


def cached(build: Builds, text: str, *flags: str) -> int:
    """How many steps of a Containerfile come from the cache."""
    build.write(text)
    return build(*flags).stderr.count("CACHED")


def all_differ(build: Builds, texts: list[str]) -> None:
    """None of some Containerfiles with one step has the step of another one."""
    for text in texts:
        assert cached(build, text) == 0, text
    for text in texts:
        assert cached(build, text) == 1, text


def test_what_a_run_depends_on(build: Builds) -> None:
    """Its words, variables, user, directory, network, shell, here-documents, mounts and what they show."""
    base = "FROM busybox:test\n"
    file = build.context / "file"
    file.write_text("1")
    mount = "RUN --mount=type=bind,source=file,target=/m true\n"
    all_differ(
        build,
        [
            f"{base}RUN true\n", f"{base}RUN true # else\n", f'{base}RUN ["true"]\n',
            f"{base}ENV A=1\nRUN true\n", f"{base}ENV A=2\nRUN true\n", f"{base}ARG A=1\nRUN true # arg\n",
            f"{base}ARG A=2\nRUN true # arg\n", f"{base}USER 5\nRUN true\n", f"{base}USER 6\nRUN true\n",
            f"{base}WORKDIR /bin\nRUN true\n", f"{base}RUN --network=none true\n", f"{base}{mount}",
            f'{base}SHELL ["/bin/ash", "-c"]\nRUN true\n', f"{base}RUN --mount=type=tmpfs,target=/m true\n",
            f"{base}RUN <<E\necho 1\nE\n", f"{base}RUN <<E\necho 2\nE\n",
            f"{base}WORKDIR /w\n", f"{base}USER 5\nWORKDIR /w\n", f"{base}USER 6\nWORKDIR /w\n",
        ],
    )  # fmt: skip
    file.write_text("2")
    assert cached(build, f"{base}{mount}") == 0
    privileged = f"{base}RUN --security=insecure true\n"
    assert cached(build, privileged, "--allow", "security.insecure") == 0


def test_what_a_step_is_made_on(build: Builds) -> None:
    """The layers below."""
    for text in ("one", "two"):
        build.write(f"FROM busybox:test\nRUN echo {text} > /base\n")
        build(name=f"built:{text}")
    (build.context / "file").touch()
    steps = "COPY file /c\nWORKDIR /made\nRUN cat /base > /copy\n"
    for name in ("one", "two"):
        assert cached(build, f"FROM built:{name}\n{steps}") == 0
        assert build.run("cat", "/copy") == f"{name}\n"


def test_what_a_copy_depends_on(build: Builds) -> None:
    """Where it goes, owners, modes, exclusions, here-documents, content and modes of files."""
    base = "FROM busybox:test\n"
    build.write(base, d__a="1", d__b="2")
    all_differ(
        build,
        [
            f"{base}COPY d /x\n", f"{base}COPY d /y\n", f"{base}WORKDIR /bin\nCOPY d x\n",
            f"{base}WORKDIR /etc\nCOPY d x\n", f"{base}COPY --chown=5 d /x\n", f"{base}COPY --chown=6 d /x\n",
            f"{base}COPY --chmod=700 d /x\n", f"{base}COPY --chmod=750 d /x\n",
            f"{base}COPY --exclude=a d /x\n", f"{base}COPY --parents d/a /x/\n", f"{base}ADD d /x\n",
            f"{base}COPY d/a /x\n", f"{base}COPY <<E /x\n1\nE\n", f"{base}COPY <<E /x\n2\nE\n",
        ],
    )  # fmt: skip
    (build.context / "d/b").write_text("3")
    assert cached(build, f"{base}COPY d /x\n") == 0
    (build.context / "d/b").chmod(0o600)
    assert cached(build, f"{base}COPY d /x\n") == 0
    assert cached(build, f"{base}COPY --exclude=b d /x\n") == 0
    (build.context / "d/b").write_text("4")
    assert cached(build, f"{base}COPY --exclude=b d /x\n") == 1
