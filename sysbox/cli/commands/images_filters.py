"""The filters of `sysbox images`: docker's, and those of podman that make sense here."""

from __future__ import annotations

import time

from sysbox.base.errors import NotFound, SpecError
from sysbox.image.catalog import meanings
from sysbox.image.reference import Reference, has_suffix, is_hex, parse
from sysbox.parse.filters import has_label, invalid_filter, parse_bool, split
from sysbox.parse.time import parse_moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sysbox.image.model import Image
    from sysbox.image.store import Store

    Test = Callable[[Image], bool]

_KEYS = (
    "reference", "dangling", "label", "label!", "before", "since", "after", "until", "id", "digest",
    "containers",
)  # fmt: skip
# docker's rule: all of these must match, of the others any
_ALL = ("label", "label!", "before", "since", "after", "until")


class Wanted:
    """What the argument and the filters of one listing ask for."""

    def __init__(self, store: Store, name: str, texts: list[str]) -> None:
        """Raises UsageError for an unknown key or a bad value, NotFound for an unknown image, SpecError."""
        self._patterns = _patterns(name) if name else []
        self._references: list[str] = []
        self._tests: dict[str, list[Test]] = {}
        for text in texts:
            key, value = split(text, _KEYS)
            if key == "reference":
                self._references.append(value)
            else:
                self._tests.setdefault(key, []).append(_TESTS[key](store, value))

    def matches(self, image: Image) -> bool:
        """Whether an image may be shown, whatever its names."""
        return all(
            (all if key in _ALL else any)(test(image) for test in tests)
            for key, tests in self._tests.items()
        )

    def references(self, image: Image) -> Iterator[Reference | None]:
        """The names of an image to show, None for one without a name."""
        if not image.names and not self._patterns and not self._references:
            yield None
        for name in image.names:
            reference = parse(name)
            if self._patterns and not any(_is_like(reference, one) for one in self._patterns):
                continue
            if self._references and not any(_is_like(reference, one) for one in self._references):
                continue
            yield reference


def _patterns(name: str) -> list[str]:
    """The argument, and what it means for `run` by registries.conf, with its tag or with any."""
    if set(name) & set("*?["):
        return [name]
    found = meanings(name)
    return [name, *(one.full() if has_suffix(name) else one.repository() for one in found)]


def created_at(image: Image) -> float:
    """Seconds since 1970; 0 if the image does not say, or says the year 1 as some builders do."""
    try:
        return max(parse_moment(image.created, "created", 0.0), 0.0)
    except SpecError:
        return 0.0


def _dangling(_: Store, value: str) -> Test:
    wanted = parse_bool("dangling", value)
    return lambda image: wanted != bool(image.names)


def _containers(_: Store, value: str) -> Test:
    from sysbox.container.store import all_records

    wanted = parse_bool("containers", value)
    used = {record.image_id for record in all_records()}
    return lambda image: wanted == (image.id in used)


def _before(store: Store, value: str) -> Test:
    moment = _moment(store, value)
    return lambda image: created_at(image) < moment


def _since(store: Store, value: str) -> Test:
    moment = _moment(store, value)
    return lambda image: created_at(image) > moment


def _moment(store: Store, name: str) -> float:
    try:
        return created_at(store.resolve(name))
    except NotFound as error:
        raise NotFound(error.message, hint=error.hint, status=1) from None


def _until(_: Store, value: str) -> Test:
    moment = parse_moment(value, "--filter until=", time.time())
    return lambda image: created_at(image) < moment


def _id(_: Store, value: str) -> Test:
    digits = _digits("id", value)
    return lambda image: image.id[7:].startswith(digits)


def _digest(store: Store, value: str) -> Test:
    digits = _digits("digest", value)
    found = {one.image_id for one in store.entries() if one.digest[7:].startswith(digits)}
    return lambda image: image.id in found


def _digits(key: str, value: str) -> str:
    digits = value.removeprefix("sha256:")
    if not is_hex(digits):
        raise invalid_filter(f"{key}={value}", "not hexadecimal digits, perhaps after sha256:")
    return digits


_TESTS: dict[str, Callable[[Store, str], Test]] = {
    "dangling": _dangling,
    "label": lambda _, value: lambda image: has_label(image.config.labels, value),
    "label!": lambda _, value: lambda image: not has_label(image.config.labels, value),
    "before": _before,
    "since": _since,
    "after": _since,
    "until": _until,
    "id": _id,
    "digest": _digest,
    "containers": _containers,
}


def _is_like(reference: Reference, pattern: str) -> bool:
    """Whether a pattern matches the name, short or full, with or without its tag, as Go's path.Match does."""
    from fnmatch import fnmatchcase

    repositories = (reference.familiar_repository(), reference.repository())
    forms = [*repositories, *(f"{repository}:{reference.tag}" for repository in repositories)]
    # a `*` matches a slash in fnmatch, but not in path.Match
    return any(
        form.count("/") == pattern.count("/") and fnmatchcase(form, pattern) for form in forms
    )
