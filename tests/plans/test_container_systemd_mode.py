"""What a container gets whose first process is systemd, and which containers that are."""

from __future__ import annotations

import signal

import pytest
from hostfacts import facts

from sysbox.base.errors import SpecError
from sysbox.container import systemd_mode, systemd_plan
from sysbox.container.records import Record
from sysbox.container.systemd_plan import Mode
from sysbox.fs.rootfs import Bind, Cgroups, Filesystem, plan_cgroups
from sysbox.spec import ContainerSpec, Mount, Namespaces, Security

ID = "0123456789abcdef" * 4
INIT = ("/sbin/init",)
RECORD = Record(
    id=ID,
    name="x",
    created_ns=0,
    spec=ContainerSpec(image="x"),
    image_id=f"sha256:{ID}",
    image_name="x",
    argv=INIT,
)


def decide(argv: tuple[str, ...] = INIT, **fields: object) -> Mode:
    spec = ContainerSpec(image="x", **fields)  # type: ignore[arg-type]
    return systemd_plan.decide(RECORD.replace(spec=spec, argv=argv))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("/sbin/init", True),
        ("/usr/sbin/init", True),
        ("/usr/local/sbin/init", True),
        ("/lib/systemd/systemd", True),
        ("/usr/lib/systemd/systemd", True),
        ("systemd", True),
        ("/etc/init", False),
        ("init", False),
        ("/usr/bin/systemd-run", False),
        ("sh", False),
    ],
)
def test_by_its_command(command: str, expected: bool) -> None:
    assert decide((command, "--log-level=debug")).active is expected


def test_always_and_never() -> None:
    assert decide(("sh",), systemd="always").active
    assert not decide(systemd="false").active
    assert decide(systemd="false") == Mode(active=False)


@pytest.mark.parametrize(
    ("fields", "flag"),
    [({"init": True}, "--init"), ({"namespaces": Namespaces(pid="host")}, "--pid host")],
)
def test_where_it_is_not_pid_1(fields: dict[str, object], flag: str) -> None:
    assert not decide(**fields).active
    with pytest.raises(SpecError, match=f"with {flag} it is not"):
        decide(systemd="always", **fields)


def test_what_it_mounts() -> None:
    mode = decide()
    assert [one.target for one in mode.before if isinstance(one, Filesystem)] == [
        "/run",
        "/run/lock",
        "/tmp",
    ]
    sources = {one.target: one.source for one in mode.after if isinstance(one, Bind)}
    assert sources[systemd_mode.JOURNAL] == f"{RECORD.directory}/journal"
    assert mode.environment == ("container=sysbox", f"container_uuid={ID[:32]}")


def test_a_mount_of_the_users_own_wins() -> None:
    mounts = tuple(
        Mount(kind="bind", source="/x", target=target) for target in ("/tmp", systemd_mode.JOURNAL)
    )
    mode = decide(mounts=mounts)
    assert [one.target for one in mode.before if isinstance(one, Filesystem)] == [
        "/run",
        "/run/lock",
    ]
    assert systemd_mode.JOURNAL not in {one.target for one in mode.after if isinstance(one, Bind)}


def test_the_capability_to_restart_only_under_our_own_filter() -> None:
    assert decide(command=INIT).capabilities == ("SETPCAP", "SYS_BOOT")
    for seccomp in ("unconfined", "/some/profile.json"):
        mode = decide(command=INIT, security=Security(seccomp=seccomp))
        assert mode.capabilities == ("SETPCAP",)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),  # an image's own ENTRYPOINT or CMD
        ({"systemd": "always"}, True),
        ({"command": INIT}, True),
        ({"entrypoint": INIT}, True),
        ({"entrypoint": (), "command": INIT}, True),
        ({"command": ("--log-level=debug",)}, False),  # after the image's ENTRYPOINT
    ],
)
def test_a_name_in_an_image_gives_no_capability(fields: dict[str, object], expected: bool) -> None:
    mode = decide(**fields)
    assert mode.active
    assert bool(mode.capabilities) is expected


@pytest.mark.parametrize("systemd", [False, True])
@pytest.mark.parametrize("unified", ["", "/sys/fs/cgroup/unified"])
def test_its_cgroups_on_v1(systemd: bool, unified: str) -> None:
    (plan,) = plan_cgroups(ContainerSpec(image="x"), facts("v1", unified=unified), systemd=systemd)
    assert isinstance(plan, Cgroups)
    assert not plan.writable
    assert plan.delegated == (("systemd", "unified")[: 2 if unified else 1] if systemd else ())
    assert ("unified" in plan.controllers) == bool(systemd and unified)


@pytest.mark.parametrize("systemd", [False, True])
def test_its_cgroups_on_v2(systemd: bool) -> None:
    (plan,) = plan_cgroups(ContainerSpec(image="x"), facts("v2"), systemd=systemd)
    assert plan == Cgroups(
        target="/sys/fs/cgroup", controllers={}, writable=systemd, bounded=systemd
    )


def test_how_it_ends() -> None:
    spec = ContainerSpec(image="x")
    for code, expected in ((128 + signal.SIGINT, 0), (128 + signal.SIGHUP, 0), (137, 137), (3, 3)):
        assert systemd_mode.exit_status(spec, INIT, code) == expected
        assert systemd_mode.exit_status(spec, ("sh",), code) == code
    assert systemd_mode.STATUSES == (129, 130)
