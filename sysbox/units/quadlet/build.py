"""What a `.build` file says, as the words of `sysbox build`: the context, and what is not one flag. Pure."""

from __future__ import annotations

from sysbox.base.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.conversion import Conversion

_ABSOLUTE = ("/", "%")  # a specifier stands for a path
_REMOTE = ("http://", "https://", "git://", "ssh://", "git@", "github.com/")


def convert(made: Conversion) -> None:
    """Add the words between the flags that are one key each and the end. Raises FormatError."""
    section = made.section
    if not section.all("ImageTag"):
        raise FormatError(f"{section.path}: [Build] has no ImageTag=")
    section.is_true("ForceRM")  # it changes nothing, but has a value
    arch, variant = section.one("Arch"), section.one("Variant")
    if variant and not arch:
        raise section.wrong("Variant", "needs Arch= too")
    if arch:
        made.words.append("--platform=" + "/".join(filter(None, ("linux", arch, variant))))
    for name in section.all("Network"):
        if name.endswith(".network"):
            made.needs("Network", name)
            name = made.declared.resource_of(name)
        made.words.append(f"--network={name}")
    for text in section.all("Volume"):
        place, colon, rest = text.partition(":")
        if place.endswith(".volume"):
            raise section.wrong("Volume", "a build mounts directories of the host only")
        made.mounts(made.path(place))
        made.words.append(f"--volume={made.path(place)}{colon}{rest}")
    made.words.append(_context(made))


def _context(made: Conversion) -> str:
    """The context; the service's working directory, for relative paths, is as podman's generator sets it."""
    section = made.section
    wanted, file = section.one("SetWorkingDirectory"), section.one("File")
    directory, context = _working_directory(made), ""
    if wanted.startswith((*_ABSOLUTE, *_REMOTE)):
        context = wanted
    elif wanted and not directory:
        directory = _directory(made, wanted, file)
        made.service.append(("WorkingDirectory", directory.replace("$$", "$")))
        if wanted.lower() not in ("unit", "file"):
            context = made.path(f"./{wanted.removeprefix('./')}")
    if file.startswith(_ABSOLUTE):  # its own directory is podman's choice there
        return context or file.rpartition("/")[0] or "/"
    if context or directory:
        return context or directory
    raise FormatError(
        f"{section.path}: [Build] has neither SetWorkingDirectory= nor an absolute File=",
        hint="SetWorkingDirectory=unit is the directory of this file",
    )


def _working_directory(made: Conversion) -> str:
    """WorkingDirectory= of [Service], before which SetWorkingDirectory= does not count; "" for none."""
    found = ""
    for one in made.source.assignments:
        if (one.section, one.key) == ("Service", "WorkingDirectory"):
            found = one.value.removeprefix("-")
    return "%h" if found == "~" else found.replace("$", "$$")


def _directory(made: Conversion, wanted: str, file: str) -> str:
    """The directory in which the build runs, of SetWorkingDirectory= without a path from the root."""
    beside = made.path(".").removesuffix("/.")
    if wanted.lower() != "file":
        return beside
    if not file:
        raise made.section.wrong("SetWorkingDirectory", "there is no File=")
    above = file.removeprefix("./").rpartition("/")[0]
    if file.startswith(_ABSOLUTE):
        return above or "/"
    return f"{beside}/{above}" if above else beside
