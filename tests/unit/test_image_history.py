"""The history of an image, from configurations of other builders too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from forked import needs_root
from layers import fixtures
from layers.builder import archive, entry

from sysbox.base import codec
from sysbox.base.errors import FormatError
from sysbox.image import history
from sysbox.image.ingest import digest_of
from sysbox.image.model import Image
from sysbox.image.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    needs_root()
    return Store(f"{tmp_path}/images")


def with_history(store: Store, image: Image, steps: object) -> Image:
    """The image with another history, in the store."""
    document = codec.loads(Path(store.blob(image.id)).read_bytes(), "")
    data = codec.dumps({**document, "history": steps})
    Path(store.blob(digest_of(data))).write_bytes(data)
    return image.replace(id=digest_of(data))


def test_an_imported_image_has_one_step(store: Store) -> None:
    image = fixtures.import_bytes(store, archive(entry("a", b"12345")), message="why")
    (step,) = history.steps(store, image)
    assert (step.image_id, step.comment, step.size) == (image.id, "why", 5)
    assert step.created == image.created
    assert step.layer == image.layers[0]


def test_steps_without_a_layer(store: Store) -> None:
    image = fixtures.import_bytes(store, archive(entry("a", b"12345")))
    steps = [
        {"created_by": "FROM", "created": "2020-01-01T00:00:00Z"},
        {"created_by": "ENV A=b", "empty_layer": True},
        {"created_by": "CMD", "empty_layer": True, "unknown": 1},
    ]
    image = with_history(store, image, steps)
    found = history.steps(store, image)
    assert [one.created_by for one in found] == ["CMD", "ENV A=b", "FROM"]
    assert [one.size for one in found] == [0, 0, 5]
    assert [one.image_id for one in found] == [image.id, "", ""]


@pytest.mark.parametrize("steps", [None, [], [{"created_by": "x", "empty_layer": True}]])
def test_a_layer_that_the_history_leaves_out(store: Store, steps: object) -> None:
    image = with_history(store, fixtures.import_bytes(store, archive(entry("a", b"12345"))), steps)
    found = history.steps(store, image)
    assert found[0].size == 5
    assert found[0].image_id == image.id


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([1], "must be an object"),
        ([{"created_by": 1}], "must be a string"),
        ([{"empty_layer": "yes"}], "true or false"),
        ({}, "must be a list"),
    ],
)
def test_a_malformed_history(store: Store, steps: object, why: str) -> None:
    image = fixtures.import_bytes(store, archive(entry("a")))
    with pytest.raises(FormatError, match=why):
        history.steps(store, with_history(store, image, steps))


def test_more_steps_than_layers_and_odd_texts_are_shown(store: Store) -> None:
    image = fixtures.import_bytes(store, archive(entry("a", b"12345")))
    steps = [None, {"created_by": "more", "created": "yesterday"}, {"comment": "a\0b"}]
    found = history.steps(store, with_history(store, image, steps))
    assert [(one.size, one.created_by) for one in found] == [(0, ""), (0, "more"), (5, "")]
    assert (found[0].comment, found[0].layer) == ("a\ufffdb", "")
    assert found[0].image_id


def test_a_lost_layer(store: Store) -> None:
    image = fixtures.import_bytes(store, archive(entry("a")))
    os.unlink(f"{store.layer(image.layers[0])}.json")
    with pytest.raises(Exception, match="is missing"):
        history.steps(store, image)
