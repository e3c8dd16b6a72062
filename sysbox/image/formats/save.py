"""Write images of the store to an archive or a directory."""

from __future__ import annotations

from sysbox.base.errors import NotFound, SpecError, Unsupported
from sysbox.image.formats import docker_archive, docker_directory, oci_layout
from sysbox.image.formats.found import Chosen
from sysbox.image.ingest import Ingest
from sysbox.image.reference import has_suffix, is_hex, is_host, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysbox.image.catalog import Catalog
    from sysbox.image.formats.sinks import Sink

DOCKER_ARCHIVE, OCI_ARCHIVE, OCI_DIRECTORY, DOCKER_DIRECTORY = FORMATS = (
    "docker-archive", "oci-archive", "oci-dir", "docker-dir",
)  # fmt: skip
DIRECTORIES = (OCI_DIRECTORY, DOCKER_DIRECTORY)


def choose(store: Catalog, names: Sequence[str]) -> list[Chosen]:
    """The images that `names` mean, each once, by docker's rules.

    `web:1` is one image under that name, `web` all images with a name in that repository, and an id or a
    digest an image without a name. Raises NotFound, Conflict, SpecError.
    """
    found: dict[str, list[str]] = {}
    words: dict[str, str] = {}  # the one by which an image was meant first
    for name in names:
        for image_id, full in _named(store, name):
            given = found.setdefault(image_id, [])
            words.setdefault(image_id, full or name)
            if full and full not in given:
                given.append(full)
    return [_chosen(store, words[image_id], given) for image_id, given in found.items()]


def _named(store: Catalog, name: str) -> list[tuple[str, str]]:
    """(id, full name or "") of each image that one word means."""
    if is_host(name):
        raise of_this_machine("host")
    if not has_suffix(name) and not is_hex(name, 64):
        repository = _repository(name)
        entries = [one for one in store.entries() if one.name]
        tagged = [one for one in entries if parse(one.name).repository() == repository]
        if tagged:
            return [(one.image_id, one.name) for one in sorted(tagged, key=lambda one: one.name)]
    matched, image = store.find(name)
    return [(image.id, "" if "@" in matched else matched)]


def _repository(name: str) -> str:
    """The repository of a name, "" for a word that can only be an id."""
    try:
        return parse(name).repository()
    except SpecError:
        return ""


def _chosen(store: Catalog, word: str, names: list[str]) -> Chosen:
    image = store.find(word)[1]
    if image.usr_bind:
        raise of_this_machine(names[0] if names else image.id[7:19])
    return Chosen(id=image.id, manifest=image.manifest, names=tuple(names))


def of_this_machine(name: str) -> Unsupported:
    """The error for an image that only this machine can have."""
    return Unsupported(
        f"the image {name} has the machine's own /usr, which is in none of its layers",
        hint="`sysbox export` takes a container of it with /usr",
    )


def save(store: Catalog, chosen: Sequence[Chosen], form: str, sink: Sink) -> None:
    """Write images in one of FORMATS. Raises NotFound, FormatError, SpecError, KernelError, OSError."""
    if not chosen:
        raise NotFound("no image to save")
    with Ingest(store) as work:  # its lock keeps the blobs meanwhile
        if form == DOCKER_ARCHIVE:
            docker_archive.write(store, chosen, sink, work.decompress)
        elif form == DOCKER_DIRECTORY:
            if len(chosen) > 1:
                raise SpecError(f"a {form} holds one image", hint=f"use {OCI_DIRECTORY}")
            docker_directory.write(store, chosen[0], sink)
        else:
            oci_layout.write(store, chosen, sink)
        sink.finish()
