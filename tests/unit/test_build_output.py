"""What becomes of a build, by --output, --load and --push in docker's and buildx's words."""

from __future__ import annotations

import pytest

from sysbox.base.errors import UsageError
from sysbox.cli.request.build_output import Output, wanted
from sysbox.cli.table.options import Values
from sysbox.cli.table.verbs import VERBS


def asked(*output: str, load: bool = False, push: bool = False) -> list[Output]:
    return wanted(Values(VERBS["build"], {"output": list(output), "load": load, "push": push}))


IMAGE = Output(kind="image")
PUSHED = Output(kind="registry", push=True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("-", Output(kind="tar", path="-")), ("out", Output(kind="local", path="out")),
        ("type=local,dest=a", Output(kind="local", path="a")), ("type=tar", Output(kind="tar", path="-")),
        ("type=tar,dst=a", Output(kind="tar", path="a")), ("type=oci", Output(kind="oci", path="-")),
        ("type=docker", IMAGE), ("type=docker,dest=-", Output(kind="docker", path="-")),
        ("type=docker,dest=a,name=n", Output(kind="docker", path="a", names=("n",))),
        ("type=image", IMAGE), ("type=image,push=false", IMAGE), ("type=registry", PUSHED),
        ("type=image,push=true", Output(kind="image", push=True)),
        ("type=image,name=a:1,push=true", Output(kind="image", names=("a:1",), push=True)),
        ('type=image,"name=a,b"', Output(kind="image", names=("a", "b"))),
        ("type=cacheonly", Output(kind="cacheonly")),
    ],
)  # fmt: skip
def test_one_output(text: str, found: Output) -> None:
    assert asked(text) == [found]


def test_several() -> None:
    assert asked() == [IMAGE]
    assert asked(load=True) == [IMAGE]
    assert asked(push=True) == [PUSHED]
    assert asked("out", load=True, push=True) == [Output(kind="local", path="out"), IMAGE, PUSHED]
    kinds = ("image", "registry", "local", "tar", "oci", "docker", "cacheonly")
    makes = [Output(kind=kind).makes_image for kind in kinds]
    assert makes == [True, True, False, False, True, True, False]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("type=zip,dest=a", "not type=TYPE,dest=PATH"), ("a=b", "not type=TYPE,dest=PATH"),
        ("type=local", "needs dest=DIRECTORY"), ("type=registry,dest=a", "type=registry has no dest="),
        ("type=image,dest=a", "has no dest="), ("type=image,compression=zstd", "compression= is not known"),
        ("type=local,dest=a,name=b", "name= is not known for type=local"),
        ("type=oci,push=true", "push=true is for type=image"), ("type=image,push=yes", "push=true is for"),
    ],
)  # fmt: skip
def test_bad_outputs(text: str, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        asked(text)
