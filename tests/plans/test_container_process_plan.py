"""The process of a run and those of `exec`: planned by one function."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError
from sysbox.container.process_plan import Asked, ProcessPlan, plan_process
from sysbox.container.records import Record, Resolved
from sysbox.container.systemd_plan import Mode
from sysbox.linux import capability
from sysbox.linux.userns import IdMap
from sysbox.spec import ContainerSpec, Security, Ulimit

RESOLVED = Resolved(env=("A=image",), user="app", workdir="/srv")
EVERYTHING = (1 << 41) - 1


def planned(
    spec: ContainerSpec, asked: Asked, *, gids: tuple[IdMap, ...] = (), **more: object
) -> ProcessPlan:
    record = Record(
        id="c" * 64,
        name="x",
        created_ns=1,
        spec=spec,
        image_id="sha256:" + "d" * 64,
        image_name="x",
        argv=("run",),
        resolved=RESOLVED,
        gids=gids,
    )
    mode = Mode(active=False)
    values = {"hostname": "host", "held": EVERYTHING, **more}
    return plan_process(record, RESOLVED, asked, mode, **values)  # type: ignore[arg-type]


def test_exec_is_as_the_container_but_for_what_it_asks() -> None:
    spec = ContainerSpec(
        image="x",
        env=("B=user",),
        group_add=("7",),
        oom_score_adj=5,
        ulimits=(Ulimit(name="nofile", soft=10, hard=20),),
        security=Security(cap_drop=("CHOWN",), no_new_privileges=True),
    )
    run = planned(spec, Asked(argv=("run",)))
    plain = planned(spec, Asked(argv=("ls",)))
    assert plain == run.replace(argv=("ls",))
    again = planned(spec, Asked(argv=("ls",), user="app"))
    assert again == plain
    other = planned(spec, Asked(argv=("ls",), env=("C=exec",), user="0", workdir="/", tty=True))
    assert other == plain.replace(env=("B=user", "C=exec"), user="0", workdir="/", tty=True)


def test_capabilities_of_users() -> None:
    """What is added is for the container's user, and for root; a third user has none."""
    spec = ContainerSpec(image="x", security=Security(cap_drop=("ALL",), cap_add=("KILL", "CHOWN")))
    kill_chown = capability.mask(("KILL", "CHOWN"))
    for asked in (Asked(argv=("ls",)), Asked(argv=("ls",), user="app")):
        plan = planned(spec, asked)
        assert plan.capabilities == capability.docker_sets(kill_chown)
        assert plan.user_capabilities == capability.Sets(
            bounding=kill_chown,
            permitted=kill_chown,
            effective=kill_chown,
            inheritable=kill_chown,
            ambient=kill_chown,
        )
    for user in ("0", "root", "other"):
        plan = planned(spec, Asked(argv=("ls",), user=user))
        assert plan.capabilities == capability.docker_sets(kill_chown)
        assert plan.user_capabilities == capability.Sets(bounding=kill_chown)
    plan = planned(spec, Asked(argv=("ls",), privileged=True))
    assert plan.user_capabilities.bounding == EVERYTHING
    assert plan.user_capabilities.ambient == kill_chown


def test_the_callers_groups_and_the_umask() -> None:
    spec = ContainerSpec(image="x", group_add=("keep-groups",), kept_groups=(5, 7), umask=0o077)
    for asked in (Asked(argv=("run",)), Asked(argv=("ls",), user="other")):
        plan = planned(spec, asked)
        assert (plan.group_add, plan.kept_groups, plan.umask) == ((), (5, 7), 0o077)
    # with the host's id of the group 5 inside; 7 is not mapped
    maps = (IdMap(inside=0, outside=100_000, count=6),)
    mapped = planned(spec, Asked(argv=("run",)), gids=maps)
    assert mapped.kept_groups == (5, 7, 100_005)
    # a group of that name, in a container that was made when it could be one
    older = planned(ContainerSpec(image="x", group_add=("keep-groups",)), Asked(argv=("run",)))
    assert (older.group_add, older.kept_groups) == (("keep-groups",), None)


def test_a_privileged_exec_has_everything() -> None:
    spec = ContainerSpec(image="x", security=Security(cap_drop=("CHOWN",)))
    assert planned(
        spec, Asked(argv=("ls",), privileged=True)
    ).capabilities == capability.docker_sets(EVERYTHING)
    assert planned(spec, Asked(argv=("ls",), privileged=True)).seccomp == "unconfined"


def test_what_a_privileged_container_has_dropped_its_exec_lacks_too() -> None:
    spec = ContainerSpec(image="x", security=Security(privileged=True, cap_drop=("SYS_ADMIN",)))
    for asked in (Asked(argv=("run",)), Asked(argv=("ls",))):
        assert "CAP_SYS_ADMIN" not in capability.names(planned(spec, asked).capabilities.bounding)


@pytest.mark.parametrize("words", [("run",), ("ls",)])
def test_a_limit_that_there_is_not(words: tuple[str, ...]) -> None:
    spec = ContainerSpec(image="x", ulimits=(Ulimit(name="nosuch", soft=1, hard=1),))
    with pytest.raises(SpecError, match="--ulimit nosuch: no such limit"):
        planned(spec, Asked(argv=words))


def test_a_user_that_is_too_long() -> None:
    with pytest.raises(SpecError, match="1024 are the most"):
        planned(ContainerSpec(image="x"), Asked(argv=("ls",), user="u" * 2000))
