"""What a `.container` file says, as the words of `sysbox run` and the keys of a service."""

from __future__ import annotations

from sysbox.base.errors import FormatError, SpecError
from sysbox.host import exists
from sysbox.units import serviceplan
from sysbox.units.quadlet import protection, remap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.conversion import Conversion

_IMAGES = (".image", ".build")
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")
_READ_ONLY_TMPFS = ("/run", "/tmp", "/var/tmp")
# of podman's flags: each start makes the container anew, in a scope of its own
_AS_IT_IS = ("--replace", "--replace=true", "--cgroups=split", "--cgroups=enabled")
# what the containers of a pod have in common
_OF_POD = (
    "DNS", "DNSOption", "DNSSearch", "GIDMap", "HostName", "IP", "IP6", "Network", "NetworkAlias",
    "PublishPort", "RemapUsers", "ShmSize", "SubGIDMap", "SubUIDMap", "UIDMap", "UserNS",
)  # fmt: skip


def convert(made: Conversion) -> None:
    """Add the words after `sysbox run`, and the keys of the service. Raises FormatError."""
    section = made.section
    if "ContainerName" not in section:
        made.words.append(f"--name={_name(made)}")
    made.words += section.flags()
    for step in _STEPS:
        step(made)
    made.words += [one for one in section.words("PodmanArgs") if one not in _AS_IT_IS]
    made.image = _image(made)
    made.words += [made.image, *section.words("Exec")]


def _name(made: Conversion) -> str:
    default = "systemd-%p_%i" if "@" in made.source.stem else "systemd-%N"
    return made.section.one("ContainerName") or default


def _image(made: Conversion) -> str:
    section = made.section
    if "Rootfs" in section:
        raise section.wrong(
            "Rootfs",
            "a container needs an image, not a directory",
            "`tar -C DIRECTORY -c . | sysbox import - NAME` makes one for Image=",
        )
    image = section.one("Image")
    if not image:
        raise FormatError(f"{section.path}: [Container] has no Image=")
    if not image.endswith(_IMAGES):
        return image
    made.needs("Image", image)
    other = made.declared.section(made.declared.source(image))
    return (other.all("ImageTag") or [other.one("Image")])[0]


def _user(made: Conversion) -> None:
    section = made.section
    user, group = section.one("User"), section.one("Group")
    if group and not user:
        raise section.wrong("Group", "needs User= too")
    if user:
        made.words.append(f"--user={user}:{group}" if group else f"--user={user}")


def _devices(made: Conversion) -> None:
    for word in made.section.words("AddDevice"):
        # a leading "-" means: only where the device is there
        if not word.startswith("-") or exists(word[1:].partition(":")[0]):
            made.words.append(f"--device={word.removeprefix('-')}")


def _environment(made: Conversion) -> None:
    section = made.section
    for word in section.words("EnvironmentFile"):
        if word.startswith("-"):
            raise section.wrong(
                "EnvironmentFile",
                f"{word!r}: that it may be missing is for systemd to know",
                "EnvironmentFile= of [Service], with EnvironmentHost=yes here",
            )
        path = word if word.startswith(("/", "%")) else f"./{word.removeprefix('./')}"
        made.words.append(f"--env-file={made.path(path)}")
    if section.is_true("HttpProxy"):
        # a name alone has the value of the service's environment, where it is set
        made.words += [f"--env={name}" for one in _PROXIES for name in (one, one.upper())]
    zone = section.one("Timezone")
    if zone == "local" and not any(
        ":/etc/localtime" in text for text in made.section.all("Volume")
    ):
        made.words.append("--volume=/etc/localtime:/etc/localtime:ro")
    elif zone:
        made.words.append(f"--env=TZ={zone}")


def _label(made: Conversion) -> None:
    update = made.section.one("AutoUpdate")
    if update not in ("", "registry", "local"):
        raise made.section.wrong("AutoUpdate", f"{update!r} is unknown", "registry or local")
    if update:
        made.words.append(f"--label=io.containers.autoupdate={update}")


def _read_only(made: Conversion) -> None:
    section = made.section
    if section.is_true("ReadOnly") and section.is_true("ReadOnlyTmpfs", default=True):
        given = {one.partition(":")[0] for one in section.all("Tmpfs")}
        made.words += [f"--tmpfs={path}" for path in _READ_ONLY_TMPFS if path not in given]
    if section.is_true("VolatileTmp"):
        made.words.append("--tmpfs=/tmp:rw,size=512M,mode=1777")


def volumes(made: Conversion) -> None:
    """Volume=, of a container or a pod."""
    for text in made.section.all("Volume"):
        origin, colon, rest = text.partition(":")
        if not colon:
            made.words.append(f"--volume={text}")
        elif origin.endswith(".volume"):
            made.needs("Volume", origin)
            made.words.append(f"--volume={made.declared.resource_of(origin)}:{rest}")
        else:
            made.mounts(made.path(origin))
            made.words.append(f"--volume={made.path(origin)}:{rest}")


def _mounts(made: Conversion) -> None:
    for text in made.section.all("Mount"):
        parts = []
        for part in text.split(","):
            name, equals, value = part.partition("=")
            if equals and name in ("source", "src"):
                if value.endswith(".volume"):
                    made.needs("Mount", value)
                    value = made.declared.resource_of(value)
                elif value.endswith(_IMAGES):
                    raise made.section.wrong("Mount", "images cannot be mounted")
                else:
                    value = made.path(value)
                    made.mounts(value)
                parts.append(f"{name}={value}")
            else:
                parts.append(part)
        made.words.append(f"--mount={','.join(parts)}")


def networks(made: Conversion) -> None:
    """Network=, likewise."""
    for text in made.section.all("Network"):
        name, colon, options = text.partition(":")
        if name.endswith(".network"):
            made.needs("Network", name)
            name = made.declared.resource_of(name)
        elif name.endswith(".container"):
            made.needs("Network", name)
            name = f"container:{made.declared.resource_of(name)}"
        made.words.append(f"--network={name}{colon}{options}")


def _stop(made: Conversion) -> None:
    """systemd waits for a stop as long as the container may take, unless [Service] says how long."""
    text = made.section.one("StopTimeout")
    own = {one.key for one in made.source.assignments if one.section == "Service"}
    if not text or own & {"TimeoutStopSec", "TimeoutSec"}:
        return
    from sysbox.parse.time import parse_seconds  # few files have such a key

    try:
        seconds = parse_seconds(text, "StopTimeout=")
    except SpecError:
        return  # ignoring: it has a specifier, or the start says what is wrong with it
    made.service.append(("TimeoutStopSec", serviceplan.stop_patience(seconds)))


def _reload(made: Conversion) -> None:
    section = made.section
    command, signal = section.words("ReloadCmd"), section.one("ReloadSignal")
    if command and signal:
        raise section.wrong("ReloadSignal", "cannot be set together with ReloadCmd=")
    if command:
        made.service.append(("ExecReload", made.command("exec", _name(made), *command)))
    elif signal:
        made.service.append(("ExecReload", made.command("kill", "--signal", signal, _name(made))))


def _credentials(made: Conversion) -> None:
    """ImportCredential= of [Service], of which systemd before 254 knows nothing, is done here too."""
    for one in made.source.assignments:
        is_asked = (one.section, one.key) == ("Service", "ImportCredential") and one.value
        if is_asked and ":" not in one.value:  # with another name: systemd 257 does it
            made.words.append(f"--credential={one.value}")


def _ready(made: Conversion) -> str:
    """When the service is started. podman's own flag, in PodmanArgs=, comes last there and so counts."""
    section, mode = made.section, ""
    words = section.words("PodmanArgs")
    for word, following in zip(words, (*words[1:], ""), strict=False):
        flag, equals, value = word.partition("=")
        if flag == "--sdnotify":
            mode = value if equals else following
    if mode:
        return mode if mode in ("container", "healthy") else ""
    if section.one("Notify").lower() == "healthy":
        return "healthy"
    try:
        return "container" if section.is_true("Notify") else ""
    except FormatError:
        raise section.wrong(
            "Notify", f"{section.one('Notify')!r} is unknown", "yes, no or healthy"
        ) from None


def _rest(made: Conversion) -> None:
    section = made.section
    mode = section.one("CgroupsMode")
    if mode not in ("", "split", "enabled"):
        raise section.wrong("CgroupsMode", "a container always has a scope of its own")
    made.ready = _ready(made)


def _join(made: Conversion) -> None:
    """Of a container: bind its service to that of its pod, and its run to the pod. Raises FormatError."""
    section = made.section
    name = section.one("Pod")
    if not name:
        return
    if not name.endswith(".pod"):
        raise section.wrong("Pod", f"{name!r} is not the name of a .pod file", "such as shop.pod")
    for key in _OF_POD:
        if key in section:
            raise section.wrong(key, f"it belongs to the pod: set it in {name}")
    made.needs("Pod", name, "BindsTo")
    made.words.append(f"--pod={made.declared.resource_of(name)}")


# in the order of their words
_STEPS = (
    _join, _user, remap.convert, protection.convert, _devices, _environment, _label, _read_only, volumes,
    _mounts, networks, _stop, _reload, _credentials, _rest,
)  # fmt: skip
