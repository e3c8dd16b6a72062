"""PostgreSQL and redis as users of their own, on fresh volumes and on bind mounts: who owns their files.

The programs are those that tools/setup.sh unpacks; the image has their accounts, and the directories that
their own images have. Nobody on the host chowns anything.

In the guest: Linux 6.1 keeps the user namespace of a mount's map, later kernels copy the map; memory and the
end of a server are v2's. The programs are installed there.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import Container, Containers, eventually
from lane import FILES, SYSBOX, Sysbox, rootfs
from test_userns import stamps

from sysbox.base.paths import VOLUMES

SERVICES = Path(sys.prefix) / "test-services"  # unpacked by tools/setup.sh
UNPACKED = "/opt/services"  # where a container has them
# the guest has other programs there
if INSTALLED := not [*SERVICES.glob("usr/lib/postgresql/*/bin/postgres")]:
    SERVICES, UNPACKED = Path("/"), ""
IMAGE = "databases:test"
POSTGRES, REDIS = (101, 103), (102, 104)  # user and group
PGDATA, APPENDED = "/var/lib/postgresql/data", "/var/lib/redis"
TRIPLET = f"{os.uname().machine}-linux-gnu"
PROGRAMS = ("-v", "/usr:/usr:ro") if INSTALLED else (
    "-v", f"{SERVICES}:{UNPACKED}:ro", "-v", "/usr:/usr:ro",
    "-e", f"LD_LIBRARY_PATH={UNPACKED}/usr/lib/{TRIPLET}:{UNPACKED}/lib/{TRIPLET}",
)  # fmt: skip


def archive() -> bytes:
    """The usual small root, with the accounts and directories of both; programs are those of the machine."""
    buffer = io.BytesIO(rootfs(Path("/bin/busybox")))
    with tarfile.open(fileobj=buffer, mode="a") as root:
        for name, target in (("lib", "usr/lib"), ("lib64", "usr/lib64")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            root.addfile(entry)
        for name, (uid, gid), mode in (
            ("var/lib/postgresql", POSTGRES, 0o755),
            ("var/lib/postgresql/data", POSTGRES, 0o700),
            ("var/lib/redis", REDIS, 0o750),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, uid, gid
            root.addfile(entry)
        for name, more in (
            (
                "etc/passwd",
                "postgres:x:101:103::/var/lib/postgresql:/bin/sh\nredis:x:102:104::/:/bin/sh\n",
            ),
            ("etc/group", "postgres:x:103:\nredis:x:104:\n"),
        ):
            data = (FILES[name] + more).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            root.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def databases(requires: Any, image: str) -> Iterator[str]:
    """The name of the image."""
    found = [
        *SERVICES.glob("usr/lib/postgresql/*/bin/postgres"),
        *SERVICES.glob("usr/bin/redis-server"),
    ]
    requires(len(found) == 2, "PostgreSQL and redis, from tools/setup.sh test")
    words = [SYSBOX, "import", "-", IMAGE]
    subprocess.run(words, input=archive(), capture_output=True, check=True)
    yield IMAGE
    subprocess.run([SYSBOX, "rmi", "-f", IMAGE], capture_output=True, check=True)


@pytest.fixture
def volume(sysbox: Sysbox) -> Iterator[Path]:
    """The content of a new volume named database."""
    sysbox("volume", "create", "database", check=True)
    yield Path(VOLUMES) / "database/_data"
    sysbox("volume", "rm", "database", check=True)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty directory of root's."""
    made = tmp_path / "database"
    made.mkdir(mode=0o755)
    return made


Start = Callable[..., Container]


@pytest.fixture
def postgres(containers: Containers, databases: str) -> Start:
    """`postgres(FLAGS...)`: a server that answers, which has made its database as the user postgres.

    `before` is what root inside does first, `more` are further words for the server.
    """
    (programs,) = SERVICES.glob("usr/lib/postgresql/*/bin")
    place = f"{UNPACKED}/{programs.relative_to(SERVICES)}"
    serve = (
        f"test -s {PGDATA}/PG_VERSION || {place}/initdb -D {PGDATA} --no-locale -E UTF8 -A trust --no-sync;"
        f" exec {place}/postgres -D {PGDATA} -k /tmp -c jit=off -c timezone=UTC -c log_timezone=UTC"
    )

    def start(*flags: str, before: str = "", more: str = "") -> Container:
        script = f"{serve} {more}"
        command = (
            "sh",
            "-ec",
            f"{before}; exec /bin/su postgres -c '{script}'" if before else script,
        )
        user = ("-u", "root" if before else "postgres")
        made = containers(
            *PROGRAMS, "-e", f"PLACE={place}", *user, *flags, image=databases, command=command
        )
        # one `exec` that waits: initdb needs the CPU, and on a busy machine more than PATIENCE
        made.sh(f"until test -e {PGDATA}/postmaster.opts; do sleep 0.05; done")
        eventually(lambda: query(made, "select 1") == "1", "PostgreSQL answers")
        return made

    return start


def query(made: Container, text: str) -> str:
    """What psql prints of a query, or why it does not."""
    program = '$PLACE/psql -XAt -h /tmp -U postgres -d postgres -c "$1" 2>&1 || true'
    return made.exec("sh", "-c", program, "sh", text)


def store(made: Container) -> None:
    """Write, stop it gracefully, start it again, read."""
    assert query(made, "create table t as select generate_series(1, 1000) n") == "SELECT 1000"
    made("stop", "-t", "30")  # it writes to a disk that others use
    assert made.inspect("State.ExitCode") == 0
    made("start")
    eventually(lambda: query(made, "select sum(n) from t") == "500500", "it has what was written")


def owners(directory: Path) -> set[tuple[int, int]]:
    """Of everything below a directory, itself included, on disk."""

    def found() -> set[tuple[int, int]]:
        with contextlib.suppress(FileNotFoundError):  # a server removes files of its own
            return {(uid, gid) for uid, gid, _ in stamps(directory).values()}
        return set()

    return eventually(found, "no file goes meanwhile")


def users(made: Container) -> set[str]:
    """The users of its processes, as it sees them."""
    return {line.split()[0] for line in made("top").splitlines()[1:]}


def test_postgresql_on_a_fresh_volume(postgres: Start, volume: Path) -> None:
    """The volume takes the owner of the image's directory: 101's on disk as inside."""
    made = postgres("-v", f"database:{PGDATA}")
    assert users(made) == {"postgres"}
    store(made)
    assert owners(volume) == {POSTGRES}
    assert (volume / "PG_VERSION").exists()
    made("rm", "-f")


def test_postgresql_on_a_fresh_volume_of_its_user(postgres: Start, volume: Path) -> None:
    """With :U, root's on disk."""
    made = postgres("-v", f"database:{PGDATA}:U")
    store(made)
    assert owners(volume) == {(0, 0)}
    made("rm", "-f")


@pytest.mark.parametrize(
    ("mode", "owned"),
    [
        pytest.param("auto", (0, 0), id="auto-root"),
        pytest.param("auto", (1000, 1001), id="auto-user"),
        pytest.param("host", (0, 0), id="host-root"),
        pytest.param("host", (1000, 1001), id="host-user"),
    ],
)
def test_postgresql_on_a_directory(
    postgres: Start, directory: Path, mode: str, owned: tuple[int, int]
) -> None:
    """With :U the server owns what on disk is and stays root's, or a user's."""
    directory.chmod(0o700)
    os.chown(directory, *owned)
    made = postgres("--userns", mode, "-v", f"{directory}:{PGDATA}:U")
    assert made.sh(f"stat -c %U:%G:%a {PGDATA}") == "postgres:postgres:700"
    store(made)
    assert owners(directory) == {owned}
    made("rm", "-f")


def test_postgresql_that_starts_as_root(postgres: Start, directory: Path) -> None:
    """As its usual image does: root inside gives the directory to it, which is 101's on disk then."""
    made = postgres(
        "-v",
        f"{directory}:{PGDATA}",
        before=f"chown postgres:postgres {PGDATA}; chmod 700 {PGDATA}",
    )
    assert "postgres" in users(made)
    assert owners(directory) == {POSTGRES}
    made("stop", "-t", "5")
    made("rm", "-f")


@pytest.fixture
def redis(containers: Containers, databases: str) -> Start:
    """`redis(FLAGS...)`: a server with an append-only file that answers."""

    def start(*flags: str) -> Container:
        made = containers(
            *PROGRAMS, "-u", "redis", *flags, image=databases,
            command=(f"{UNPACKED}/usr/bin/redis-server", "--dir", APPENDED, "--appendonly", "yes",
                     "--appendfsync", "always", "--save", "", "--unixsocket", "/tmp/redis"),
        )  # fmt: skip
        eventually(lambda: ask(made, "ping") == "PONG", "redis answers")
        return made

    return start


def ask(made: Container, *words: str) -> str:
    """What redis-cli prints, or why it does not."""
    program = f'{UNPACKED}/usr/bin/redis-cli -s /tmp/redis "$@" 2>&1 || true'
    return made.exec("sh", "-c", program, "sh", *words)


def test_redis_on_a_fresh_volume(redis: Start, volume: Path) -> None:
    made = redis("-v", f"database:{APPENDED}")
    assert users(made) == {"redis"}
    keep(made)
    assert owners(volume) == {REDIS}
    assert list(volume.rglob("appendonly*"))
    made("rm", "-f")


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(
            "auto", marks=pytest.mark.guest("Linux 6.1 has the namespace of a map, not the map")
        ),
        "host",
    ],
)
def test_redis_on_a_directory(redis: Start, directory: Path, mode: str) -> None:
    made = redis("--userns", mode, "-v", f"{directory}:{APPENDED}:U")
    keep(made)
    assert owners(directory) == {(0, 0)}
    assert list(directory.rglob("appendonly*"))
    made("rm", "-f")
    # without it, it may not write there
    made = redis(
        "--userns", mode, "-v", f"{directory}:/other", "--tmpfs", f"{APPENDED}:uid=102,mode=700"
    )
    assert "denied" in made.exec("sh", "-c", "touch /other/file 2>&1 || true")
    made("rm", "-f")


def keep(made: Container) -> None:
    """Write, kill it, start it again, read what its file has."""
    assert ask(made, "set", "key", "value") == "OK"
    made("kill")
    made.await_state("exited")
    made("start")
    eventually(lambda: ask(made, "get", "key") == "value", "it has what was written")
