"""`sysbox images`: list the images, as `docker images` does."""

from __future__ import annotations

import time

from sysbox.base.errors import NotFound, SpecError
from sysbox.cli.output import print_list
from sysbox.docker.human import human_duration, human_size
from sysbox.image.reference import Reference, parse
from sysbox.image.store import Store
from sysbox.parse.filters import has_label, parse_bool, split
from sysbox.parse.time import parse_moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sysbox.cli.table.options import Values
    from sysbox.image.model import Image

NONE = "<none>"
_COLUMNS = (
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
)
_DIGEST = ("DIGEST", "Digest")
_HEADERS = {
    **{key: header for header, key in (*_COLUMNS, _DIGEST)},
    "CreatedAt": "CREATED AT",
    "Containers": "CONTAINERS",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "VirtualSize": "SIZE",
}
_FILTERS = ("reference", "dangling", "label", "before", "since")


def main(values: Values) -> int:
    """0, whatever was found."""
    store = Store()
    wanted = _filters(store, values.filter)
    patterns = [values.name] if values.name else []
    now = time.time()
    rows = []
    seen = set()
    for image in store.list():
        if not _matches(image, wanted):
            continue
        for reference in _references(image, patterns, wanted.get("reference", [])):
            if values.quiet and image.id in seen:
                continue
            seen.add(image.id)
            rows.append(row(image, reference, now, full=values.no_trunc))
    columns = (*_COLUMNS[:2], _DIGEST, *_COLUMNS[2:]) if values.digests else _COLUMNS
    print_list(
        rows, columns, headers=_HEADERS, format=values.format, quiet="ID" if values.quiet else ""
    )
    return 0


def row(image: Image, reference: Reference | None, now: float, *, full: bool) -> dict[str, Any]:
    """One line of the listing, under docker's keys."""
    created = created_at(image)
    return {
        "Containers": "N/A",
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created or 0)),
        "CreatedSince": f"{human_duration(now - created)} ago" if created else "N/A",
        "Digest": image.manifest,
        "ID": image.id if full else image.id[7:19],
        "Repository": reference.familiar_repository() if reference else NONE,
        "SharedSize": "N/A",
        "Size": human_size(image.size),
        "Tag": (reference.tag if reference else "") or NONE,
        "UniqueSize": "N/A",
        "VirtualSize": human_size(image.size),
    }


def created_at(image: Image) -> float:
    """Seconds since 1970; 0 if the image does not say, or says the year 1 as some builders do."""
    try:
        return max(parse_moment(image.created, "created", 0.0), 0.0)
    except SpecError:
        return 0.0


def _filters(store: Store, texts: list[str]) -> dict[str, list[str]]:
    """KEY=VALUE pairs by key; raises UsageError for an unknown key, NotFound for an unknown image."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, value = split(text, _FILTERS)
        if key == "dangling":
            parse_bool(key, value)
        if key in ("before", "since"):
            value = _created(store, value)
        found.setdefault(key, []).append(value)
    return found


def _created(store: Store, name: str) -> str:
    try:
        return store.resolve(name).created
    except NotFound as error:
        raise NotFound(error.message, hint=error.hint, status=1) from None


def _matches(image: Image, wanted: dict[str, list[str]]) -> bool:
    """docker's rule: all labels must match, and all values of the other keys."""
    if not all(has_label(image.config.labels, want) for want in wanted.get("label", [])):
        return False
    for want in wanted.get("dangling", []):
        if parse_bool("dangling", want) == bool(image.names):
            return False
    return all(image.created < moment for moment in wanted.get("before", [])) and all(
        image.created > moment for moment in wanted.get("since", [])
    )


def _references(
    image: Image, patterns: list[str], filters: list[str]
) -> Iterator[Reference | None]:
    """The names to show: all, or those that the argument and the reference filters match."""
    if not image.names and not patterns and not filters:
        yield None
    for name in image.names:
        reference = parse(name)
        if all(_like(reference, pattern) for pattern in patterns) and (
            not filters or any(_like(reference, pattern) for pattern in filters)
        ):
            yield reference


def _like(reference: Reference, pattern: str) -> bool:
    """Whether a pattern matches the name, short or full, with or without its tag, as Go's path.Match does."""
    from fnmatch import fnmatchcase

    repositories = (reference.familiar_repository(), reference.repository())
    forms = [*repositories, *(f"{repository}:{reference.tag}" for repository in repositories)]
    # a `*` matches a slash in fnmatch, but not in path.Match
    return any(
        form.count("/") == pattern.count("/") and fnmatchcase(form, pattern) for form in forms
    )
