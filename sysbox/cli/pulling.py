"""Pull for a command line: `pull`, and the --pull of `run` and `create`."""

from __future__ import annotations

from sysbox.base.errors import ImageNotFound, NotFound, RegistryError, SysboxError
from sysbox.cli.layer_progress import LayerProgress
from sysbox.cli.output import note
from sysbox.image.reference import is_digest, is_hex, is_host, parse
from sysbox.image.registry import conf, platform, pull
from sysbox.image.store import Store
from sysbox.lifecycle import images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysbox.image.documents import Descriptor
    from sysbox.image.model import Image
    from sysbox.image.reference import Reference
    from sysbox.image.registry.endpoint import Endpoint
    from sysbox.spec import ContainerSpec


class Shown(LayerProgress, pull.Report):
    """The report of a pull, on standard error."""

    def begin(self, reference: Reference, endpoint: Endpoint) -> None:
        via = "" if endpoint.name() == reference.repository() else f" from {endpoint.name()}"
        self.notify(f"Pulling {reference.familiar()}{via}")

    def failed(self, endpoint: Endpoint, error: SysboxError) -> None:
        note(f"the mirror {endpoint.name()} has failed: {error.message}")

    def layers(self, descriptors: Sequence[Descriptor]) -> None:
        # only now: a pull that finds no image says so in one line
        self.say(self.status)
        self.blobs(descriptors)

    def done(self, pulled: pull.Pulled) -> None:
        """The last lines."""
        what = "Downloaded newer image for" if pulled.is_new else "Image is up to date for"
        status = f"Status: {what} {pulled.reference.familiar()}"
        self.conclude(f"Digest: {pulled.digest}", status)


def shown(wanted: str | Reference, options: pull.Options, *, quiet: bool) -> pull.Pulled:
    """Pull and report on standard error. Raises as `registry.pull.pull`."""
    report = Shown(quiet=quiet)
    try:
        pulled = images.pull(Store(), wanted, options, report)
    except BaseException:
        report.finish()
        raise
    report.done(pulled)
    return pulled


def missing(
    spec: ContainerSpec, error: ImageNotFound, *, quiet: bool, wanted: str = ""
) -> ContainerSpec:
    """Pull the image that a container needs and the store lacks; returns the spec with its name.

    `wanted` is the platform, "" for this machine's. Raises `error` where a pull is not wanted.
    """
    name = spec.image
    if spec.pull == "never" or is_digest(name) or is_hex(name, 64):
        raise error
    try:
        pulled = shown(name, pull.Options(platform=wanted), quiet=quiet)
    except (NotFound, RegistryError) as failure:
        raise ImageNotFound(
            f"no such image: {name}: {failure.message}", hint=failure.hint
        ) from None
    return _with_name(spec, pulled)


def refresh(spec: ContainerSpec, *, quiet: bool, wanted: str = "") -> ContainerSpec:
    """Pull before a container is made, where --pull or the platform `wanted` ask for it.

    Returns the spec with the name of what was pulled.
    """
    if is_host(spec.image):
        return spec
    options = pull.Options(platform=wanted)
    policy = spec.pull
    if wanted and policy != "always":
        image = here(spec.image)
        unfit = image is not None and not platform.fits(image.config, wanted)
        if image is not None and unfit and policy == "never":
            own = f"{image.config.os}/{image.config.architecture}"
            raise NotFound(
                f"image {spec.image}: it is for {own}, not for {wanted}",
                hint="--pull missing fetches the other one",
            )
        policy = "always" if unfit else policy
    if policy == "always" or (policy == "newer" and not up_to_date(spec.image, options)):
        return _with_name(spec, shown(spec.image, options, quiet=quiet))
    return spec


def up_to_date(name: str, options: pull.Options) -> bool:
    """Whether the image that is here need not be pulled: the registry has no other one, or cannot be asked.

    As with podman, `newer` is content with the image that is here where the registry fails.
    Raises what the registry raises where none is here.
    """
    try:
        return not _is_newer(name, options)
    except SysboxError as error:
        if here(name) is None:
            raise
        note(f"image {name}: the registry was not asked: {error.message}")
        return True


def here(name: str) -> Image | None:
    """The image of the store, None where it has none of this name."""
    try:
        return Store().resolve(name)
    except SysboxError:
        return None


def _with_name(spec: ContainerSpec, pulled: pull.Pulled) -> ContainerSpec:
    """The container is made of what was pulled, which a short name alone may not say."""
    reference = pulled.reference
    if parse(spec.image).repository() == reference.repository():
        return spec
    return spec.replace(image=reference.familiar())


def _is_newer(name: str, options: pull.Options) -> bool:
    """Whether the registry has another image under the name, or the store has none."""
    entries = Store().entries()
    for reference in (parse(name), *conf.candidates(name)):
        known = {
            digest
            for entry in entries
            if entry.name == reference.full()
            for digest in (entry.digest, entry.index)
        }
        if known:
            return images.current_digest(reference, options) not in known
    return True
