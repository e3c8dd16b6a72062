"""What Landlock keeps from a container, and what keeps Landlock from it."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError, Unsupported
from sysbox.linux.capability import mask
from sysbox.linux.landlock import SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL, rights_of
from sysbox.security import landlock
from sysbox.spec import Namespaces

OWN = Namespaces()
HOSTS = Namespaces(network="host", pid="host")
BOTH = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL


@pytest.mark.parametrize(
    ("asked", "version", "scopes"),
    [(OWN, 7, 0), (HOSTS, 7, BOTH), (HOSTS, 5, 0),
     (Namespaces(network="host"), 6, SCOPE_ABSTRACT_UNIX_SOCKET),
     (Namespaces(pid="host"), 6, SCOPE_SIGNAL), (Namespaces(network="container:x", pid="container:x"), 7, 0)],
    ids=["own", "host", "host-old", "network", "pid", "joined"],
)  # fmt: skip
def test_scopes_are_for_namespaces_of_the_hosts(
    asked: Namespaces, version: int, scopes: int
) -> None:
    """Containers that share one of theirs do so to reach each other."""
    domain = landlock.plan(asked, mask(("KILL",)), version, booted=False)
    assert (domain.rights, domain.scopes) == (rights_of(version), scopes)


@pytest.mark.parametrize("version", [0, 1])
def test_a_kernel_without_enough_of_it(version: int) -> None:
    """The first version forbids every rename between directories."""
    with pytest.raises(Unsupported, match=r"^--security-opt landlock=on: this kernel") as raised:
        landlock.plan(OWN, 0, version, booted=False)
    assert "Linux 5.19" in raised.value.hint


@pytest.mark.parametrize(
    ("capabilities", "booted", "why"),
    [(("SYS_ADMIN", "KILL"), False, "it has CAP_SYS_ADMIN"), ((), True, "systemd runs in it")],
    ids=["capability", "systemd"],
)
def test_not_where_the_container_is_to_mount(
    capabilities: tuple[str, ...], booted: bool, why: str
) -> None:
    with pytest.raises(SpecError, match=why):
        landlock.plan(OWN, mask(capabilities), 7, booted=booted)


def test_what_is_left_open_is_named() -> None:
    everything = ("truncate(2)", "ioctl(2) on devices", "connect(2) to sockets by path")
    hosts = ("abstract sockets of the host", "signals to processes of the host")
    assert landlock.unrestricted(2, HOSTS) == (*everything, *hosts)
    assert landlock.unrestricted(3, OWN) == everything[1:]
    assert landlock.unrestricted(7, HOSTS) == everything[2:]
    # what hardly a kernel can do is no news
    assert landlock.unrestricted(7, HOSTS, newest=False) == ()
    assert landlock.unrestricted(2, OWN, newest=False) == everything[:2]
    assert landlock.unrestricted(9, HOSTS) == ()
    # refused, and not with less
    assert landlock.unrestricted(1, HOSTS) == ()


def test_the_line_of_a_dry_run() -> None:
    old = landlock.plan(OWN, 0, 2, booted=False)
    assert landlock.describe(old) == (
        "landlock: what lies below /; this kernel cannot restrict truncate(2), ioctl(2) on devices, "
        "connect(2) to sockets by path"
    )
    new = landlock.plan(HOSTS, 0, 9, booted=False)
    assert landlock.describe(new) == (
        "landlock: what lies below /; no abstract sockets of the host; no signals to processes of the host"
    )
