"""`sysbox push`: send images to a registry."""

from __future__ import annotations

import posix

from sysbox.base.errors import SpecError, UsageError
from sysbox.cli.layer_progress import LayerProgress
from sysbox.cli.output import line
from sysbox.cli.request.registries import transfer
from sysbox.image.caller_files import read_given
from sysbox.image.reference import has_suffix, is_host, parse
from sysbox.image.registry import push
from sysbox.image.store import Store
from sysbox.lifecycle import images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sysbox.cli.table.options import Values
    from sysbox.image.documents import Descriptor
    from sysbox.image.model import Image
    from sysbox.image.reference import Reference

_MAX_KEY = 64 << 10  # bytes of a key, or of its passphrase


class _Shown(LayerProgress, push.Report):
    """The report of a push, on standard error."""

    def begin(self, reference: Reference, descriptors: Sequence[Descriptor]) -> None:
        self.say(f"Pushing {reference.familiar()}")
        self.blobs(descriptors)


def main(values: Values) -> int:
    """0; prints docker's line for each tag: its name, digest and size of the manifest."""
    store = Store()
    options = push.Options(**transfer(values), form=_form(values.format or ""))
    key = _key(values)
    for source, target in _wanted(store, values):
        done = shown(store, store.resolve(source), target, options, key, quiet=values.quiet)
        if values.digestfile:
            _write_digest(values.digestfile, done.digest)
        line(target.familiar() if values.quiet else told(target, done))
    return 0


def shown(
    store: Store,
    image: Image,
    target: Reference,
    options: push.Options,
    key: Any = None,
    *,
    quiet: bool,
) -> push.Pushed:
    """Push and show how far it is, on standard error. Raises as `registry.push.push`."""
    progress = _Shown(quiet=quiet)
    try:
        return images.push(store, image, target, options, progress, key)
    finally:
        progress.finish()


def told(target: Reference, done: push.Pushed) -> str:
    """docker's line for what was pushed."""
    return f"{target.tag}: digest: {done.digest} size: {done.size}"


def _wanted(store: Store, values: Values) -> list[tuple[str, Reference]]:
    """(name or id here, name there) of each image."""
    source = values.image.removeprefix("docker://")
    if not values.all_tags:
        target = values.destination or _own_name(store, source)
        return [(source, parse(target.removeprefix("docker://")))]
    if values.destination or has_suffix(source):
        raise UsageError(
            f"push --all-tags {source}: a tag or digest is given", hint="give the repository alone"
        )
    repository = parse(source).repository()
    found = [parse(one.name) for one in store.entries() if one.name]
    wanted = [one for one in found if one.repository() == repository and one.tag]
    if not wanted:
        raise SpecError(f"push --all-tags {source}: no image here is called that")
    return [(one.full(), one) for one in sorted(wanted, key=lambda one: one.tag)]


def _own_name(store: Store, name: str) -> str:
    """The name in full: a short one may have come from a search registry of registries.conf."""
    if is_host(name):
        return name
    found = store.find(name)[0]
    if not found:
        raise SpecError(
            f"push {name}: an id is not a name in a registry", hint="give DESTINATION too"
        )
    return found


def _form(text: str) -> str:
    if text not in ("", *push.FORMS):
        raise UsageError(f"--format {text}: unknown format", hint=" or ".join(push.FORMS))
    return text


def _key(values: Values) -> Any:
    """The private key to sign with, or None. Raises SpecError, UsageError, Unsupported."""
    path = values.sign_by_sigstore_private_key
    if not path:
        if values.sign_passphrase_file:
            raise UsageError("--sign-passphrase-file: there is no --sign-by-sigstore-private-key")
        return None
    from sysbox.image.trust import keys

    passphrase = b""
    if values.sign_passphrase_file:
        text = read_given(values.sign_passphrase_file, _MAX_KEY, SpecError)
        passphrase = text.rstrip(b"\r\n")
    return keys.private(read_given(path, _MAX_KEY, SpecError), passphrase, path)


def _write_digest(path: str, digest: str) -> None:
    from sysbox.cli.output_file import OutputFile

    file = OutputFile(path)
    try:
        posix.write(file.fd, digest.encode())
        file.done()
    finally:
        file.close()
