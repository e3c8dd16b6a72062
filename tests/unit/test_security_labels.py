"""SELinux labels: what the policy's file says, and what is decided of it."""

from __future__ import annotations

import pytest

from sysbox.security import labels
from sysbox.security.labels import Contexts, Labels
from sysbox.spec import ContainerSpec, Namespaces, Security

LEVEL = "s0:c1,c2"
USUAL = Contexts()


def spec(*options: str, **more: object) -> ContainerSpec:
    privileged = bool(more.pop("privileged", False))
    security = Security(label=options, privileged=privileged)
    return ContainerSpec(image="i", security=security, namespaces=Namespaces(**more))  # type: ignore[arg-type]


def decide(one: ContainerSpec, **more: str) -> Labels:
    return labels.decide(one, USUAL, LEVEL, **more)


PROCESS = f"system_u:system_r:container_t:{LEVEL}"
MOUNT = f"system_u:object_r:container_file_t:{LEVEL}"
FREE = "system_u:system_r:spc_t:s0"


@pytest.mark.parametrize(
    ("asked", "process", "mount"),
    [
        (spec(), PROCESS, MOUNT),
        (spec("disable"), FREE, MOUNT),
        (spec(privileged=True), FREE, MOUNT),
        (spec(pid="host"), FREE, MOUNT),
        (spec(ipc="host"), FREE, MOUNT),
        (spec("type:my_t", privileged=True), PROCESS.replace("container_t", "my_t"), MOUNT),
        (spec("type:my_t", ipc="host"), PROCESS.replace("container_t", "my_t"), MOUNT),
        # the policy lets processes make files of their own user, and of one level, not of a range
        (spec("user:u_u", "role:r_r"), PROCESS.replace("system_u:system_r", "u_u:r_r"),
         MOUNT.replace("system_u", "u_u")),
        (spec("level:s0-s0:c0.c9"), PROCESS.replace(LEVEL, "s0-s0:c0.c9"), MOUNT.replace(LEVEL, "s0:c0.c9")),
        (spec("filetype:f_t"), PROCESS, MOUNT.replace("container_file_t", "f_t")),
        (spec("level:s0:c5,c6"), PROCESS.replace("c1,c2", "c5,c6"), MOUNT.replace("c1,c2", "c5,c6")),
        (spec("type:a_t", "type:b_t"), PROCESS.replace("container_t", "b_t"), MOUNT),
        (spec("nested"), PROCESS, MOUNT),
    ],
    ids=["usual", "disable", "privileged", "pid", "ipc", "type-privileged", "type-ipc", "user-role",
         "range", "filetype", "level", "last-counts", "nested"],
)  # fmt: skip
def test_decided(asked: ContainerSpec, process: str, mount: str) -> None:
    assert decide(asked) == Labels(process=process, mount=mount)


def test_systemd_inside() -> None:
    assert decide(spec(), init_type="container_init_t").process == PROCESS.replace(
        "_t:", "_init_t:"
    )
    named = Contexts(init_process="system_u:system_r:other_init_t:s0")
    found = labels.decide(spec(), named, LEVEL, init_type="container_init_t")
    assert found.process == f"system_u:system_r:other_init_t:{LEVEL}"
    assert decide(spec("type:my_t"), init_type="container_init_t").process.split(":")[2] == "my_t"
    assert decide(spec("disable"), init_type="container_init_t").process == FREE


def test_a_container_that_shares_anothers_processes() -> None:
    other = "system_u:system_r:their_t:s0:c7,c8"
    found = decide(spec(), other=other)
    assert found == Labels(process=other, mount=MOUNT.replace("c1,c2", "c7,c8"))
    assert decide(spec(), other=FREE) == Labels(process=FREE, mount=MOUNT)
    assert decide(spec("type:my_t"), other=other).process == PROCESS.replace("container_t", "my_t")


def test_the_policys_file() -> None:
    text = """
# a comment
process = "system_u:system_r:c_t:s0"
content = "system_u:object_r:virt_var_lib_t:s0"
file= "system_u:object_r:f_t:s0-s0:c0.c1023"
init_process = "no label"
"""
    found = labels.parse_contexts(text)
    assert found == Contexts(
        process="system_u:system_r:c_t:s0", file="system_u:object_r:f_t:s0-s0:c0.c1023"
    )
    assert labels.parse_contexts("") == Contexts()
    assert labels.shared_level(found.file) == "s0"
    assert labels.level_with(found.file, (3, 9)) == "s0:c3,c9"


@pytest.mark.parametrize(
    ("level", "pair"),
    [
        ("s0:c1,c2", (1, 2)),
        ("s0:c9,c2", (2, 9)),
        ("s0", None),
        ("s0:c1", None),
        ("s0:c1,c1", None),
        ("s0:c1.c5", None),
        ("s0:c1,c2,c3", None),
        ("s0:c1,c1024", None),
        ("s0:x1,c2", None),
        ("s0:c,c2", None),
        ("", None),
    ],
    ids=[
        "pair",
        "order",
        "none",
        "one",
        "twice",
        "range",
        "three",
        "above",
        "letter",
        "empty",
        "nothing",
    ],
)
def test_pair_of(level: str, pair: tuple[int, int] | None) -> None:
    assert labels.pair_of(level) == pair
