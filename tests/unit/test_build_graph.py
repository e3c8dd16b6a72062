"""Which stages are built, from what, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from sysbox.base.errors import SpecError
from sysbox.build import graph, parser, references
from sysbox.build.model import Copy, Plan, Request, Run, Source


def plan(text: str, triggers: dict[str, tuple[str, ...]] | None = None, **request: Any) -> Plan:
    return graph.make_plan(parser.parse(text.encode(), "C"), Request(**request), triggers)


def order(text: str, **request: Any) -> list[str]:
    return [stage.title() for stage in plan(text, **request).stages]


def refused(text: str, **request: Any) -> tuple[str, str]:
    with pytest.raises(SpecError) as caught:
        plan(text, **request)
    return caught.value.message, caught.value.hint


FOUR = """
FROM alpine AS base
FROM base AS build
RUN make
FROM node AS docs
COPY --from=build /src /src
FROM alpine
COPY --from=build /app /app
"""


def test_only_what_the_target_needs() -> None:
    assert order(FOUR) == ["base", "build", "stage-3"]
    assert order(FOUR, target="docs") == ["base", "build", "docs"]
    assert order(FOUR, target="BUILD") == ["base", "build"]
    assert order(FOUR, target="0") == ["base"]
    found = plan(FOUR)
    assert found.target == 3
    assert [(stage.index, stage.needs) for stage in found.stages] == [(0, ()), (1, (0,)), (3, (1,))]
    assert found.images == (Source(kind="image", name="alpine", platform="linux/amd64"),)


def test_what_names_mean() -> None:
    text = """
FROM golang AS golang
FROM scratch
COPY --from=golang /a /
COPY --from=0 /b /
COPY --from=nginx:1 /c /
COPY --from=named /d /
RUN --mount=from=GOLANG,target=/x --mount=type=cache,target=/y,from=scratch true
"""
    found = plan(text, contexts=("named",))
    assert found.stages[0].base == Source(kind="image", name="golang", platform="linux/amd64")
    last = found.stages[1]
    assert last.base == Source(kind="scratch")
    assert last.sources == {
        "golang": Source(kind="stage", stage=0),
        "0": Source(kind="stage", stage=0),
        "nginx:1": Source(kind="image", name="nginx:1", platform="linux/amd64"),
        "named": Source(kind="context", name="named"),
        "GOLANG": Source(kind="stage", stage=0),
        "scratch": Source(kind="scratch"),
    }
    assert [one.name for one in found.images] == ["golang", "nginx:1"]


def test_a_named_context_hides_stages_and_images() -> None:
    text = "FROM alpine AS a\nFROM a\nCOPY --from=a x y\n"
    found = plan(text, contexts=("a",))
    assert [stage.index for stage in found.stages] == [1]
    assert found.stages[0].base == Source(kind="scratch")
    assert found.stages[0].sources == {"a": Source(kind="context", name="a")}
    begin, copy = found.stages[0].instructions
    assert isinstance(begin, Copy)
    assert (begin.text, begin.line, begin.column) == ("FROM a", 2, 1)
    assert (begin.origin, begin.sources, begin.destination) == ("a", (".",), "/")
    assert copy.text == "COPY --from=a x y"
    assert found.images == ()


def test_a_name_that_stands_for_an_image() -> None:
    """--build-context NAME=docker-image://IMAGE, before stages and images."""
    text = "FROM alpine AS a\nFROM a\nCOPY --from=a x y\nCOPY --from=other x y\n"
    found = plan(text, images={"a": "b:1", "other": "c"})
    assert [stage.index for stage in found.stages] == [1]
    assert [one.name for one in found.images] == ["b:1", "c"]
    assert found.stages[0].base.name == "b:1"


def test_from_a_stage_means_an_earlier_one() -> None:
    assert order("FROM b\nFROM x AS b\n", target="0") == ["stage-0"]
    assert plan("FROM b\nFROM x AS b\n", target="0").stages[0].base.kind == "image"
    assert plan("FROM x\nFROM 0\n").stages[1].base == Source(kind="stage", stage=0)


def test_copy_may_name_a_later_stage() -> None:
    assert order("FROM a AS first\nCOPY --from=second x y\nFROM b AS second\n", target="first") == [
        "second",
        "first",
    ]


def test_of_two_stages_with_one_name_the_nearest_before_counts() -> None:
    text = "FROM a AS x\nFROM b AS x\nFROM x AS y\nCOPY --from=x p q\nFROM c AS x\n"
    found = plan(text, target="y")
    assert [stage.index for stage in found.stages] == [1, 2]
    assert found.warnings == (
        "C:2:1: a second stage has the name 'x'",
        "C:5:1: a second stage has the name 'x'",
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("FROM a AS b\nCOPY --from=b x y", "C:1:1: the stage b needs itself: b -> b"),
        ("FROM a AS b\nCOPY --from=c x y\nFROM d AS c\nRUN --mount=from=b,target=/x true",
         "C:3:1: the stage c needs itself: c -> b -> c"),
        ("FROM a\nCOPY --from=0 x y", "C:1:1: the stage stage-0 needs itself: stage-0 -> stage-0"),
    ],
    ids=["itself", "two", "by number"],
)  # fmt: skip
def test_cycles(text: str, what: str) -> None:
    assert refused(text)[0] == what


def test_a_cycle_that_the_target_does_not_need() -> None:
    assert order("FROM a AS b\nCOPY --from=b x y\nFROM c") == ["stage-1"]


def test_stages_that_are_not_there() -> None:
    assert refused("FROM a\nCOPY --from=7 x y") == (
        "C:2:1: COPY: there is no stage 7: the last one is 0",
        "",
    )
    assert refused("FROM a AS build\n", target="bulid") == (
        "C: no stage 'bulid' (--target)",
        "did you mean 'build'?",
    )
    assert refused("FROM a\n", target="x") == (
        "C: no stage 'x' (--target)",
        "stages: none has a name",
    )
    assert refused("FROM a\n", target="1")[0] == "C: no stage '1' (--target)"


def test_thousands_of_stages_in_a_chain() -> None:
    text = "FROM a AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\n" for n in range(3000))
    found = plan(text)
    assert len(found.stages) == 3001
    assert found.stages[-1].needs == (2999,)


def test_arguments_before_the_first_from() -> None:
    text = "ARG BASE=alpine TAG=${BASE}-3\nFROM ${BASE}:${TAG#alpine-} AS $x\n".replace(
        " AS $x", ""
    )
    assert plan(text).images[0].name == "alpine:3"
    assert plan(text, arguments={"BASE": "debian"}).images[0].name == "debian:debian-3"
    assert plan(text, arguments={"BASE": None, "TAG": "9"}).images[0].name == "alpine:9"
    found = plan("ARG A=1 B C=$A\nFROM x", arguments={"B": "2", "Z": "26"})
    assert {name: found.inherited[name] for name in "ABC"} == {"A": "1", "B": "2", "C": "1"}
    assert found.given == {"B": "2", "Z": "26"}
    assert found.unused == ("Z",)


def test_build_args_that_need_no_arg() -> None:
    names = (
        "HTTP_PROXY",
        "no_proxy",
        "SOURCE_DATE_EPOCH",
        "BUILDKIT_INLINE_CACHE",
        "TARGETARCH",
        "in_stage",
    )
    found = plan("FROM x\nARG in_stage\n", arguments=dict.fromkeys(names, "1"))
    assert found.unused == ()


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("FROM $x", "C:1:1: FROM: '$x' becomes ''",
         "$x is not set: ARG x must stand before the first FROM"),
        ("FROM a:$x", "C:1:1: FROM: 'a:$x' becomes 'a:'",
         "$x is not set: ARG x must stand before the first FROM"),
        ("ARG x\nFROM $x", "C:2:1: FROM: '$x' becomes ''",
         "$x is not set: ARG x must stand before the first FROM"),
        ("FROM a\nARG x=b\nFROM $x", "C:3:1: FROM: '$x' becomes ''",
         "$x is not set: ARG x must stand before the first FROM"),
        ("FROM ${x:?needed}", "C:1:1: FROM: x: needed", ""),
        ("ARG y=${x:?needed}\nFROM a", "C:1:1: ARG y: x: needed", ""),
        ('FROM "a b"', "C:1:9: FROM takes an image, and perhaps a name",
         "FROM [--platform=OS/ARCH] IMAGE [AS NAME]"),
        ("FROM --platform=$x a", "C:1:1: FROM: '$x' becomes ''",
         "$x is not set: ARG x must stand before the first FROM"),
        ("FROM --platform=a/b/c/d a", "C:1:1: FROM: --platform='a/b/c/d': must be OS/ARCH[/VARIANT]", ""),
    ],
)  # fmt: skip
def test_an_arg_before_its_time(text: str, what: str, hint: str) -> None:
    assert refused(text) == (what, hint)


def test_platforms() -> None:
    text = """
FROM --platform=$BUILDPLATFORM golang AS build
FROM build AS more
FROM alpine
COPY --from=more a b
COPY --from=busybox a b
"""
    found = plan(text, platform="linux/arm64/v8", own_platform="linux/amd64")
    assert [stage.platform for stage in found.stages] == [
        "linux/amd64",
        "linux/amd64",
        "linux/arm64/v8",
    ]
    assert [(one.name, one.platform) for one in found.images] == [
        ("golang", "linux/amd64"),
        ("alpine", "linux/arm64/v8"),
        ("busybox", "linux/arm64/v8"),
    ]
    wanted = {
        "TARGETPLATFORM": "linux/arm64/v8", "TARGETOS": "linux", "TARGETARCH": "arm64", "TARGETVARIANT": "v8",
        "BUILDPLATFORM": "linux/amd64", "BUILDOS": "linux", "BUILDARCH": "amd64", "BUILDVARIANT": "",
        "TARGETSTAGE": "default",
    }  # fmt: skip
    assert found.inherited == wanted


def test_an_image_for_two_platforms_is_two() -> None:
    found = plan("FROM --platform=linux/arm64 a AS x\nFROM a\nCOPY --from=x b c\n")
    assert [(one.name, one.platform) for one in found.images] == [
        ("a", "linux/arm64"),
        ("a", "linux/amd64"),
    ]


def test_triggers_of_an_image_come_first() -> None:
    text = "FROM base\nRUN last\n"
    (stage,) = plan(text, {"base": ("RUN one", "COPY --from=x a b"), "other": ("RUN no",)}).stages
    assert [one.text for one in stage.instructions] == ["RUN one", "COPY --from=x a b", "RUN last"]
    assert stage.triggers == 2
    assert stage.sources == {"x": Source(kind="image", name="x", platform="linux/amd64")}


def test_triggers_may_need_stages() -> None:
    text = "FROM a AS build\nFROM base\n"
    assert order(text) == ["stage-1"]
    found = plan(text, {"base": ("COPY --from=build a b",)})
    assert [stage.title() for stage in found.stages] == ["build", "stage-1"]


def test_triggers_of_a_stage() -> None:
    text = "FROM x AS a\nONBUILD RUN one\nFROM a AS b\nONBUILD RUN two\nFROM b\nRUN three\n"
    found = plan(text)
    assert [[one.text for one in stage.instructions] for stage in found.stages] == [
        ["ONBUILD RUN one"],
        ["RUN one", "ONBUILD RUN two"],
        ["RUN two", "RUN three"],
    ]
    assert [stage.triggers for stage in found.stages] == [0, 1, 1]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("FROM x\nWORKDIR $v\nARG v=/a\n", ("C:2:1: v is used before its ARG",)),
        ("ARG v=/a\nFROM x\nWORKDIR $v\n", ("C:3:1: v needs `ARG v` in this stage",)),
        ("FROM x\nCOPY a /$TARGETARCH\n", ("C:2:1: TARGETARCH needs `ARG TARGETARCH` in this stage",)),
        ("ARG v=/a\nFROM x\nARG v\nWORKDIR $v\n", ()),
        ("ARG v=/a\nFROM x AS y\nARG v\nFROM y\nWORKDIR $v\n", ()),
        ("FROM x\nENV v=/a\nWORKDIR $v\nARG v\n", ()),
        ("FROM x\nENV PATH=$PATH:/x\n", ()),
        ("ARG v=/a\nFROM x\nRUN echo $v\n", ()),
    ],
    ids=["before", "global", "platform", "declared", "inherited", "env", "of the image", "shell"],
)  # fmt: skip
def test_variables_before_their_arg(text: str, wanted: tuple[str, ...]) -> None:
    after = ": it is empty unless the base image sets it"
    assert plan(text).warnings == tuple(f"{one}{after}" for one in wanted)


def test_an_image_that_is_nearly_a_stage() -> None:
    text = "FROM x AS builder\nFROM y\nCOPY --from=buidler a b\nCOPY --from=nginx c d\n"
    assert plan(text).warnings == (
        "C:2:1: 'buidler' is an image: did you mean the stage 'builder'?",
    )


def test_variables_in_from_flags() -> None:
    """buildah takes them: what ARG and ENV of the file say counts, in a stage's own order."""
    text = """
ARG TAG=1
FROM x AS base
ARG TAG
ENV KIND=tools
FROM base
COPY --from=reg/$KIND:$TAG a b
ARG TAG=2
RUN --mount=type=bind,from=reg/${KIND}:$TAG,target=/x,source=$TAG true
COPY --from=${UNSET:-base} c d
"""
    found = plan(text, arguments={"TAG": "3"})
    last = found.stages[-1]
    names = ["reg/tools:3", "reg/tools:3", "base"]
    assert [name for one in last.instructions for name in references.names(one)] == names
    assert last.sources["base"] == Source(kind="stage", stage=0)
    run = next(one for one in last.instructions if isinstance(one, Run))
    assert run.mount_flags == ("type=bind,from=reg/tools:3,target=/x,source=$TAG",)
    names = [one.name for one in plan(text).images]
    assert names == ["x", "reg/tools:1", "reg/tools:2"]


def test_variables_in_from_flags_of_triggers() -> None:
    text = "FROM x AS a\nARG T=1\nONBUILD COPY --from=i:$T a b\nFROM a\nFROM y\nARG T=2\n"
    assert [one.name for one in plan(text, target="1").images] == ["x", "i:1"]
    found = plan(text, {"y": ("ARG U=5", "COPY --from=j:$U a b")})
    assert [one.name for one in found.images] == ["y", "j:5"]


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("FROM x\nCOPY --from=$v a b", "C:2:1: COPY: from '$v' becomes ''",
         "$v is not set by ARG or ENV before this"),
        ("FROM x\nCOPY --from=i:$v a b\nARG v=1", "C:2:1: COPY: from 'i:$v' becomes 'i:'",
         "$v is not set by ARG or ENV before this"),
        ("FROM x\nENV v='a b'\nCOPY --from=$v a b", "C:3:1: COPY: from '$v' becomes 'a b'", ""),
        ("FROM x\nRUN --mount=from=${v:?needed},target=/x true", "C:2:1: RUN: v: needed", ""),
    ],
)  # fmt: skip
def test_wrong_variables_in_from_flags(text: str, what: str, hint: str) -> None:
    assert refused(text) == (what, hint)


def test_what_is_wrong_with_a_stage_that_is_not_needed() -> None:
    """FROM with an ARG that this build does not give, in a stage that it does not need."""
    text = "ARG X\nFROM $X AS other\nCOPY --from=$Y a b\nFROM a\nFROM other AS more\n"
    assert order(text, target="1") == ["stage-1"]
    what = "C:2:1: FROM: '$X' becomes ''"
    assert refused(text, target="other")[0] == what
    assert refused(text)[0] == what


def test_who_names_an_image() -> None:
    text = "FROM a AS x\nFROM b\nRUN true\nRUN --mount=from=c true\nCOPY --from=x d d\nCOPY --from=e f f\n"
    found = plan(text)
    assert [graph.user_of(found, image) for image in found.images] == [
        "C:1:1: FROM a",
        "C:2:1: FROM b",
        "C:4:1: RUN from c",
        "C:6:1: COPY from e",
    ]
