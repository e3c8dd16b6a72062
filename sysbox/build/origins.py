"""The trees that a stage's instructions name: the context, named contexts, other stages, images."""

from __future__ import annotations

from sysbox.base import files
from sysbox.base.errors import NotFound
from sysbox.build import cache, state
from sysbox.build.cache import key_of
from sysbox.build.content_sources import Origin, expand
from sysbox.build.digests import Digest, Meter
from sysbox.build.root import StageRoot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.build.digests import Tell
    from sysbox.build.layers import Workshop
    from sysbox.build.model import Source
    from sysbox.build.options import Options
    from sysbox.build.state import State


class Origins:
    """The trees of one stage, each opened when it is first needed; a context manager."""

    def __init__(
        self,
        shop: Workshop,
        sources: dict[str, Source],
        context: Origin,
        named: dict[str, Origin],
        stage: Callable[[int], State],
        image: Callable[[Source], str],
        options: Options,
        tell: Tell,
    ) -> None:
        """`stage` waits for another stage; `image` gives the id of an image that a source means.

        `tell` gets what `Meter` tells.
        """
        self._shop = shop
        self._sources = sources
        self._context = context
        self._named = named
        self._stage = stage
        self._image = image
        self._most = options.context_files
        self._tell = tell
        self._roots: dict[str, StageRoot] = {}
        self._states: dict[str, State] = {}

    def __enter__(self) -> Origins:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._roots.values():
            one.__exit__()
        self._roots = {}

    def open(self, name: str) -> Origin:
        """The tree of a --from or from=, "" for the context. Raises NotFound, and what mounting raises."""
        source = self._source(name)
        if source is None:
            return self._context
        if source.kind == "context":
            return self._named[source.name]
        if name not in self._roots:
            layers = self._state(name, source).stack
            root = StageRoot(layers, self._shop.directory("origin"))
            root.__enter__()
            self._roots[name] = root
        kind = "the stage" if source.kind == "stage" else "the image"
        return Origin(self._roots[name].fd, f"{kind} {name}", confined=False)

    def meter(self, what: str, name: str = "") -> Meter:
        """Counts what an instruction does with a tree; the files of a context are bounded."""
        return Meter(what, self._tell, self._most if self.is_context(name) else 0)

    def is_context(self, name: str) -> bool:
        """Whether its files have no owners of their own."""
        source = self._source(name)
        return source is None or source.kind == "context"

    def digest(self, name: str, *patterns: str) -> str:
        """The digest of what is at these paths, without times. Raises as `expand`."""
        source = self._source(name)
        if source is None or source.kind == "context":
            return self._measure(name, patterns, owners=False)
        # what is in layers does not change: it is read once
        stack = self._state(name, source).stack
        key = key_of(["tree", stack[-1].chain_id if stack else "", *patterns])
        directory = f"{cache.directory(self._shop.store.root)}/{cache.DIGESTS}"
        known = files.read_file(f"{directory}/{key}", 64)
        if known:
            return known.decode("ascii", "replace")
        found = self._measure(name, patterns, owners=True)
        files.make_private(directory)
        files.write_file(f"{directory}/{key}", found.encode())
        return found

    def _measure(self, name: str, patterns: tuple[str, ...], *, owners: bool) -> str:
        origin = self.open(name)
        digest = Digest(owners=owners, meter=self.meter("read", name))
        for pattern in patterns:
            for path in expand(origin, pattern):
                digest.add(origin, path)
        return digest.text()

    def _source(self, name: str) -> Source | None:
        if not name:
            return None
        if name not in self._sources:
            raise NotFound(f"--from={name}: no such stage, image or context")
        return self._sources[name]

    def _state(self, name: str, source: Source) -> State:
        if name not in self._states:
            if source.kind == "stage":
                self._states[name] = self._stage(source.stage)
            else:
                store = self._shop.store
                image = store.find(self._image(source))[1]
                self._states[name] = state.of_base(store, image, source.name)
        return self._states[name]
