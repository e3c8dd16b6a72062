"""`sysbox manifest inspect`: print a manifest or index as the registry has it, indented as docker does."""

from __future__ import annotations

from sysbox.base.errors import NotFound, SysboxError
from sysbox.cli.output import emit
from sysbox.cli.request import registries
from sysbox.image.registry import conf
from sysbox.image.registry.access import Access
from sysbox.image.registry.media import is_index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.image.reference import Reference
    from sysbox.image.registry.media import Fetched

_MANIFEST_INDENT, _INDEX_INDENT = "\t", "   "  # docker's


def main(values: Values) -> int:
    """0; raises NotFound where no registry that the name may mean has it."""
    access = Access(**registries.access(values))
    if values.insecure:
        access = access.replace(insecure=True)
    failure: SysboxError | None = None
    name = values.image.removeprefix("docker://")
    for reference in conf.candidates(name):
        try:
            found = _fetch(reference, access)
        except SysboxError as error:
            # of several errors the first that is more than an absence tells most
            if failure is None or isinstance(failure, NotFound):
                failure = error
            continue
        indent = _INDEX_INDENT if is_index(found.media_type) else _MANIFEST_INDENT
        emit(indented(found.data.decode("utf-8"), indent) + "\n")
        return 0
    assert failure is not None  # a name means at least one thing
    if isinstance(failure, NotFound):
        raise NotFound(f"no such manifest: {values.image}", hint=failure.message)
    raise failure


def _fetch(reference: Reference, access: Access) -> Fetched:
    """The document from the first place that has it. Raises the last place's error."""
    failure: SysboxError | None = None
    for endpoint in conf.endpoints(reference):
        try:
            return access.repository(endpoint).manifest(reference.digest or reference.tag)
        except SysboxError as error:
            failure = error
    assert failure is not None  # the registry itself is always one
    raise failure


def indented(document: str, indent: str) -> str:
    """A JSON document with its white space replaced, as Go's json.Indent does: nothing else changes."""
    made: list[str] = []
    depth = 0
    opened = quoted = escaped = False
    for character in document:
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character in " \t\r\n":
            continue
        else:
            closing = character in "}]"
            depth -= closing
            if opened != closing:
                made.append("\n" + indent * depth)
            opened = character in "{["
            depth += opened
            quoted = character == '"'
        made.append(character)
        if not quoted and character in ",:":
            made.append(" " if character == ":" else "\n" + indent * depth)
    return "".join(made)
