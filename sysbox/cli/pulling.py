"""Pull for a command line: `pull`, and the --pull of `run` and `create`."""

from __future__ import annotations

from sysbox.base.errors import ImageNotFound, NotFound, RegistryError, SysboxError
from sysbox.cli.layer_progress import LayerProgress
from sysbox.cli.output import note
from sysbox.image.reference import is_digest, is_hex, is_host, parse
from sysbox.image.registry import pull
from sysbox.image.store import Store
from sysbox.lifecycle import images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysbox.image.documents import Descriptor
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
        self.finish()
        self.say(f"Digest: {pulled.digest}")
        what = "Downloaded newer image for" if pulled.is_new else "Image is up to date for"
        self.say(f"Status: {what} {pulled.reference.familiar()}")


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


def missing(spec: ContainerSpec, error: ImageNotFound, *, quiet: bool) -> None:
    """Pull the image that a container needs and the store lacks. Raises `error` where that is not wanted."""
    name = spec.image
    if spec.pull == "never" or is_digest(name) or is_hex(name, 64):
        raise error
    try:
        shown(name, pull.Options(), quiet=quiet)
    except (NotFound, RegistryError) as failure:
        raise ImageNotFound(
            f"no such image: {name}: {failure.message}", hint=failure.hint
        ) from None


def refresh(spec: ContainerSpec, *, quiet: bool) -> None:
    """Pull before a container is made: --pull always, and newer where the registry has another image.

    As with podman, `newer` is content with the image that is here where the registry fails.
    """
    if is_host(spec.image):
        return
    options = pull.Options()
    if spec.pull == "newer":
        try:
            if not _is_newer(spec.image, options):
                return
        except SysboxError as error:
            if not _is_here(spec.image):
                raise
            note(f"image {spec.image}: the registry was not asked: {error.message}")
            return
    shown(spec.image, options, quiet=quiet)


def _is_newer(name: str, options: pull.Options) -> bool:
    """Whether the registry has another image under the name, or the store has none."""
    reference = parse(name)
    known = {
        digest
        for entry in Store().entries()
        if entry.name == reference.full()
        for digest in (entry.digest, entry.index)
    }
    return not known or images.current_digest(reference, options) not in known


def _is_here(name: str) -> bool:
    try:
        Store().resolve(name)
    except SysboxError:
        return False
    return True
