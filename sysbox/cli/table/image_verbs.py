"""The verbs about images; see `verbs.py`."""

from __future__ import annotations

from sysbox.cli.table.options import Verb


def image_verbs() -> tuple[Verb, ...]:
    """Every verb about images, in the order of the help."""
    return (*_listing_verbs(), *_build_verbs(), *_file_verbs(), *_registry_verbs(), *_trust_verbs())


def _listing_verbs() -> tuple[Verb, ...]:
    return (
        Verb(
            name="images", module="images", args="[NAME]", options="images",
            also=("image ls", "image list"), summary="List images",
        ),
        Verb(
            name="rmi", module="rmi", args="IMAGE...", options="rmi",
            also=("image rm", "image remove"), summary="Remove images",
        ),
        Verb(
            name="tag", module="tag", args="IMAGE NAME...", also=("image tag",),
            summary="Give an image further names",
        ),
        Verb(
            name="untag", module="untag", args="IMAGE [NAME...]", also=("image untag",),
            summary="Take names from an image, all by default; the image stays",
        ),
        Verb(
            name="history", module="history", args="IMAGE", options="history",
            also=("image history",), summary="Show the steps by which an image was made",
        ),
        Verb(
            name="image tree", module="image_tree", args="IMAGE", options="image tree",
            summary="Show the layers of an image with their sizes",
        ),
        Verb(
            name="image exists", module="image_exists", args="IMAGE",
            summary="Exit with 0 if an image exists, else with 1",
        ),
        Verb(
            name="image inspect", module="image_inspect", args="IMAGE...", options="format",
            summary="Show everything about images, as JSON",
        ),
        Verb(
            name="image prune", module="prune", args="", options="image prune",
            summary="Remove images without a name, or all that nothing uses",
        ),
    )  # fmt: skip


def _build_verbs() -> tuple[Verb, ...]:
    return (
        Verb(
            name="build", module="build", args="[CONTEXT]", options="build",
            also=("image build", "builder build"), hot=True, starts=True,
            summary="Make an image of a Containerfile",
        ),
        Verb(
            name="builder prune", module="prune", args="", options="builder prune",
            summary="Remove what the build cache has",
        ),
    )  # fmt: skip


def _file_verbs() -> tuple[Verb, ...]:
    return (
        Verb(
            name="import", module="import_", args="FILE [NAME]", options="import",
            also=("image import",), summary="Make an image from a tar archive or a URL (- is standard input)",
        ),
        Verb(
            name="save", module="save", args="IMAGE...", options="save", also=("image save",),
            summary="Write images to an archive or a directory",
        ),
        Verb(
            name="load", module="load", args="", options="load", also=("image load",),
            summary="Read images from an archive or a directory",
        ),
        Verb(
            name="bootstrap", module="bootstrap", args="NAME", options="bootstrap",
            summary="Make a Debian or Ubuntu image with mmdebstrap",
        ),
    )  # fmt: skip


def _registry_verbs() -> tuple[Verb, ...]:
    return (
        Verb(
            name="pull", module="pull", args="IMAGE...", options="pull", also=("image pull",),
            summary="Fetch images from registries",
        ),
        Verb(
            name="push", module="push", args="IMAGE [DESTINATION]", options="push", also=("image push",),
            summary="Send an image to a registry",
        ),
        Verb(
            name="login", module="login", args="[REGISTRY]", options="login", local=True,
            summary="Log in to a registry",
        ),
        Verb(
            name="logout", module="logout", args="[REGISTRY]", options="logout", local=True,
            summary="Remove the credentials of a registry",
        ),
        Verb(
            name="manifest inspect", module="manifest", args="IMAGE", options="manifest inspect", local=True,
            summary="Show a manifest or index that a registry has, without pulling it",
        ),
    )  # fmt: skip


def _trust_verbs() -> tuple[Verb, ...]:
    return (
        Verb(
            name="trust show", module="trust", args="[REGISTRY]", options="trust show", local=True,
            also=("image trust show",), summary="Show which images this machine accepts",
        ),
        Verb(
            name="trust set", module="trust", args="REGISTRY", options="trust set", local=True,
            also=("image trust set",), summary="Set which images of a registry are accepted",
        ),
    )  # fmt: skip
