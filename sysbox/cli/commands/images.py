"""`sysbox images`: list the images, as `docker images` does."""

from __future__ import annotations

import time

from sysbox.cli.commands.images_filters import Wanted, created_at
from sysbox.cli.output import print_list
from sysbox.docker.human import human_duration, human_size
from sysbox.image.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.cli.table.options import Values
    from sysbox.image.model import Image
    from sysbox.image.reference import Reference

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


def main(values: Values) -> int:
    """0, whatever was found."""
    store = Store()
    wanted = Wanted(store, values.name or "", values.filter)
    now = time.time()
    rows = []
    seen = set()
    digests = {entry.name: entry.digest for entry in store.entries() if entry.name}
    for image in store.list():
        if not wanted.matches(image):
            continue
        for reference in wanted.references(image):
            if values.quiet and image.id in seen:
                continue
            seen.add(image.id)
            digest = digests.get(reference.full() if reference else "", image.manifest)
            shown = image.replace(manifest=digest)
            rows.append(row(shown, reference, now, full=values.no_trunc))
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
