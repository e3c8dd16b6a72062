"""Two dozen Containerfiles, each about one part of the syntax, and what their images have.

`tools/build-peers.sh` keeps what Debian's buildah and docker make of them in tests/docker/builds.
"""

from __future__ import annotations

import hashlib
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

BASE = "busybox:test"
CLASSIC, BUILDKIT, BUILDAH = "docker", "buildkit", "buildah"
PEERS = (CLASSIC, BUILDKIT, BUILDAH)
_LATER: tuple[str, ...] = ()  # syntax that is newer than Debian 12's versions of all three


class Case(NamedTuple):
    """One build."""

    text: str  # the Containerfile
    files: Mapping[str, str] = {}  # path in the context -> content
    flags: tuple[str, ...] = ()  # of all of them
    peers: tuple[str, ...] = PEERS  # who knows this syntax
    links: Mapping[str, str] = {}  # path of a symbolic link in the context -> its target


CASES = {
    "from": Case("FROM busybox:test\n"),
    "scratch": Case("FROM scratch\nCOPY a /a\n", {"a": "alone"}),
    "run-forms": Case(
        """FROM busybox:test
RUN echo shell > /shell && \\
    # a comment in between
    echo more >> /shell
RUN ["/bin/sh", "-c", "echo \\"exec\\" > /exec"]
RUN echo 'single $HOME' "double $HOME" > /quotes
"""
    ),
    "shell": Case(
        """FROM busybox:test
SHELL ["/bin/sh", "-ec"]
RUN false || true; echo "$0" > /shell
CMD echo hello
ENTRYPOINT exec cat
"""
    ),
    "env": Case(
        """FROM busybox:test
ENV A=1 B="two words" C=three\\ words D='$A'
ENV OLD the rest  of it
ENV A=2 E=$A F=${A}x G=${UNSET:-default} H=${A:+set} I=\\$A
ENV PATH=$PATH:/opt/bin
RUN env | grep -E '^([A-I]|OLD)=' | sort > /env
"""
    ),
    "quotes": Case(
        r"""FROM busybox:test
ENV A=b\ c B='x"y' C="it's" D=a'b'c"d" E="\$x" F=\\x G="a\b" H='$A' I="" J='' K=a\"b
ENV L $A "kept" 'quotes'
ENV M=${A}${B:+-} N=$A$A O=$ P="$" Q=a$ R=$(id) T=${NONE:-$A}
LABEL a=\$A b="$A" c='$A' "d e"=f g=${A:-x}y
WORKDIR "/with space/$A"
CMD ["\"$A\"", "\\", "é"]
"""
    ),
    "arg": Case(
        """ARG TAG=test
FROM busybox:$TAG
ARG TAG
ARG GIVEN=default
ARG LEFT=default
ARG UNSET
ENV FROM_ARG=$GIVEN
RUN echo "$TAG $GIVEN $LEFT [$UNSET]" > /args
LABEL given=$GIVEN left=$LEFT
""",
        flags=("--build-arg", "GIVEN=given"),
    ),
    "label": Case(
        """FROM busybox:test
LABEL one=1 "two.three"="4 5" \\
      six='7 8'
LABEL one=other
LABEL empty=
MAINTAINER Somebody <some@example.org>
"""
    ),
    "workdir": Case(
        """FROM busybox:test
WORKDIR /a
WORKDIR b/../c
WORKDIR d
RUN pwd > where
ENV BASE=/from/env
WORKDIR $BASE/$NOTHING
RUN pwd > where
"""
    ),
    "user": Case(
        """FROM busybox:test
RUN echo 'app:x:1500:1501::/:/bin/sh' >> /etc/passwd && mkdir -m 777 /w
USER app
RUN id -u > /w/name
USER 7:8
RUN id -u > /w/numbers && id -g >> /w/numbers
"""
    ),
    "expose-volume": Case(
        """FROM busybox:test
EXPOSE 80 53/udp 8000-8002
VOLUME /one /two
VOLUME ["/three"]
"""
    ),
    "entrypoint-cmd": Case(
        """FROM busybox:test AS base
CMD ["of", "the", "base"]
FROM base
ENTRYPOINT ["/bin/echo"]
"""
    ),
    "cmd-after": Case(
        """FROM busybox:test
ENTRYPOINT ["/bin/echo"]
CMD ["-n", "x"]
"""
    ),
    "healthcheck": Case(
        """FROM busybox:test
HEALTHCHECK --interval=5m --timeout=3s --retries=4 --start-period=1s CMD wget -q localhost || exit 1
STOPSIGNAL SIGUSR1
"""
    ),
    "healthcheck-none": Case("FROM busybox:test\nHEALTHCHECK NONE\n"),
    "copy-files": Case(
        """FROM busybox:test
RUN mkdir /there
COPY a /file
COPY a /there
COPY a /made/
COPY a b /two/
COPY *.txt sub?/x /wild/
COPY ["with space", "/json/with space"]
""",
        {
            "a": "A", "b": "B", "1.txt": "1", "2.txt": "2", "sub1/x": "X", "sub22/x": "no",
            "with space": "S",
        },
    ),
    "copy-directories": Case(
        """FROM busybox:test
RUN mkdir -p /have/inner && echo old > /have/inner/f && echo kept > /have/kept
COPY d /new
COPY d /have
COPY d/inner /slash/
COPY . /all/
""",
        {"d/inner/f": "F", "d/top": "T"},
    ),
    "copy-links": Case(
        """FROM busybox:test
RUN mkdir /real && ln -s /real /link && ln -s real /relative
COPY a /link/a
COPY a /relative/b
COPY d /d
""",
        {"a": "A", "d/target": "T"},
        links={"d/pointer": "target", "d/dangling": "nowhere"},
    ),
    "copy-owner": Case(
        """FROM busybox:test
RUN echo 'app:x:70:71::/:/bin/sh' >> /etc/passwd && printf 'app:x:71:\\nstaff:x:72:\\n' >> /etc/group
COPY --chown=app a /user
COPY --chown=app:staff d /names
COPY --chown=5:6 d /numbers
COPY --chown=9 a /number
""",
        {"a": "A", "d/x": "X"},
    ),
    "copy-mode": Case(
        "FROM busybox:test\nCOPY --chmod=0640 a /a\nADD --chmod=750 a /b\n",
        {"a": "A"},
        peers=(BUILDKIT, BUILDAH),
    ),
    "stages": Case(
        """FROM busybox:test AS first
RUN mkdir /out && echo built > /out/x && chown 3:4 /out/x && chmod 600 /out/x
FROM busybox:test AS second
COPY --from=first /out /copied
RUN echo second > /second
FROM busybox:test
COPY --from=0 /out/x /by-number
COPY --from=second /copied/x /second /by-name/
COPY --from=busybox:test /etc/passwd /by-image
"""
    ),
    "target": Case(
        """FROM busybox:test AS one
RUN echo one > /one
FROM one AS two
RUN echo two > /two
FROM two AS three
RUN exit 1
""",
        flags=("--target", "two"),
    ),
    "onbuild": Case(
        """FROM busybox:test AS base
ONBUILD COPY a /triggered
ONBUILD RUN echo ran > /ran
ONBUILD ENV TRIGGERED=yes
FROM base
RUN test -e /ran && echo after > /after
""",
        {"a": "A"},
    ),
    "add-archive": Case(
        "FROM busybox:test\nADD a.tar /unpacked/\nADD a /plain\nCOPY a.tar /packed\n", {"a": "A"}
    ),
    "ignored": Case(
        "FROM busybox:test\nCOPY . /c/\n",
        {
            ".dockerignore": "# comment\n*.log\n!keep.log\nsub/*\n!sub/keep\n**/deep\n.dockerignore\n",
            "a": "A", "x.log": "no", "keep.log": "yes", "sub/no": "no", "sub/keep": "yes",
            "p/q/deep/no": "no", "p/q/yes": "yes",
        },
    ),
    "removed": Case(
        """FROM busybox:test
RUN mkdir /d && echo 1 > /d/a && echo 2 > /d/b && rm /etc/group
RUN rm /d/a && rm -r /home && mkdir /home && touch /home/new
"""
    ),
    "mounts": Case(
        """FROM busybox:test AS one
RUN mkdir /from && echo stage > /from/file
FROM busybox:test
RUN --mount=type=bind,target=/context --mount=type=bind,from=one,source=/from,target=/stage \\
    --mount=type=tmpfs,target=/scratch cat /context/a /stage/file > /read && touch /scratch/x
RUN --mount=type=cache,target=/cache touch /cache/kept
""",
        {"a": "A\n"},
        peers=(BUILDKIT, BUILDAH),
    ),
    "escape": Case(
        "# escape=`\nFROM busybox:test\nRUN echo a `\n    b\\n > /x\nENV A=`$HOME B=c:\\d\n"
    ),
    # newer than what Debian 12 has of any of them
    "here-documents": Case(
        """FROM busybox:test
ARG name=you
RUN <<EOF
echo one > /one
echo $name >> /one
EOF
COPY <<PLAIN <<"QUOTED" /docs/
for $name
PLAIN
for $name
QUOTED
RUN cat <<ONE > /cat && cat <<-TWO >> /cat
1
ONE
\t2
\tTWO
""",
        peers=_LATER,
    ),
    "exclude-parents": Case(
        "FROM busybox:test\nCOPY --exclude=*.log --exclude=e/** d /d\nCOPY --parents x/./y/*.txt /p/\n",
        {"d/a": "A", "d/b.log": "no", "d/e/f": "no", "x/y/1.txt": "1", "x/y/2": "no"},
        peers=_LATER,
    ),
}  # fmt: skip


def write_context(case: Case, directory: Path) -> None:
    """The Containerfile (as Dockerfile, which all of them look for) and the files of a case."""
    (directory / "Dockerfile").write_text(case.text)
    for name, content in case.files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o644)
    for name, target in case.links.items():
        (directory / name).symlink_to(target)
    if "a.tar" in case.text:
        with tarfile.open(directory / "a.tar", "w") as archive:
            entry = tarfile.TarInfo("top/empty")
            entry.uid, entry.gid, entry.mode = 9, 9, 0o604
            archive.addfile(entry)
        (directory / "a.tar").chmod(0o644)


def listing(root: Path) -> dict[str, str]:
    """Each entry of a tree: its type and mode, its owner, its target or a digest of its content."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        what = ""
        if stat.S_ISLNK(status.st_mode):
            what = f"-> {path.readlink()}"
        elif stat.S_ISREG(status.st_mode):
            what = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        words = (stat.filemode(status.st_mode), f"{status.st_uid}:{status.st_gid}", what)
        found[str(path.relative_to(root))] = " ".join(filter(None, words))
    return found


def changes(tree: dict[str, str], base: dict[str, str]) -> dict[str, str]:
    """What a tree has otherwise than its base; "" is what it lacks."""
    found = {name: text for name, text in tree.items() if base.get(name) != text}
    return {**found, **{name: "" for name in base if name not in tree}}
