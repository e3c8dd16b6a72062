"""A container that has got a descriptor of the host's root, with `--security-opt landlock=on` and without it.

The descriptor comes by a socket, the container's standard input, in `run` and in `exec`. In the host's user
namespace it leads to sysbox's own store; in another one, to what every user may reach.

In the guest: an older kernel restricts less.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import Containers
from lane import SYSBOX, TIMEOUT, Sysbox
from ways import MODES, PYTHON

from sysbox.base import paths
from sysbox.linux import landlock

VERSION = landlock.abi()
ON = ("--security-opt", "landlock=on")
# what each tries below a directory of the host's, by the descriptor of the root; prints what succeeds
PAYLOAD = """
import os, socket, sys
with socket.socket(fileno=0) as given:
    top = socket.recv_fds(given, 1, 1)[1][0]
new = os.urandom(8).hex()
below = sys.argv[1].lstrip("/")
path = f"/proc/self/fd/{top}/{below}"
def opened(name, flags):
    os.close(os.open(f"{below}/{name}", flags, 0o600, dir_fd=top))
def bound():
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"{path}/bound-{new}")
def connected():
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(f"{path}/socket")
def executed():
    os.waitpid(os.posix_spawn(f"{path}/program", ["program"], {}), 0)
both = {"src_dir_fd": top, "dst_dir_fd": top}
for name, attempt in {
    "read": lambda: opened("secret", os.O_RDONLY),
    "write": lambda: opened("secret", os.O_WRONLY),
    "list": lambda: os.listdir(path),
    "create": lambda: opened(f"created-{new}", os.O_WRONLY | os.O_CREAT),
    "mkdir": lambda: os.mkdir(f"{below}/directory-{new}", dir_fd=top),
    "rmdir": lambda: os.rmdir(f"{below}/empty", dir_fd=top),
    "symlink": lambda: os.symlink("x", f"{below}/symlink-{new}", dir_fd=top),
    "mkfifo": lambda: os.mkfifo(f"{below}/fifo-{new}", dir_fd=top),
    "link": lambda: os.link(f"{below}/secret", f"{below}/link-{new}", **both),
    "rename": lambda: os.rename(f"{below}/old", f"{below}/renamed-{new}", **both),
    "unlink": lambda: os.unlink(f"{below}/file", dir_fd=top),
    "truncate": lambda: os.truncate(f"{path}/secret", 0),
    "execute": executed,
    "bind": bound,
    "connect": connected,
    "stat": lambda: os.stat(f"{below}/secret", dir_fd=top),
    "chmod": lambda: os.chmod(f"{below}/secret", 0o640, dir_fd=top),
}.items():
    try:
        attempt()
    except OSError as error:
        print(name, error, file=sys.stderr)
    else:
        print(name)
"""
ALL = set(
    """read write list create mkdir rmdir symlink mkfifo link rename unlink truncate execute bind connect
       stat chmod""".split()
)
# landlock(7), "Bugs": it does not restrict these; and what the kernel that runs the tests cannot restrict
LEFT = {"stat", "chmod"}
LEFT |= {"truncate"} if VERSION < 3 else set()
LEFT |= {"connect"} if VERSION < 9 else set()
# of another user's file, whatever its mode
NOT_A_STRANGERS = {"chmod"}


@pytest.fixture(params=MODES)
def target(request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """(the kind of user namespace, a directory of the host's that a container of that kind may change)."""
    own = request.param != "userns-host"
    place = Path("/var/tmp" if own else paths.STATE) / f"landlock-{os.getpid()}"
    place.mkdir(mode=0o700)
    place.chmod(0o777 if own else 0o700)
    (place / "secret").write_text("secret")
    (place / "secret").chmod(0o666 if own else 0o600)
    shutil.copy("/bin/true", place / "program")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(place / "socket"))
        (place / "socket").chmod(0o777)
        one.listen()
        yield request.param, place
    shutil.rmtree(place)


def attempts(words: tuple[str, ...], place: Path) -> set[str]:
    """What a container achieves that gets the host's root over its standard input."""
    for name in ("old", "file"):
        (place / name).touch()
    (place / "empty").mkdir(exist_ok=True)
    ours, theirs = socket.socketpair()
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [root])
        done = subprocess.run(
            [str(SYSBOX), *words, PYTHON, "-I", "-c", PAYLOAD, str(place)],
            stdin=theirs.fileno(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    os.close(root)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.fixture(autouse=True)
def there(requires: Callable[[object, str], None]) -> None:
    requires(VERSION >= landlock.LEAST, "Landlock")
    requires(PYTHON.startswith("/usr/bin/"), "the distribution's Python")


@pytest.mark.guest("an older kernel restricts less")
def test_a_descriptor_of_the_hosts_root(target: tuple[str, Path], containers: Containers) -> None:
    """CVE-2024-21626 and its kind: whatever has been left open, nothing below it can be opened."""
    mode, place = target
    all_of_them = ALL - (NOT_A_STRANGERS if mode == "default" else set())
    run = ("run", "--rm", "-i", "--network", "none", *MODES[mode])
    assert attempts((*run, "host"), place) == all_of_them
    assert attempts((*run, *ON, "host"), place) == LEFT & all_of_them
    one = containers("--network", "none", *MODES[mode], *ON, image="host")
    assert attempts(("exec", "-i", one.id), place) == LEFT & all_of_them
    if mode == "userns-host":
        # as documented: it is the way to look into the others
        assert attempts(("exec", "-i", "--privileged", one.id), place) == all_of_them
    assert (place / "program").exists()


ABSTRACT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as one:
    try:
        one.connect("\\0" + sys.argv[1])
        print("connected")
    except OSError as error:
        print(error.strerror)
"""


# before Linux 6.12 Landlock has no part in these
SCOPED = bool(landlock.scopes_of(VERSION))


def test_an_abstract_socket_of_the_hosts_network(sysbox: Sysbox) -> None:
    """CVE-2020-15257."""
    name = f"landlock-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        for more, said in (
            ((), "connected"),
            (ON, "Operation not permitted" if SCOPED else "connected"),
        ):
            flags = ("--rm", "--network", "host", *more)
            done = sysbox("run", *flags, "host", PYTHON, "-I", "-c", ABSTRACT, name, check=True)
            assert done.stdout == f"{said}\n"


def test_a_signal_to_a_process_of_the_hosts(sysbox: Sysbox, image: str) -> None:
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        for more, status in (((), 0), (ON, int(SCOPED))):
            flags = ("--rm", "--network", "none", "--pid", "host", "--userns", "host", *more)
            done = sysbox("run", *flags, image, "sh", "-c", f"kill -0 {bystander.pid}")
            assert done.returncode == status, done.stderr
        bystander.kill()
