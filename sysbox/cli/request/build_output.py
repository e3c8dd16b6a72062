"""The flags that say what becomes of a build: --output, --load, --push, in docker's and buildx's words."""

from __future__ import annotations

from sysbox.base.errors import UsageError
from sysbox.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values

_ARCHIVES = {"oci": "oci-archive", "docker": "docker-archive"}  # by the names of `save`
_KINDS = ("image", "registry", "local", "tar", *_ARCHIVES, "cacheonly")


class Output(Frozen):
    """One thing that becomes of a build."""

    kind: str  # one of _KINDS
    path: str = ""  # - is standard output
    names: tuple[str, ...] = ()  # of the image, besides those of --tag
    push: bool = False

    @property
    def makes_image(self) -> bool:
        return self.kind not in ("local", "tar", "cacheonly")

    @property
    def archive(self) -> str:
        """The form of an archive of the image, "" where none is written."""
        return _ARCHIVES.get(self.kind, "")


def wanted(values: Values) -> list[Output]:
    """All that becomes of it: an image where nothing is said. Raises UsageError."""
    outputs = [_output(text) for text in values.output]
    if values.load:
        outputs.append(Output(kind="image"))
    if values.push:
        outputs.append(Output(kind="registry", push=True))
    return outputs or [Output(kind="image")]


def _output(text: str) -> Output:
    """`PATH`, `-`, or `type=TYPE,dest=PATH`. Raises UsageError."""
    if "=" not in text:
        return Output(kind="tar", path="-") if text == "-" else Output(kind="local", path=text)
    fields = dict(part.partition("=")[::2] for part in _parts(text))
    kind = fields.pop("type", "")
    if kind not in _KINDS:
        raise UsageError(
            f"--output {text}: not type=TYPE,dest=PATH", hint=f"TYPE: {', '.join(_KINDS)}"
        )
    path = fields.pop("dest", fields.pop("dst", ""))
    name, push = fields.pop("name", ""), fields.pop("push", "")
    is_image = kind in ("image", "registry", *_ARCHIVES)
    for key in [*fields, *(["name"] if name and not is_image else [])]:
        raise UsageError(f"--output {text}: {key}= is not known for type={kind}")
    if push not in ("", "true", "false") or (push and kind != "image"):
        raise UsageError(f"--output {text}: push=true is for type=image")
    if path and kind in ("image", "registry", "cacheonly"):
        raise UsageError(
            f"--output {text}: type={kind} has no dest=", hint="type=oci,dest=FILE is an archive"
        )
    if not path and kind == "local":
        raise UsageError(f"--output {text}: needs dest=DIRECTORY")
    if not path and kind == "docker":
        kind = "image"  # buildx loads it into docker's store
    if not path and kind in ("tar", "oci"):
        path = "-"
    names = tuple(one for one in name.split(",") if one)
    return Output(kind=kind, path=path, names=names, push=kind == "registry" or push == "true")


def _parts(text: str) -> list[str]:
    """The fields; the value of one in quotes may have commas, as in `"name=a,b"`."""
    parts: list[str] = []
    quoted = False
    for part in text.split(","):
        if quoted:
            parts[-1] += f",{part.rstrip(chr(34))}"
        else:
            parts.append(part.removeprefix('"'))
        if part.startswith('"') or quoted:
            quoted = not part.endswith('"')
    return parts
