"""Frozen records: frozen dataclasses without the 20 ms that importing `dataclasses` takes.

A subclass declares annotated fields, with or without defaults; instances take keywords only, compare by
value, and cannot be changed. `to_data` and `from_data` turn a record into plain JSON values and back.
Reading is strict, since records on disk are external input: an unknown key, a missing one or a wrong type
is an error that names the field.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_: object):
        return lambda cls: cls


_SCALARS: dict[str, type] = {"str": str, "int": int, "bool": bool, "float": float}


class _FrozenMeta(type):
    """Turns annotations into fields and class-level values into their defaults."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        own = namespace.get("__annotations__", {})
        fields: dict[str, str] = {}
        defaults: dict[str, Any] = {}
        for base in bases:
            fields.update(getattr(base, "_fields", {}))
            defaults.update(getattr(base, "_defaults", {}))
        for field, annotation in own.items():
            fields[field] = annotation
            if field in namespace:
                defaults[field] = namespace.pop(field)
        cls = super().__new__(mcs, name, bases, namespace)
        cls._fields = fields  # type: ignore[attr-defined]
        cls._defaults = defaults  # type: ignore[attr-defined]
        cls._required = fields.keys() - defaults.keys()  # type: ignore[attr-defined]
        # for `from_data`: the types of fields with one scalar, and the readers of other fields, once needed
        scalars = {field: _SCALARS[one] for field, one in fields.items() if one in _SCALARS}
        cls._kinds = scalars  # type: ignore[attr-defined]
        cls._readers = {}  # type: ignore[attr-defined]
        return cls


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Frozen(metaclass=_FrozenMeta):
    """Base of all frozen records."""

    if TYPE_CHECKING:
        _fields: dict[str, str]
        _defaults: dict[str, Any]
        _required: set[str]
        _kinds: dict[str, type]
        _readers: dict[str, Callable[[object], Any]]
    else:

        def __init__(self, **values):
            # listing containers makes thousands of records, so all fields are set at once
            whole = {**self._defaults, **values}
            if whole.keys() != self._fields.keys():
                self._complain(values)
            object.__setattr__(self, "__dict__", whole)

        def _complain(self, values):
            for field in self._fields:
                if field not in values and field not in self._defaults:
                    raise TypeError(f"{type(self).__name__}: missing field '{field}'")
            unknown = next(field for field in values if field not in self._fields)
            raise TypeError(f"{type(self).__name__}: unknown field '{unknown}'")

        def __setattr__(self, name, value):
            raise AttributeError(f"{type(self).__name__} is frozen: cannot set '{name}'")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, field) for field in self._fields)))

    def __repr__(self) -> str:
        shown = ", ".join(f"{field}={getattr(self, field)!r}" for field in self._fields)
        return f"{type(self).__name__}({shown})"

    def replace(self, **changes: object) -> Self:
        """A copy with some fields changed."""
        return type(self)(**{**self.__dict__, **changes})

    def to_data(self) -> dict[str, Any]:
        """Plain JSON values; fields that hold their default are left out."""
        data: dict[str, Any] = {}
        for field in self._fields:
            value = getattr(self, field)
            if field not in self._defaults or value != self._defaults[field]:
                data[field] = _plain(value)
        return data

    @classmethod
    def from_data(cls, data: object, where: str = "") -> Self:
        """The record that `to_data` wrote; `where` names it in errors.

        Raises ValueError, naming the field, for an unknown key, a missing field, a wrong type, and a value
        that `wrong` rejects.
        """
        try:
            return cls._read(data)
        except ValueError as error:
            raise ValueError(f"{where or cls.__name__}{error}") from None

    @classmethod
    def _read(cls, data: object) -> Self:
        # an error begins with the path below this record: no name is formatted where there is none
        if type(data) is not dict:
            raise ValueError(f": must be an object, not {type(data).__name__}")
        values = cls._defaults.copy()
        kinds, readers = cls._kinds, cls._readers
        for key, value in data.items():
            if kinds.get(key) is type(value):
                values[key] = value
                continue
            read = readers.get(key) or _reader_of(cls, key)
            try:
                values[key] = read(value)
            except ValueError as error:
                raise ValueError(f".{key}{error}") from None
        if not cls._required <= values.keys():
            raise ValueError(f": missing key '{min(cls._required - values.keys())}'")
        made = cls.__new__(cls)
        object.__setattr__(made, "__dict__", values)
        if wrong := made.wrong():
            raise ValueError(f".{wrong}")
        return made

    def wrong(self) -> str:
        """For subclasses: the first invalid value, as "FIELD: must be ..."; "" where all are valid."""
        return ""


def _plain(value: Any) -> Any:
    if isinstance(value, Frozen):
        return value.to_data()
    if type(value) in (tuple, list):
        return [_plain(item) for item in value]
    if type(value) is dict:
        return {key: _plain(item) for key, item in value.items()}
    return value


def _reader_of(cls: Any, field: str) -> Callable[[object], Any]:
    """The function that checks and converts a field's value. Raises ValueError for an unknown field."""
    if field not in cls._fields:
        raise ValueError(f": unknown key '{field}'")
    cls._readers[field] = read = _compile(cls, cls._fields[field])
    return read


def _compile(cls: type, annotation: str) -> Callable[[object], Any]:
    if annotation.endswith(" | None"):
        inner = _compile(cls, annotation[:-7])
        return lambda value: None if value is None else inner(value)
    if annotation in _SCALARS:
        return _scalar(_SCALARS[annotation])
    if annotation.startswith("tuple[") and annotation.endswith(", ...]"):
        item = annotation[6:-6]
        return _many(_compile(cls, item), _SCALARS.get(item))
    if annotation.startswith("tuple["):
        return _fixed([_compile(cls, part) for part in annotation[6:-1].split(", ")])
    if annotation.startswith("dict[str, "):
        return _mapping(_compile(cls, annotation[10:-1]))
    record = getattr(sys.modules[cls.__module__], annotation, None)
    if isinstance(record, _FrozenMeta):
        return record._read  # type: ignore[attr-defined, no-any-return]
    raise TypeError(f"{cls.__name__}: no reader for the annotation {annotation!r}")


def _scalar(kind: type) -> Callable[[object], Any]:
    def read(value: object) -> Any:
        # `type is`, since a bool is an int to isinstance and must not pass for one
        if type(value) is not kind:
            raise ValueError(f": must be {kind.__name__}, not {type(value).__name__}")
        return value

    return read


def _many(item: Callable[[object], Any], kind: type | None) -> Callable[[object], Any]:
    def read(value: object) -> Any:
        if type(value) is not list:
            raise ValueError(f": must be a list, not {type(value).__name__}")
        if kind and {*map(type, value)} <= {kind}:
            return tuple(value)
        return tuple(_at(f"[{index}]", item, one) for index, one in enumerate(value))

    return read


def _fixed(items: list[Callable[[object], Any]]) -> Callable[[object], Any]:
    def read(value: object) -> Any:
        if type(value) is not list or len(value) != len(items):
            raise ValueError(f": must be a list of {len(items)}")
        return tuple(
            _at(f"[{index}]", item, one)
            for index, (item, one) in enumerate(zip(items, value, strict=True))
        )

    return read


def _mapping(item: Callable[[object], Any]) -> Callable[[object], Any]:
    def read(value: object) -> Any:
        if type(value) is not dict:
            raise ValueError(f": must be an object, not {type(value).__name__}")
        return {key: _at(f".{key}", item, one) for key, one in value.items()}

    return read


def _at(place: str, read: Callable[[object], Any], value: object) -> Any:
    """Read one value of several; an error names its place."""
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{place}{error}") from None
