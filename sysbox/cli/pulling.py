"""Pull for a command line: `pull`, and the --pull of `run` and `create`."""

from __future__ import annotations

import time

from sysbox.base.errors import (
    AccessDenied,
    ImageNotFound,
    NotFound,
    RegistryError,
    SysboxError,
)
from sysbox.base.frozen import Frozen
from sysbox.cli.layer_progress import Extended, LayerProgress
from sysbox.cli.output import note
from sysbox.image.reference import is_digest, is_hex, is_host, parse
from sysbox.image.registry import conf, platform, pull, turns
from sysbox.image.store import Store
from sysbox.lifecycle import images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sysbox.cli.table.options import Values
    from sysbox.image.documents import Descriptor
    from sysbox.image.model import Image
    from sysbox.image.reference import Reference
    from sysbox.image.registry.endpoint import Endpoint
    from sysbox.spec import ContainerSpec

_LONGEST_PAUSE = 60.0  # seconds before another attempt
_WAITING = 1.0  # seconds between two messages of a command that waits for another pull


class Asked(Frozen):
    """What the flags of a container say about its pull."""

    platform: str = ""  # OS/ARCH[/VARIANT]; "" is this machine's
    retries: int = 0  # further attempts of the whole pull
    delay: float = -1.0  # seconds before each of them; -1: one, and then doubled


ANY = Asked()


def asked(values: Values) -> Asked:
    """What --platform, --retry and --retry-delay ask for. Raises SpecError."""
    from sysbox.parse.common import parse_int
    from sysbox.parse.time import parse_duration

    delay = values.retry_delay
    return Asked(
        platform=values.platform or "",
        retries=parse_int(values.retry or "0", "--retry", 0, 1000),
        delay=parse_duration(delay, "--retry-delay") / 10**6 if delay else -1.0,
    )


class Shown(LayerProgress, pull.Report):
    """The report of a pull, on standard error."""

    def begin(self, reference: Reference, endpoint: Endpoint) -> None:
        via = "" if endpoint.name() == reference.repository() else f" from {endpoint.name()}"
        self.notify(f"Pulling {reference.familiar()}{via}")

    def waiting(self, name: str) -> None:
        """Another command pulls the image; said again about every second."""
        if time.monotonic() >= self._said + _WAITING:
            self._said = time.monotonic()
            self.notify(f"Waiting for another pull of {name}")

    _said = 0.0

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


def shown(
    wanted: str | Reference, options: pull.Options, *, quiet: bool, asked: Asked = ANY
) -> pull.Pulled:
    """Pull and report on standard error. Raises as `registry.pull.pull`."""
    report = Shown(quiet=quiet)
    try:
        with Extended(report):
            pulled = _persistent(
                lambda: images.pull(Store(), wanted, options, report), asked, report
            )
    except BaseException:
        report.finish()
        raise
    report.done(pulled)
    return pulled


def _persistent(get: Callable[[], pull.Pulled], asked: Asked, report: Shown) -> pull.Pulled:
    """The pull, attempted again where the registry fails; one that says no is not asked again."""
    for attempt in range(asked.retries + 1):
        try:
            return get()
        except AccessDenied:
            raise
        except RegistryError as error:
            if attempt == asked.retries:
                raise
            pause = asked.delay if asked.delay >= 0 else min(2.0**attempt, _LONGEST_PAUSE)
            report.finish()
            report.extend(pause)
            text = f"{error.message}; another attempt in {pause:g} s"
            report.notify(text)
            note(text)
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _in_turn(
    spec: ContainerSpec, asked: Asked, kept: Callable[[turns.Turn], bool], *, quiet: bool
) -> ContainerSpec:
    """Pull for a container, unless another command has done so meanwhile; the spec with the image's name.

    `kept` says whether the image that is here will do, now that no other command pulls it.
    """
    name, waiting = spec.image, Shown(quiet=True)
    with (
        Extended(waiting),
        turns.Turn(f"{name} {asked.platform}", lambda: waiting.waiting(name)) as turn,
    ):
        if kept(turn):
            return spec
        pulled = shown(name, pull.Options(platform=asked.platform), quiet=quiet, asked=asked)
        turn.succeeded()
    return _with_name(spec, pulled)


def missing(
    spec: ContainerSpec, error: ImageNotFound, *, quiet: bool, asked: Asked = ANY
) -> ContainerSpec:
    """Pull the image that a container needs and the store lacks; returns the spec with its name.

    Raises `error` where a pull is not wanted.
    """
    name = spec.image
    if spec.pull == "never" or is_digest(name) or is_hex(name, 64):
        raise error
    try:
        return _in_turn(spec, asked, lambda _: _fits(name, asked.platform), quiet=quiet)
    except (NotFound, RegistryError) as failure:
        # that another name is here says more than what the registry of this one may lack
        hint = error.hint if name.startswith("localhost/") else failure.hint
        raise ImageNotFound(f"no such image: {name}: {failure.message}", hint=hint) from failure


def _fits(name: str, wanted: str) -> bool:
    """Whether the store has the image, for the platform `wanted`."""
    image = here(name)
    return image is not None and (not wanted or platform.fits(image.config, wanted))


def refresh(spec: ContainerSpec, *, quiet: bool, asked: Asked = ANY) -> ContainerSpec:
    """Pull before a container is made, where --pull or --platform ask for it.

    Returns the spec with the name of what was pulled.
    """
    name, wanted = spec.image, asked.platform
    if is_host(name):
        return spec
    policy = spec.pull
    if wanted and policy != "always":
        image = here(name)
        unfit = image is not None and not platform.fits(image.config, wanted)
        if image is not None and unfit and policy == "never":
            own = f"{image.config.os}/{image.config.architecture}"
            raise NotFound(
                f"image {name}: it is for {own}, not for {wanted}",
                hint="--pull missing fetches the other one",
            )
        policy = "always" if unfit else policy
    if policy not in ("always", "newer"):
        return spec
    options = pull.Options(platform=wanted)

    def kept(turn: turns.Turn) -> bool:
        if turn.is_done and _fits(name, wanted):
            return True
        return policy == "newer" and up_to_date(name, options)

    try:
        return _in_turn(spec, asked, kept, quiet=quiet)
    except RegistryError as failure:
        about = f"{name} for {wanted}" if wanted else name
        raise RegistryError(
            f"image {about}: {failure.message}", hint=failure.hint, code=failure.code
        ) from failure


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
