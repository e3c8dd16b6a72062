"""The process of a run and those of `exec`: planned by one function."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError
from sysbox.container.process_plan import Asked, ProcessPlan, plan_process
from sysbox.container.records import Record, Resolved
from sysbox.container.systemd_plan import Mode
from sysbox.linux import capability
from sysbox.spec import ContainerSpec, Security, Ulimit

RESOLVED = Resolved(env=("A=image",), user="app", workdir="/srv")
EVERYTHING = (1 << 41) - 1


def planned(spec: ContainerSpec, asked: Asked, **more: object) -> ProcessPlan:
    record = Record(
        id="c" * 64,
        name="x",
        created_ns=1,
        spec=spec,
        image_id="sha256:" + "d" * 64,
        image_name="x",
        argv=("run",),
        resolved=RESOLVED,
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
    other = planned(spec, Asked(argv=("ls",), env=("C=exec",), user="0", workdir="/", tty=True))
    assert other == plain.replace(env=("B=user", "C=exec"), user="0", workdir="/", tty=True)


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
