"""Build an image of a Containerfile: what `sysbox build` does, and every other front door that builds.

    context, Containerfile  →  plan (pure)  →  base images  →  stages side by side  →  image, files

Nothing of a build has a name before all of it is done: the layers of steps are in the cache, and the image in
the index, each with one rename.
"""

from __future__ import annotations

import _signal
import os
import posix

from sysbox.base.errors import ImageNotFound, SpecError, SysboxError, Unsupported, interrupt
from sysbox.base.frozen import Frozen
from sysbox.base.undo import Undo
from sysbox.build import context as contexts
from sysbox.build import fetch, graph, model, parser, result, state, workers
from sysbox.build.content_sources import Origin
from sysbox.build.layers import Workshop
from sysbox.build.options import Options
from sysbox.build.run_mounts import Given
from sysbox.build.workers import Coordinator, Job, Report
from sysbox.container import events
from sysbox.image.catalog import SHOWN_ID
from sysbox.image.reference import is_hex, is_host, parse
from sysbox.image.registry import platform
from sysbox.image.store import Store
from sysbox.lifecycle.create import check_trust

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from sysbox.build.context import Context
    from sysbox.build.model import Plan, Source
    from sysbox.build.state import State
    from sysbox.image.model import Image
    from sysbox.image.registry.pull import Report as PullReport

    # what else becomes of the target: it is called before an image is made of it
    Also = Callable[[Workshop, State], None]

POLICIES = ("always", "missing", "never", "newer")


class Asked(Frozen):
    """One build."""

    context: str = "."  # a directory, -, a URL
    file: str = ""  # --file: a path, -, "" for the usual names
    ignore_file: str = ""
    contexts: dict[str, str] = {}  # noqa: RUF012 (name of --build-context -> a context as above)
    request: model.Request = model.Request()
    options: Options = Options()
    pull: str = "missing"  # one of POLICIES
    access: dict[str, Any] = {}  # noqa: RUF012 (how registries are reached: fields of `registry.access`)
    image: bool = True  # an image is made

    def wrong(self) -> str:
        return "" if self.pull in POLICIES else f"pull: must be one of {', '.join(POLICIES)}"


class Built(Frozen):
    """What a build has made."""

    plan: Plan
    image: Image | None = None


class Prepared(Frozen):
    """A build before its first step."""

    plan: Plan
    images: dict[tuple[str, str], str]  # (name, platform) -> id


def build(
    asked: Asked,
    given: Given,
    report: Report,
    *,
    pulling: Callable[[], PullReport] | None = None,
    planned: Callable[[Plan], None] = lambda _: None,
    also: Also | None = None,
) -> Built:
    """Build it; `planned` is called before anything is pulled. Raises BuildError, SysboxError.

    A build that fails, or is ended by a signal, keeps the steps that it has made in the cache.
    """
    if posix.geteuid() != 0:
        raise Unsupported("only root can build images", hint="run it with sudo")
    for number in (_signal.SIGTERM, _signal.SIGHUP):
        _signal.signal(number, interrupt)
    options = asked.options.replace(id=asked.options.id or posix.urandom(4).hex())
    store = Store()
    with Workshop(store, options.epoch_ns) as shop, _Trees(asked, shop) as trees:
        prepared = _prepare(store, asked, trees, pulling, planned)
        job = Job(
            prepared.plan, options, store, trees.context, trees.named, given, prepared.images,
            shop.directory("stages"),
        )  # fmt: skip
        most = workers.at_once(len(prepared.plan.stages), os.cpu_count() or 1)
        done = Coordinator(job, report, most).build()
        if also:
            also(shop, done)
        if not asked.image:
            return Built(plan=prepared.plan)
        target = prepared.plan.stages[-1]
        image = result.commit(shop, done, options, target.platform)
    events.image("build", image.id, image.config.labels)
    return Built(plan=prepared.plan, image=image)


class _Trees:
    """The context and the named contexts, open; a context manager."""

    def __init__(self, asked: Asked, shop: Workshop) -> None:
        self._asked = asked
        self._shop = shop
        self._opened: list[Context] = []
        self.named: dict[str, Origin] = {}
        self.file = ("", b"")

    def __enter__(self) -> _Trees:
        asked = self._asked
        with Undo() as undo:
            undo.add(lambda _: self.__exit__())
            opened = self._open(asked.context)
            self.file = contexts.containerfile(opened, asked.file)
            patterns = contexts.ignore_file(opened, asked.file, asked.ignore_file)
            most = asked.options.context_files
            self.context = opened.origin(patterns, most)
            for name, text in asked.contexts.items():
                named = self._open(text)
                self.named[name] = named.origin(contexts.ignore_file(named, "", ""), most)
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._opened:
            one.close()
        self._opened = []

    def _open(self, text: str) -> Context:
        options = self._asked.options
        limits = fetch.Limits(size=options.fetch_size, files=options.context_files)
        found = contexts.open_context(text, self._shop.directory, limits)
        self._opened.append(found)
        return found


class _Naming:
    """A context manager: an error of an image says who wants it."""

    def __init__(self, user: str) -> None:
        self._user = user

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, SysboxError):
            error.message = f"{self._user}: {error.message}"
            error.args = (error.message,)


def _prepare(
    store: Store,
    asked: Asked,
    trees: _Trees,
    report: Callable[[], PullReport] | None,
    planned: Callable[[Plan], None],
) -> Prepared:
    """The plan, with every image that it needs in the store. Raises FileError, SysboxError."""
    name, data = trees.file
    file = parser.parse(data, name)
    plan = graph.make_plan(file, asked.request)
    planned(plan)
    found: dict[tuple[str, str], str] = {}
    triggers: dict[str, tuple[str, ...]] = {}
    while True:
        for source in plan.images:
            key = (source.name, source.platform)
            if key not in found:
                with _Naming(graph.user_of(plan, source)):
                    image = _image(store, source, asked, report)
                found[key] = image.id
                if texts := state.triggers_of(store, image):
                    triggers[source.name] = texts
        again = graph.make_plan(file, asked.request, triggers) if triggers else plan
        if set(again.images) <= set(plan.images):
            return Prepared(plan=again, images=found)
        plan = again  # a trigger names another image


def _image(
    store: Store, source: Source, asked: Asked, report: Callable[[], PullReport] | None
) -> Image:
    """The image that a source means, pulled where that is needed. Raises ImageNotFound, SysboxError."""
    wanted = "" if source.platform == asked.request.own_platform else source.platform
    image = None
    try:
        image = store.resolve(_name(source.name))
    except ImageNotFound:
        if asked.pull == "never":
            raise
    if image is not None and wanted and not platform.fits(image.config, wanted):
        image = None
    if image is None or (asked.pull in ("always", "newer") and not is_host(source.name)):
        image = _pulled(store, source, asked, wanted, image, report)
    check_trust(image, source.name)
    return image


def _name(text: str) -> str:
    """An image's name for the store: BuildKit knows no ids here, and what an id begins with is a name.

    Else an image that is here could take the place of one that is pulled: its maker chooses the first digits.
    """
    return parse(text).familiar() if is_hex(text) and len(text) < SHOWN_ID else text


def _pulled(
    store: Store,
    source: Source,
    asked: Asked,
    wanted: str,
    here: Image | None,
    report: Callable[[], PullReport] | None,
) -> Image:
    from sysbox.image.registry import pull  # which most builds do not need
    from sysbox.lifecycle import images

    if asked.pull == "never":
        raise SpecError(
            f"image {source.name}: the one that is here is not for {source.platform}",
            hint="--pull missing fetches the other one",
        )
    options = pull.Options(platform=wanted, **asked.access)
    try:
        return images.pull(store, source.name, options, report() if report else pull.Report()).image
    except SysboxError:
        if here is not None and asked.pull == "newer":
            return here  # as with `run --pull newer`
        raise


def names_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Full references of --tag. Raises SpecError."""
    from sysbox.image import archive

    found = []
    for text in texts:
        archive.check_name(text)
        found.append(parse(text).full())
    return tuple(dict.fromkeys(found))


def own_platform() -> str:
    """OS/ARCH[/VARIANT] of this machine."""
    return str(platform.own())
