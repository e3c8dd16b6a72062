"""What a specification and an image come to."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError
from sysbox.container.records import Record, Resolved
from sysbox.image.model import Image, ImageConfig
from sysbox.image.resolved import resolve, resolved_of
from sysbox.spec import ContainerSpec

IMAGE = Image(
    id="sha256:" + "a" * 64,
    manifest="",
    config=ImageConfig(
        entrypoint=("/entry",),
        cmd=("one", "two"),
        env=("A=image",),
        workdir="/image",
        user="image",
        labels={"of": "image", "both": "image"},
        stop_signal="SIGQUIT",
    ),
    layers=("l1", "l2"),
)


def recorded(resolved: Resolved) -> Record:
    return Record(
        id="b" * 64,
        name="x",
        created_ns=1,
        spec=ContainerSpec(image="x"),
        image_id=IMAGE.id,
        image_name="x",
        argv=("/entry",),
        resolved=resolved,
    )


@pytest.mark.parametrize(
    ("entrypoint", "command", "argv"),
    [
        (None, (), ("/entry", "one", "two")),
        (None, ("x",), ("/entry", "x")),
        (("/own",), (), ("/own",)),  # an entrypoint of the user's own drops the image's command
        (("/own",), ("x",), ("/own", "x")),
        ((), ("x",), ("x",)),
    ],
)
def test_the_command(
    entrypoint: tuple[str, ...] | None, command: tuple[str, ...], argv: tuple[str, ...]
) -> None:
    found = resolve(ContainerSpec(image="x", entrypoint=entrypoint, command=command), IMAGE)
    assert found.entrypoint + found.command == argv


def test_the_user_goes_before_the_image() -> None:
    spec = ContainerSpec(
        image="x", user="me", workdir="/me", stop_signal="9", labels={"both": "me", "own": "me"}
    )
    found = resolve(spec, IMAGE)
    assert (found.user, found.workdir, found.stop_signal) == ("me", "/me", "9")
    assert found.labels == {"of": "image", "both": "me", "own": "me"}
    plain = resolve(ContainerSpec(image="x"), IMAGE)
    assert (plain.user, plain.workdir, plain.stop_signal) == ("image", "/image", "SIGQUIT")
    assert (plain.env, plain.layers, plain.driver) == (("A=image",), ("l1", "l2"), "overlay")


@pytest.mark.parametrize("entrypoint", [None, (), ("",)])
def test_nothing_to_run(entrypoint: tuple[str, ...] | None) -> None:
    empty = IMAGE.replace(config=ImageConfig())
    with pytest.raises(SpecError, match="image x: no command to run"):
        resolve(ContainerSpec(image="x", entrypoint=entrypoint), empty)


def test_no_image_is_asked_where_the_record_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysbox.image.store.Store", None)
    resolved = Resolved(user="kept")
    record = recorded(resolved)
    assert resolved_of(record) is resolved
    assert Record.from_data(record.to_data(), "").resolved == resolved


@pytest.mark.parametrize("layer", ["", "a/b", "..", "."])
def test_a_layer_is_the_name_of_a_directory(layer: str) -> None:
    """It becomes part of a path."""
    data = recorded(Resolved(layers=(layer,))).to_data()
    with pytest.raises((SpecError, ValueError), match="layers"):
        Record.from_data(data, "")
