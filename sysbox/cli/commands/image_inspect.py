"""`sysbox image inspect`: everything about images, in docker's shape."""

from __future__ import annotations

from sysbox.base import files, program
from sysbox.base.errors import NotFound, SysboxError
from sysbox.cli.output import print_inspect, report
from sysbox.docker.config import health_check, no_config
from sysbox.docker.shapes import NullMap, Strings, Struct, listed, mapped
from sysbox.fs.drivers.driver import DEFAULT, by_name
from sysbox.image.documents import MAX_CONFIG, load, mapping, parse_config, strings
from sysbox.image.model import Image
from sysbox.image.reference import parse
from sysbox.image.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0, 1 if one of them does not exist; the others are printed even then."""
    found = []
    status = 0
    errors = []
    for name in values.image:
        try:
            found.append(describe(name))
        except SysboxError as error:
            if program.debug:
                raise
            errors.append(error)
            status = 1
    if found or not values.format:
        print_inspect(found, values.format)
    for failure in errors:
        report(failure)
    return status


def describe(name: str) -> dict[str, Any]:
    """The object that docker shows for an image. Raises NotFound, Conflict, FormatError."""
    store = Store()
    image = store.resolve(name)
    data = files.read_file(store.blob(image.id), MAX_CONFIG)
    if data is None:
        raise NotFound(f"the configuration of the image {image.id} is missing in {store.root}")
    document = load(data, "image config", MAX_CONFIG)
    driver = by_name(DEFAULT)
    references = [parse(name) for name in image.names]
    return Struct(
        {
            "Id": image.id,
            "RepoTags": [one.familiar() for one in references],
            "RepoDigests": _digests(store, image),
            "Parent": "",
            "Comment": _comment(document),
            "Created": image.created,
            "Container": "",
            "ContainerConfig": no_config(),
            "DockerVersion": "",
            "Author": document.get("author") or "",
            "Config": _config(image, mapping(document, "config", "image config")),
            "Architecture": image.config.architecture,
            "Variant": document.get("variant") or "",
            "Os": image.config.os,
            "OsVersion": "",
            "Size": image.size,
            "VirtualSize": image.size,
            "GraphDriver": {
                "Data": Strings(driver.describe(tuple(map(store.layer, image.layers)))),
                "Name": driver.NAME,
            },
            "RootFS": {"Type": "layers", "Layers": list(parse_config(data).diff_ids)},
            "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
            "Sysbox": {"Provenance": _provenance(store, image)},
        }
    )


def _digests(store: Store, image: Image) -> list[str]:
    """Each name has its own manifest: another registry may have compressed the same layers differently."""
    named = [one for one in store.entries() if one.image_id == image.id and one.name]
    return sorted({f"{parse(one.name).familiar_repository()}@{one.digest}" for one in named})


def _provenance(store: Store, image: Image) -> list[dict[str, Any]]:
    """Where the image came from, and how it was verified."""
    from sysbox.image.trust import provenance  # which the hot verb `inspect` need not load at once

    return [
        {
            "Transport": one.transport,
            "Reference": one.reference,
            "Manifest": one.manifest,
            "Index": one.index,
            "Time": one.time,
            "AcceptedBy": one.verdict,
            "Signatures": [kept.where for kept in one.signatures],
        }
        for one in provenance.read(store, image.id)
    ]


def _config(image: Image, written: dict[str, Any]) -> dict[str, Any]:
    config, what = image.config, "image config: config"
    return {
        **no_config(),
        "User": config.user,
        "ExposedPorts": mapped({port: {} for port in config.exposed_ports}),
        "Env": listed(config.env),
        "Cmd": listed(config.cmd),
        "Healthcheck": health_check(config.health),
        "Volumes": mapped({volume: {} for volume in config.volumes}),
        "WorkingDir": config.workdir,
        "Entrypoint": listed(config.entrypoint),
        "Labels": Strings(config.labels) if config.labels else NullMap(),
        "StopSignal": config.stop_signal,
        "OnBuild": listed(strings(written, "OnBuild", what)),
        "Shell": listed(strings(written, "Shell", what)),
    }


def _comment(document: dict[str, Any]) -> str:
    """The comment of the last step of the image's history."""
    history = document.get("history")
    if type(history) is not list or not history:
        return ""
    last = history[-1]
    comment = last.get("comment", "") if type(last) is dict else ""
    return comment if type(comment) is str else ""
