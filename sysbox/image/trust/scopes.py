"""The scopes of an image in policy.json and registries.d, from the most specific to the least.

containers-policy.json(5), "Supported transports and their scopes", and containers-registries.d(5). A scope
is compared as a whole with names that end at a separator, so `registry.example.org.evil` and
`registry.example` are never within `registry.example.org`.
"""

from __future__ import annotations

from sysbox.image.reference import parse

NAMED = ("docker", "atomic", "sysbox")  # transports whose images have names
PATHS = ("oci", "oci-archive", "dir")  # transports whose images have paths
NAMELESS = ("docker-archive", "tarball")  # transports that have the scope "" alone
MADE_HERE = "sysbox"  # of images that were made on this machine


def scopes(transport: str, reference: str) -> list[str]:
    """The scopes of an image without the last one, "", which every image of a transport has.

    `reference` is a full reference (`docker.io/library/busybox:latest`), or for `oci` and the like an
    absolute path; "" is an image without a name. Raises SpecError.
    """
    if not reference or transport in NAMELESS:
        return []
    if transport in NAMED:
        return _of_name(reference)
    # "/" is no scope: "" has the same meaning. A colon is a part of the name: what comes after it is no tag
    return [prefix for prefix in _prefixes(reference) if prefix]


def _of_name(reference: str) -> list[str]:
    parsed = parse(reference)
    repository = parsed.repository()
    # a digest alone says which image it is: with it, anybody could write any tag
    whole = f"{repository}@{parsed.digest}" if parsed.digest else f"{repository}:{parsed.tag}"
    found = [whole, *_prefixes(repository)]
    # the wildcards of a host exclude the host itself, and have no port
    host = parsed.domain.partition(":")[0]
    while "." in host:
        host = host.partition(".")[2]
        found.append(f"*.{host}")
    return found


def _prefixes(path: str) -> list[str]:
    """`a/b/c`, `a/b` and `a`."""
    found = [path]
    while "/" in path:
        path = path.rpartition("/")[0]
        found.append(path)
    return found
