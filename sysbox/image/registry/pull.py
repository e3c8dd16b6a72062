"""Pull an image: what a name means, who has it, whether policy.json accepts it, its layers, and its name.

    pulled = pull(Store(), "registry.example/app:1", Options(), Report())

Nothing of an image but documents of bounded size is fetched before policy.json has accepted its manifest,
and the name is given to it when everything agreed.
"""

from __future__ import annotations

from sysbox.base.errors import FormatError, NotFound, RegistryError, SysboxError
from sysbox.base.files import read_file
from sysbox.base.frozen import Frozen
from sysbox.image import fetch
from sysbox.image.documents import (
    MAX_CONFIG,
    Config,
    Descriptor,
    Manifest,
    digest_of,
    parse_config,
    parse_manifest,
)
from sysbox.image.ingest import Ingest
from sysbox.image.model import Image
from sysbox.image.reference import Reference, refuse_host
from sysbox.image.registry import conf, lookaside, platform
from sysbox.image.registry.access import Access
from sysbox.image.registry.media import Fetched
from sysbox.image.tar import LayerLimits
from sysbox.image.trust import check, policy, provenance
from sysbox.image.trust.signatures import Remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysbox.image.catalog import Catalog
    from sysbox.image.ingest import Blob, Layer
    from sysbox.image.registry.client import Repository
    from sysbox.image.registry.endpoint import Endpoint

_TRANSPORT = "docker"  # in policy.json: a registry


class Options(Access):
    """How to pull."""

    platform: str = ""  # OS/ARCH[/VARIANT]; "" is this machine's


class Report:
    """What happens, as it happens; this one is for a caller that does not want to know."""

    def begin(self, reference: Reference, endpoint: Endpoint) -> None:
        """A manifest is about to be asked for."""

    def failed(self, endpoint: Endpoint, error: SysboxError) -> None:
        """A mirror has failed, and the next place is tried."""

    def layers(self, descriptors: Sequence[Descriptor]) -> None:
        """The layers are known, lowest first; `tell` and `state` name them by their index."""

    def tell(self, index: int, size: int) -> None:
        """So many bytes of a layer's blob are here."""

    def state(self, index: int, word: str) -> None:
        """One of the words of fetch.py."""


class Pulled(Frozen):
    """A pulled image."""

    image: Image
    reference: Reference
    digest: str  # of what the name meant: a manifest, or an index of several
    is_new: bool  # the name did not mean this image before


def pull(store: Catalog, name: str, options: Options, report: Report) -> Pulled:
    """Pull what a name means, from the first place that has it.

    Raises SpecError for a malformed name; NotFound, the RegistryErrors, FormatError, TrustError and
    KernelError, and the name then means what it did before.
    """
    refuse_host(name)
    failure: SysboxError | None = None
    for reference in conf.candidates(name):
        try:
            return pull_reference(store, reference, options, report)
        except (NotFound, RegistryError) as error:
            # of several registries that a short name may mean, the error that is more than an absence
            if failure is None or isinstance(failure, NotFound):
                failure = error
    assert failure is not None  # a name means at least one thing
    raise failure


def pull_reference(
    store: Catalog, reference: Reference, options: Options, report: Report
) -> Pulled:
    """`pull` for a name with its registry: its mirrors, then the registry itself."""
    for endpoint in conf.endpoints(reference):
        report.begin(reference, endpoint)
        try:
            with options.repository(endpoint) as repository:
                return _Pull(store, reference, repository, options, report).run()
        except (NotFound, RegistryError, FormatError) as error:
            if not endpoint.is_mirror:
                raise
            report.failed(endpoint, error)
    raise AssertionError("the registry itself is always one")


def all_tags(name: Reference, options: Options) -> list[Reference]:
    """The repository's references, one for each tag. Raises as `pull`; NotFound where there is none."""
    for endpoint in conf.endpoints(name):
        try:
            with options.repository(endpoint) as repository:
                tags = dict.fromkeys(repository.tags())
            found = [name.replace(tag=tag, digest="") for tag in tags]
        except (NotFound, RegistryError):
            if not endpoint.is_mirror:
                raise
            continue
        if not found:
            raise NotFound(f"{name.familiar_repository()}: the repository has no tags")
        return found
    raise AssertionError("the registry itself is always one")


def current(reference: Reference, options: Options) -> str:
    """The digest of what a tag means in its registry now, "" where it does not say. Raises as `pull`."""
    endpoint = conf.endpoints(reference)[-1]
    with options.repository(endpoint) as repository:
        return repository.digest(reference.digest or reference.tag)


class _Pull:
    """One image from one endpoint."""

    def __init__(
        self,
        store: Catalog,
        reference: Reference,
        repository: Repository,
        options: Options,
        report: Report,
    ) -> None:
        self._store = store
        self._reference = reference
        self._asked = bool(options.platform)
        self._wanted = platform.parse(options.platform) if self._asked else platform.own()
        self._report = report
        self._repository = repository
        # a digest says what a tag beside it may no longer mean, so that the tag is not kept (as with docker)
        self._name = (reference.replace(tag="") if reference.digest else reference).full()

    def run(self) -> Pulled:
        reference = self._reference
        first = self._repository.manifest(reference.digest or reference.tag)
        found = platform.descend(first, self._by_digest, self._wanted, reference.familiar())
        manifest = parse_manifest(found.data, found.media_type)
        index = first.digest if first.digest != found.digest else ""
        origin = provenance.accepted(
            _TRANSPORT, self._name, found.digest, self._check(found), index
        )
        before = {one.digest for one in self._store.entries() if one.name == self._name}
        image = self._fetch(found, manifest, origin)
        return Pulled(
            image=image,
            reference=reference,
            digest=first.digest,
            is_new=found.digest not in before,
        )

    def _by_digest(self, descriptor: Descriptor) -> Fetched:
        found = self._repository.manifest(descriptor.digest, (descriptor.media_type,))
        if len(found.data) != descriptor.size:
            raise FormatError(
                f"{self._reference.familiar()}: its index says that {descriptor.digest} has"
                f" {descriptor.size} bytes, and it has {len(found.data)}"
            )
        return found

    def _check(self, found: Fetched) -> check.Verdict:
        """Raises TrustError unless policy.json accepts the manifest."""
        signatures = Remote(
            self._name,
            found.digest,
            fetch_url=lookaside.fetch,
            fetch_manifest=self._attachments,
            fetch_blob=self._repository.document,
        )
        return check.check(
            policy.load(), _TRANSPORT, self._reference, found.digest, found.data, signatures
        )

    def _attachments(self, tag: str) -> bytes | None:
        try:
            return self._repository.manifest(tag).data
        except NotFound:
            return None

    def _fetch(self, found: Fetched, manifest: Manifest, origin: provenance.Origin) -> Image:
        # without an end mark: umoci writes such layers
        with Ingest(self._store, LayerLimits(unended=True)) as work:
            document = self._config(manifest.config)
            parsed = parse_config(document, new=True)
            self._check_platform(parsed)
            self._report.layers(manifest.layers)
            blobs: list[Blob]
            stack: list[Layer]
            blobs, stack = fetch.layers(
                work,
                manifest.layers,
                parsed.diff_ids,
                self._repository.blob,
                self._report.tell,
                self._report.state,
            )
            return work.commit(found.data, document, blobs, stack, self._name, origin=origin)

    def _check_platform(self, parsed: Config) -> None:
        """An index was chosen from by platform; a manifest of its own has one in its configuration only."""
        image = platform.normal(parsed.image.os, parsed.image.architecture)
        known = {(one.os, one.architecture) for one in platform.runnable(self._wanted)}
        if self._asked and (image.os, image.architecture) not in known:
            raise NotFound(
                f"{self._reference.familiar()}: the image is for {image}, not for {self._wanted}"
            )

    def _config(self, descriptor: Descriptor) -> bytes:
        """The configuration: the store's where it has it."""
        path = self._store.blob(descriptor.digest)
        data = read_file(path, MAX_CONFIG)
        if data is not None and digest_of(data) == descriptor.digest:
            return data
        return self._repository.document(descriptor)
