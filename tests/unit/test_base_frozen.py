"""Frozen records: fields and defaults, and JSON that is read strictly."""

from __future__ import annotations

from typing import Any

import pytest

from sysbox.base.frozen import Frozen


class Point(Frozen):
    x: int
    y: int = 0


class Named(Point):
    name: str = "none"


class Shape(Frozen):
    """One field of each kind of annotation."""

    points: tuple[Point, ...]
    closed: bool = False
    scale: float = 1.0
    label: str | None = None
    corner: tuple[int, str] = (0, "")
    by_name: dict[str, Point] = {}  # noqa: RUF012
    odd: tuple[tuple[str, str], ...] = ()

    def wrong(self) -> str:
        return "points: must have one" if not self.points else ""


WHOLE = Shape(
    points=(Point(x=1), Point(x=2, y=3)),
    closed=True,
    scale=0.5,
    label="l",
    corner=(7, "seven"),
    by_name={"a": Point(x=4)},
    odd=(("k", "v"),),
)
DATA = {
    "points": [{"x": 1}, {"x": 2, "y": 3}],
    "closed": True,
    "scale": 0.5,
    "label": "l",
    "corner": [7, "seven"],
    "by_name": {"a": {"x": 4}},
    "odd": [["k", "v"]],
}


def test_a_record_has_the_fields_that_were_given_and_the_defaults() -> None:
    found = Named(x=1)
    assert (found.x, found.y, found.name) == (1, 0, "none")
    assert repr(found) == "Named(x=1, y=0, name='none')"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "Point: missing field 'x'"),
        ({"y": 1}, "Point: missing field 'x'"),
        ({"x": 1, "z": 2}, "Point: unknown field 'z'"),
    ],
)
def test_a_record_takes_exactly_its_fields(values: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError) as raised:
        Point(**values)
    assert str(raised.value) == said


def test_a_record_cannot_be_changed() -> None:
    point = Point(x=1)
    for name in ("x", "z"):
        with pytest.raises(AttributeError, match=f"Point is frozen: cannot set '{name}'"):
            setattr(point, name, 2)
    assert point == Point(x=1)


def test_replace_makes_another_record() -> None:
    point = Named(x=1, name="n")
    other = point.replace(y=5)
    assert (type(other), other, point) == (Named, Named(x=1, y=5, name="n"), Named(x=1, name="n"))
    with pytest.raises(TypeError, match="unknown field 'z'"):
        point.replace(z=1)


def test_records_are_equal_by_type_and_value() -> None:
    assert Point(x=1) == Point(x=1, y=0)
    assert Point(x=1) != Point(x=1, y=1)
    assert Point(x=1) != Named(x=1)
    assert len({Point(x=1), Point(x=1), Point(x=2), Named(x=1)}) == 3


def test_data_leaves_out_what_is_a_default() -> None:
    """A record of today's defaults is read with tomorrow's: see records.FORMAT."""
    assert WHOLE.to_data() == DATA
    assert Shape(points=()).to_data() == {"points": []}
    assert Point(x=0).to_data() == {"x": 0}


def test_data_becomes_the_same_record() -> None:
    assert Shape.from_data(DATA) == WHOLE
    assert Shape.from_data({"points": [{"x": 1}], "label": None}) == Shape(points=(Point(x=1),))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"points": None}, "Shape.points: must be a list, not NoneType"),
        ({"points": {}}, "Shape.points: must be a list, not dict"),
        ({"points": [{"x": 1}, {"x": "2"}]}, "Shape.points[1].x: must be int, not str"),
        ({"points": [{"x": True}]}, "Shape.points[0].x: must be int, not bool"),
        ({"points": [{"x": 1.0}]}, "Shape.points[0].x: must be int, not float"),
        ({"points": [{}]}, "Shape.points[0]: missing key 'x'"),
        ({"points": [{"x": 1, "z": 1}]}, "Shape.points[0]: unknown key 'z'"),
        ({"points": [[1]]}, "Shape.points[0]: must be an object, not list"),
        ({"points": []}, "Shape.points: must have one"),
        ({"closed": 1}, "Shape.closed: must be bool, not int"),
        ({"scale": 1}, "Shape.scale: must be float, not int"),
        ({"label": 1}, "Shape.label: must be str, not int"),
        ({"corner": [1]}, "Shape.corner: must be a list of 2"),
        ({"corner": [1, "a", "b"]}, "Shape.corner: must be a list of 2"),
        ({"corner": ["1", "a"]}, "Shape.corner[0]: must be int, not str"),
        ({"by_name": []}, "Shape.by_name: must be an object, not list"),
        ({"by_name": {"k": 1}}, "Shape.by_name.k: must be an object, not int"),
        ({"odd": [["k"]]}, "Shape.odd[0]: must be a list of 2"),
        ({"more": 1}, "Shape: unknown key 'more'"),
    ],
)
def test_an_error_names_the_field(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"^Shape") as raised:
        Shape.from_data(DATA | changes)
    assert str(raised.value) == said


@pytest.mark.parametrize("data", [None, [], "x", 1])
def test_a_document_that_is_no_object(data: object) -> None:
    with pytest.raises(ValueError, match=r"^state\.json: must be an object, not "):
        Point.from_data(data, "state.json")


def test_an_annotation_that_nothing_reads_is_a_mistake_in_the_class() -> None:
    class Odd(Frozen):
        value: set[int]

    with pytest.raises(TypeError, match=r"no reader for the annotation 'set\[int\]'"):
        Odd.from_data({"value": [1]})
